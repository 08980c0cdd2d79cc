"""The song of a request, in no more memory and disk than the limit of a song's size.

A server that responds before it has read the whole body cuts the connection, and many clients then
do not see the response. So a body that is refused is first read to its end and thrown away, within
limits.
"""

import asyncio
import contextlib
import os
import re
from collections import Counter
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

from mgc_ray.data.names import one_line

_DRAIN_SECONDS = 10.0
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
HOW = (
    "send one song as the field `file` of a form (multipart/form-data), as "
    "`curl -F file=@song.mp3 ADDRESS/predict` does"
)
# OpenAPI's description of the form. FastAPI would write it itself, but also read the form itself,
# whatever its size.
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "contentMediaType": "application/octet-stream",
                            "description": "the song",
                        }
                    },
                }
            }
        },
    }
}


class Receiving:
    """The songs that are being received: few of one client, and none for longer than `seconds`.

    Else clients that open requests and send nothing would keep everybody out.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds, self._most = seconds, most
        self._by_client: Counter[str] = Counter()

    async def song(self, request: Request, megabytes: float) -> UploadFile:
        """As `receive_song`; HTTPException 408 where it takes too long, 503 for too many."""
        client = request.client.host if request.client else ""
        own, all_clients = self._by_client[client], self._by_client.total()
        if all_clients >= self._most or own >= max(1, self._most // 2):
            raise HTTPException(
                503, f"{all_clients} songs are being received: send it again in a moment"
            )
        self._by_client[client] += 1
        try:
            return await asyncio.wait_for(receive_song(request, megabytes), self._seconds)
        except TimeoutError:
            raise HTTPException(
                408, f"the song was not received within {self._seconds:g} s: send a smaller one"
            ) from None
        finally:
            self._by_client[client] -= 1


class Body:
    """The body of a request while it is received, of at most `limit` bytes."""

    def __init__(self, request: Request, limit: float) -> None:
        self._request, self._limit = request, limit
        self._received, self._ended = 0, False

    async def receive(self) -> Any:
        """The next ASGI message; HTTPException 413 after more bytes than the limit."""
        message = await self._next()
        if self._received > self._limit:
            raise HTTPException(
                413, f"a file may have {self._limit / 1e6:g} MB at most: send a part"
            )
        return message

    async def drain(self) -> None:
        """Read the rest and throw it away, until twice the limit was received."""
        while not self._ended and self._received <= 2 * self._limit:
            await self._next()

    async def _next(self) -> Any:
        message = await self._request.receive()
        self._received += len(message.get("body", b""))
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body")
        return message


async def receive_song(request: Request, megabytes: float) -> UploadFile:
    """The form's field `file`.

    Raises HTTPException: 413 for a body that is larger than `megabytes`, 400 for one that is not a
    form, 422 for a form without exactly one song.
    """
    body = Body(request, megabytes * 1e6)
    try:
        form = await Request(request.scope, body.receive).form(max_files=4, max_fields=16)
        songs = form.getlist("file")
        if len(songs) == 1 and isinstance(songs[0], UploadFile):
            return songs[0]
        wrong = _wrong_with(form, request.headers.get("content-type", ""))
        raise HTTPException(422, f"{wrong}: {HOW}")
    except StarletteHTTPException as error:
        await body.drain()
        if error.status_code == 400:
            detail = error.detail.rstrip(".")
            raise HTTPException(400, f"the form is damaged ({detail}): {HOW}") from None
        raise
    except (ValueError, LookupError):  # of a form that starlette does not expect
        await body.drain()
        raise HTTPException(400, f"the form is damaged: {HOW}") from None


def _wrong_with(form: FormData, content_type: str) -> str:
    """Why there is not one song in the field `file`."""
    songs = form.getlist("file")
    if len(songs) > 1:
        return "there are several songs in the field `file`"
    if songs:
        return "the field `file` holds text and no file (curl needs the @ before a file's name)"
    others = [name for name, value in form.multi_items() if isinstance(value, UploadFile)]
    if others:
        return f"the song is in the field `{one_line(others[0])[:40]}` and not in `file`"
    kind = content_type.partition(";")[0].strip()
    if kind and kind not in _FORMS:
        return f"there is no song in the field `file`, as the body is no form but {kind[:40]}"
    return "there is no song in the field `file`"


def ending_of(name: str) -> str:
    """The ending of a file's name, without what no name here may hold."""
    return re.sub(r"[^.\w]", "", os.path.splitext(name)[1][:8])


async def drain(request: Request, megabytes: float) -> None:
    """Read a body and throw it away, up to twice the size of a song."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(Body(request, megabytes * 1e6).drain(), _DRAIN_SECONDS)
