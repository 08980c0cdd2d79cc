"""The song of a request, with no more memory and disk than the limit of a song's size.

A server that answers before it has read the body cuts the connection, and many clients then do not
see the answer. So what is refused is read to its end first and thrown away, within limits.
"""

from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

HOW = (
    "send one song as the field `file` of a form (multipart/form-data), as "
    "`curl -F file=@song.mp3 ADDRESS/predict` does"
)
# FastAPI would describe the form by itself, but also read it by itself, whatever its size
FORM: dict[str, Any] = {
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
    """The body of a request as it comes in, bytes from 0."""

    def __init__(self, request: Request, most: float) -> None:
        self._request, self._most = request, most
        self._received, self._ended = 0, False

    async def receive(self) -> Any:
        """The next message, as ASGI names it; HTTPException 413 where there are too many bytes."""
        message = await self._next()
        if self._received > self._most:
            raise HTTPException(
                413, f"a file may have {self._most / 1e6:g} MB at most: send a part"
            )
        return message

    async def drain(self) -> None:
        """Read the rest and throw it away, but no more than as much again as is allowed."""
        while not self._ended and self._received <= 2 * self._most:
            await self._next()

    async def _next(self) -> Any:
        message = await self._request.receive()
        self._received += len(message.get("body", b""))
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body")
        return message


async def song_of(request: Request, megabytes: float) -> UploadFile:
    """The form's field `file`.

    Raises HTTPException: 413 where the body is larger, 400 and 422 where it is no form with one
    song.
    """
    body = Body(request, megabytes * 1e6)
    try:
        form = await Request(request.scope, body.receive).form(max_files=4, max_fields=16)
        songs = form.getlist("file")
        if len(songs) == 1 and isinstance(songs[0], UploadFile):
            return songs[0]
        few = "there are several" if len(songs) > 1 else "there is none"
        raise HTTPException(422, f"of the field `file` {few}: {HOW}")
    except StarletteHTTPException as error:
        await body.drain()
        if error.status_code == 400:
            raise HTTPException(400, f"{error.detail.rstrip('.')}: {HOW}") from None
        raise


async def drain(request: Request, megabytes: float) -> None:
    """Throw away what is sent, up to twice a song's size."""
    await Body(request, megabytes * 1e6).drain()
