"""Who may use the server: its token, names that it is asked by, pages of other sites."""

import os
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")

from fastapi import HTTPException, Request

from mgc_ray import RequestError
from mgc_ray.serving.access import (
    TOKEN_VARIABLE,
    check_origin,
    check_origins,
    is_loopback,
    is_token,
    take_token,
    token_digest,
)
from tests.commands import command

TOKEN = "correct-horse-battery"


def request(**headers: str) -> Request:
    coded = [(k.encode(), v.encode()) for k, v in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": coded, "app": None})


def test_the_token_is_taken_from_a_file_else_from_the_environment_which_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert take_token(None) == ""
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert take_token(None) == TOKEN
    assert TOKEN_VARIABLE not in os.environ
    (tmp_path / "token").write_text(f"{TOKEN}2\n")
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert take_token(tmp_path / "token") == f"{TOKEN}2"
    assert TOKEN_VARIABLE not in os.environ


@pytest.mark.parametrize(
    "content", ["", "\n", "short", "two words of it", "with\0zero-byte", "é" * 9]
)
def test_what_is_no_token_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(RequestError, match="the file of --token must hold one token of 8 or") as e:
        take_token(tmp_path / "token")
    assert not content.strip() or content not in str(e.value)
    if "\0" not in content:
        monkeypatch.setenv(TOKEN_VARIABLE, content)
        with pytest.raises(RequestError, match="MGC_RAY_TOKEN must hold one token"):
            take_token(None)


def test_a_token_that_is_typed_is_refused_without_showing_it() -> None:
    with pytest.raises(RequestError, match="--token must be a file that holds the token") as error:
        take_token(Path(TOKEN))
    assert TOKEN not in str(error.value)
    assert "MGC_RAY_TOKEN" in str(error.value)


def test_only_the_token_itself_fits() -> None:
    digest = token_digest(TOKEN)
    assert TOKEN not in digest
    assert is_token(TOKEN, digest)
    for other in ("", TOKEN.upper(), TOKEN[:-1], f"{TOKEN} ", digest):
        assert not is_token(other, digest)
    assert token_digest("") == ""


@pytest.mark.parametrize("origin", ["*", "https://a.example", "http://localhost:3000"])
def test_origins_of_pages(origin: str) -> None:
    check_origins((origin,))


@pytest.mark.parametrize(
    "origin", ["a.example", "https://", "https://a.example/", "ftp://a.example", "null", "", "**"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(RequestError, match=r"--cors must be origins of pages .* but it is"):
        check_origins(("https://a.example", origin))


def test_where_only_this_machine_can_connect() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "[::]", "192.168.1.2", "machine.local", "")))


@pytest.mark.parametrize(
    ("listening", "headers", "allowed"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:8000"}, True),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "http://localhost:8000"}, True),
        ("::1", {"host": "[::1]:8000", "origin": "http://[::1]:8000"}, True),
        ("127.0.0.1", {"host": "evil.example:8000", "origin": "http://evil.example:8000"}, False),
        ("127.0.0.1", {"host": "localhost.evil.example"}, False),
        ("127.0.0.1", {"host": ""}, False),
        ("127.0.0.1", {"host": "[::1"}, False),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "http://evil.example"}, False),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "http://localhost:9000"}, False),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "null"}, False),
        ("127.0.0.1", {"host": "music.example", "origin": "https://music.example"}, True),
        ("127.0.0.1", {"host": "127.0.0.1:8000", "origin": "https://music.example"}, True),
        ("0.0.0.0", {"host": "machine.local:8000", "origin": "http://machine.local:8000"}, True),
        ("0.0.0.0", {"host": "machine.local:8000", "origin": "http://evil.example"}, False),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "https://player.example"}, True),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "http://player.example"}, False),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "https://player.example:99"}, False),
        ("127.0.0.1", {"host": "evil.example", "origin": "https://player.example"}, False),
    ],
)
def test_pages_of_other_sites_are_refused(
    listening: str, headers: dict[str, str], allowed: bool
) -> None:
    made = request(**headers)
    if allowed:
        check_origin(made, listening, ("music.example",), ("https://player.example",))
    else:
        with pytest.raises(HTTPException) as error:
            check_origin(made, listening, ("music.example",), ("https://player.example",))
        assert error.value.status_code == 403


@pytest.mark.parametrize(
    ("host", "token", "warned"),
    [
        ("0.0.0.0", "", True),
        ("::", "", True),
        ("192.168.1.2", "", True),
        ("0.0.0.0", TOKEN, False),
        ("127.0.0.1", "", False),
        ("::1", "", False),
    ],
)
def test_a_server_for_others_advises_a_token(
    host: str, token: str, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgc_ray import serve

    given = []
    monkeypatch.setattr(serve, "_serve", lambda config, token: given.append(token))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    if token:
        monkeypatch.setenv(TOKEN_VARIABLE, token)
    printed = command("serve", "--host", host, cwd=tmp_path).stderr
    assert given == [token]
    assert ("WARNING: everyone who reaches this machine may use the server" in printed) == warned
    assert TOKEN not in printed
