"""The song of a request, in no more memory and disk than the limit of a song's size.

A server that responds before it has read the whole body cuts the connection, and many clients then
do not see the response. So a body that is refused is first read to its end and thrown away, within
limits.
"""

from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

_HOW = (
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
        count = "are several songs" if len(songs) > 1 else "is no song"
        raise HTTPException(422, f"there {count} in the field `file`: {_HOW}")
    except StarletteHTTPException as error:
        await body.drain()
        if error.status_code == 400:
            raise HTTPException(400, f"{error.detail.rstrip('.')}: {_HOW}") from None
        raise


async def drain(request: Request, megabytes: float) -> None:
    """Read a body and throw it away, up to twice the size of a song."""
    await Body(request, megabytes * 1e6).drain()
