"""Receiving songs: forms that are none, clients that send nothing, pages of other sites."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("multipart", reason="python-multipart is not installed")

from fastapi import HTTPException, Request

from mgc_ray.serving.receiving import Receiving, check_origin, receive_song
from tests.server import form_of


def request(body: bytes | None, client: str = "10.0.0.1", **headers: str) -> Request:
    """A request whose body is there at once, or for None never comes."""
    coded = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": coded, "app": None}
    scope |= {"client": (client, 1)}

    async def receive() -> Any:
        if body is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(scope, receive)


def status_of(call: Any) -> int:
    with pytest.raises(HTTPException) as error:
        asyncio.run(call)
    assert error.value.detail
    return error.value.status_code


@pytest.mark.parametrize(
    "content_type",
    [
        *(
            "",
            "\0",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; b",
        ),
        *("multipart/form-data; boundary=\0", "multipart/form-data; boundary=a", "text/plain"),
        *('multipart/form-data; boundary="a', "application/x-www-form-urlencoded", "multipart/ä"),
        "multipart/form-data; boundary=a; charset=nothing",
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"\0",
            b"\0" * 1000,
            b"--a",
            b"--a\r\n\r\n",
            b"--a--",
            b"--a\r\n\0: \0\r\n\r\n\0\r\n--a--",
        ),
        b'--a\r\nContent-Disposition: form-data; name="\0"\r\n\r\nx\r\n--a--\r\n',
        b'--a\r\nContent-Disposition: form-data; name="file\r\n\r\nx\r\n--a--\r\n',
        b"--a\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a--\r\n",
        b"file=%00&file=\xff",
    ],
)
def test_what_is_no_form_is_refused(content_type: str, body: bytes) -> None:
    made = request(body, content_type=content_type)
    assert status_of(receive_song(made, 1)) in (400, 422)


def test_a_client_that_sends_nothing_does_not_keep_others_out() -> None:
    async def tried() -> tuple[list[int], str]:
        receiving = Receiving(0.3, most=8)
        idle = [asyncio.create_task(receiving.song(request(None), 1)) for _ in range(120)]
        await asyncio.sleep(0)
        body, kind = form_of("a.wav", b"content")
        song = await receiving.song(request(body, "10.0.0.2", content_type=kind), 1)
        ended = await asyncio.gather(*idle, return_exceptions=True)
        again = await receiving.song(request(body, content_type=kind), 1)
        assert again.filename == "a.wav"
        return [getattr(one, "status_code", 0) for one in ended], str(song.filename)

    statuses, name = asyncio.run(tried())
    assert name == "a.wav"
    # half of the places are one client's, and are free again when the time is over
    assert (statuses.count(408), statuses.count(503)) == (4, 116)


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
    ],
)
def test_pages_of_other_sites_are_refused(
    listening: str, headers: dict[str, str], allowed: bool
) -> None:
    made = request(b"", **headers)
    if allowed:
        check_origin(made, listening, ("music.example",))
    else:
        with pytest.raises(HTTPException) as error:
            check_origin(made, listening, ("music.example",))
        assert error.value.status_code == 403
