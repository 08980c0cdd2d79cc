"""Receiving songs: forms that are none, clients that send nothing."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("multipart", reason="python-multipart is not installed")

from fastapi import HTTPException, Request

from mgc_ray.serving.receiving import Receiving, ending_of, receive_song
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


def _field(name: str, content: str, file: str = "") -> str:
    filename = f'; filename="{file}"' if file else ""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n{content}\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("multipart/form-data; boundary=x", _field("song", "ab", "a.wav"), "in the field `song`"),
        ("multipart/form-data; boundary=x", _field("s\x1b[2J", "ab", "a.wav"), "`s\\x1b[2J` and"),
        ("multipart/form-data; boundary=x", _field("file", "song.mp3"), "holds text and no file"),
        ("multipart/form-data; boundary=x", _field("name", "ab"), "there is no song in the field"),
        ("multipart/form-data; boundary=x", 2 * _field("file", "a", "a.wav"), "are several songs"),
        ("audio/mpeg", "ID3", "as the body is no form but audio/mpeg: send one"),
        ("application/json", "{}", "as the body is no form but application/json: send one"),
        ("application/x-www-form-urlencoded", "file=song.mp3", "holds text and no file"),
        ("multipart/form-data", "", "the form is damaged (Missing boundary in multipart): send"),
        ("", "", "there is no song in the field `file`: send one"),
    ],
)
def test_what_is_wrong_with_an_upload_is_said_in_words(kind: str, body: str, reason: str) -> None:
    end = "--x--\r\n" if "boundary" in kind else ""
    made = request((body + end).encode(), content_type=kind)
    with pytest.raises(HTTPException) as error:
        asyncio.run(receive_song(made, 1))
    assert reason in error.value.detail
    assert "curl -F file=@song.mp3" in error.value.detail


@pytest.mark.parametrize("name", ["a\0.wav", "\0", "../../a\0b.mp3", "a.\0\0\0"])
def test_a_song_whose_name_holds_nul_is_received(name: str) -> None:
    body, kind = form_of(name, b"content")
    song = asyncio.run(receive_song(request(body, content_type=kind), 1))
    assert not {"\0", "/"} & {*ending_of(str(song.filename))}  # of the file that it is copied to


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
