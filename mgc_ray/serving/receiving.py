"""The song of a request, in no more memory and disk than the limit of a song's size.

A server that responds before it has read the whole body cuts the connection, and many clients then
do not see the response. So a body that is refused is first read to its end and thrown away, within
limits.
"""

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

_DRAIN_SECONDS = 10.0
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


def check_origin(request: Request, listening: str, hosts: Sequence[str]) -> None:
    """HTTPException 403 for what a page of another site has made a browser send.

    Where only this machine can connect, the name that the browser looked up must be this machine's
    own: a site whose name suddenly means 127.0.0.1 (DNS rebinding) would be within.
    """
    host = request.headers.get("host", "")
    name = _name_in(f"//{host}")
    if is_loopback(listening) and not (name in hosts or name == "localhost" or _is_address(name)):
        raise HTTPException(
            403,
            f"the server must be asked as localhost, but it is asked as {name!r}: use that "
            "name, or start it with --set hosts=NAME",
        )
    origin = request.headers.get("origin")
    if origin and origin.partition("://")[2] != host and _name_in(origin) not in hosts:
        raise HTTPException(
            403,
            f"pages of other sites may not send songs, but {origin} does: use the server's "
            "own page, or start it with --set hosts=NAME",
        )


def _name_in(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to what listens there."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


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
        count = "are several songs" if len(songs) > 1 else "is no song"
        raise HTTPException(422, f"there {count} in the field `file`: {_HOW}")
    except StarletteHTTPException as error:
        await body.drain()
        if error.status_code == 400:
            raise HTTPException(400, f"{error.detail.rstrip('.')}: {_HOW}") from None
        raise
    except (ValueError, LookupError) as error:  # of a form that starlette does not expect
        await body.drain()
        raise HTTPException(400, f"the form cannot be read ({error!r}): {_HOW}") from None


async def drain(request: Request, megabytes: float) -> None:
    """Read a body and throw it away, up to twice the size of a song."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(Body(request, megabytes * 1e6).drain(), _DRAIN_SECONDS)
