"""Who may use the server: its token, names that it is asked by, pages of other sites."""

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from mgc_ray import RequestError

TOKEN_VARIABLE = "MGC_RAY_TOKEN"
_SHORTEST = 8
_NEW_TOKEN = "python -c 'import secrets; print(secrets.token_urlsafe())' > token.txt"


# ---- the token ----


def take_token(file: Path | None) -> str:
    """The token in a file, else the environment's; "" for none.

    It leaves the environment, which all processes that this one starts would inherit. It is never
    an argument, as all users of a machine can read its command lines, and no message has it.
    """
    from_environment = os.environ.pop(TOKEN_VARIABLE, None)
    if file is None:
        return "" if from_environment is None else _checked(from_environment, TOKEN_VARIABLE)
    try:
        text = file.read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise RequestError(
            f"--token must be a file that holds the token, but it cannot be read ({reason}): make "
            f"one by {_NEW_TOKEN}, or set {TOKEN_VARIABLE}. The token itself is no argument, as "
            "all users of this machine could read it there"
        ) from None
    return _checked(text, "the file of --token")


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if len(token) < _SHORTEST or not (token.isascii() and token.isprintable()) or " " in token:
        raise RequestError(
            f"{where} must hold one token of {_SHORTEST} or more letters, digits and signs, but "
            f"what it holds is another text of {len(token)}: make one by {_NEW_TOKEN}"
        )
    return token


def token_digest(token: str) -> str:
    """What replicas keep of a token; "" for none."""
    return hashlib.sha256(token.encode()).hexdigest() if token else ""


def is_token(given: str, digest: str) -> bool:
    """Whether a request's token is the one of this digest; compared in constant time."""
    return hmac.compare_digest(token_digest(given), digest)


# ---- names and pages ----


def check_origins(origins: Sequence[str]) -> None:
    """RequestError for what is no origin of pages, as `https://music.example`."""
    for one in origins:
        scheme, _, rest = one.partition("://")
        is_origin = scheme in ("http", "https") and rest and not set(rest) & set("/?#@* ")
        if one != "*" and not is_origin:
            raise RequestError(
                "--cors must be origins of pages as browsers send them, scheme and name without a "
                f"path (https://music.example), or *, but it is {one!r}"
            )


def check_origin(
    request: Request, listening: str, hosts: Sequence[str], origins: Sequence[str] = ()
) -> None:
    """HTTPException 403 for what a page of another site has made a browser send.

    Where only this machine can connect, the name that the browser looked up must be this machine's
    own: a site whose name suddenly means 127.0.0.1 (DNS rebinding) would be within. `hosts`: names
    of the server; `origins`: of other pages that may use it.
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
    if not origin or origin in origins or "*" in origins:
        return
    if origin.partition("://")[2] != host and _name_in(origin) not in hosts:
        raise HTTPException(
            403,
            f"pages of other sites may not use the server, but {origin} does: use the server's own "
            f"page, or start it with --cors {origin}, or, where that is its own name behind a "
            "proxy, with --set hosts=NAME",
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
    host = host.removeprefix("[").removesuffix("]")
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
