"""The HTTP interface of a replica: paths, refusals in plain words, and a page that describes it."""

import functools
import shlex
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import jinja2
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mgc_ray import __version__
from mgc_ray.config import ServeConfig
from mgc_ray.results import Metrics, TrainedOn
from mgc_ray.serving.access import check_origin, is_token
from mgc_ray.serving.metrics import CONTENT_TYPE, CountRequests
from mgc_ray.serving.receiving import FORM, HOW, drain

_PAGE = Path(__file__).with_name("page.html")
_DOCS = Path(__file__).with_name("docs.html")


class Part(BaseModel):
    """A part of the song that the model heard."""

    start: float | None = Field(description="seconds; null for a spectrogram")
    end: float | None = Field(description="seconds; null for a spectrogram")
    genres: dict[str, float] = Field(description="probabilities, most probable first")


class Prediction(BaseModel):
    """The genres of a song."""

    file: str = Field(description="the name that it was sent under")
    seconds: float | None = Field(description="length of the song; null for a spectrogram")
    genres: dict[str, float] = Field(
        description="probabilities, most probable first; their sum is 1"
    )
    parts: list[Part] = Field(
        description="the same for each part of the song, in order; what is left at the end, and "
        "is shorter than a part, is in none"
    )
    short: str | None = Field(
        None, description="that the song is shorter than half of what the model was trained on"
    )
    picture: str | None = Field(None, description="the spectrogram as a PNG in a data URI")


class ModelInfo(BaseModel):
    """The model."""

    genres: list[str]
    members: list[str]
    trained_on: list[TrainedOn]
    protocol: str
    figures: Metrics | None = Field(description="metrics on the test part, if it was tested")
    version: str
    limits: dict[str, float]


class Health(BaseModel):
    """That the server is up."""

    status: str


class Refusal(BaseModel):
    """Why there is no result."""

    detail: str


_REFUSED = {
    400: {"model": Refusal, "description": "the body is not a form that can be read"},
    403: {"model": Refusal, "description": "a page of another site has sent it"},
    408: {"model": Refusal, "description": "the song was not received in time"},
    413: {"model": Refusal, "description": "the file is too large, or the song too long"},
    415: {"model": Refusal, "description": "the file is not audio that can be used"},
    422: {"model": Refusal, "description": "there is no field `file`, or there are several"},
    503: {"model": Refusal, "description": "too many songs are waiting, or it took too long"},
}
_NO_TOKEN = {401: {"model": Refusal, "description": "the token is missing or wrong"}}


class Service(Protocol):
    """What a replica does."""

    def model(self) -> ModelInfo: ...
    async def predict(self, request: Request, picture: bool) -> Prediction: ...
    async def metrics(self) -> bytes: ...


def interface(
    service: Service,
    config: ServeConfig,
    token_digest: str = "",
    count: Callable[[str, int, float], Any] = lambda path, status, seconds: None,
) -> FastAPI:
    """The ASGI application; `count` is called with path, status and seconds of each request.

    Where there is a token, what the model knows and does is only for those who have it, while
    anyone can see the pages, which are the same for all models, and whether the server is up.
    """
    app = FastAPI(
        title="mgc_ray",
        version=__version__,
        description="Genres of songs by an ensemble of mgc_ray.",
        docs_url=None,  # its scripts would come from the internet
        redoc_url=None,
    )
    access = [Depends(_access(config, token_digest))]
    refused = _NO_TOKEN if token_digest else {}

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        return _PAGE.read_text("utf-8")

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs(request: Request) -> str:
        return docs_page(app.openapi(), str(request.base_url).rstrip("/"))

    @app.get("/healthz", openapi_extra=_example("curl {}/healthz"))
    async def healthz() -> Health:
        """Whether the server is up; for load balancers and monitors."""
        return Health(status="ok")

    @app.get(
        "/model",
        dependencies=access,
        responses=refused,  # type: ignore[arg-type]
        openapi_extra=_example("curl {token}{}/model", token_digest),
    )
    async def model() -> ModelInfo:
        """The model's genres, members, training data, metrics, and the limits for songs."""
        return service.model()

    @app.post(
        "/predict",
        dependencies=access,
        responses=_REFUSED | refused,  # type: ignore[arg-type]
        openapi_extra=FORM | _example("curl {token}-F file=@song.mp3 {}/predict", token_digest),
    )
    async def predict(
        request: Request,
        picture: bool = Query(False, description="also a picture of the spectrogram"),
    ) -> Prediction:
        """The genres of one song: WAV, AU, FLAC, MP3, OGG."""
        return await service.predict(request, picture)

    @app.get(
        "/metrics",
        dependencies=access,
        response_class=Response,
        responses=refused | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},  # type: ignore[arg-type]
        openapi_extra=_example("curl {token}{}/metrics", token_digest),
    )
    async def metrics() -> Response:
        """Requests, errors, seconds, songs and the queue of all replicas, for Prometheus."""
        return Response(await service.metrics(), media_type=CONTENT_TYPE)

    app.add_exception_handler(RequestValidationError, _refuse_parameters)  # type: ignore[arg-type]
    app.add_exception_handler(StarletteHTTPException, _refuse)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _fail)
    # the last of these is the first that a request comes to
    paths = frozenset(path for path in map(_path_of, app.routes) if path)
    app.add_middleware(CountRequests, paths=paths, count=count)
    if config.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization"],
            allow_private_network=True,
        )
    app.add_middleware(HeadAsGet)
    return app


def _path_of(route: Any) -> str:
    return getattr(route, "path", "")


def _access(config: ServeConfig, token_digest: str) -> Callable[..., Awaitable[None]]:
    """What checks each request that is not for everyone."""
    if not token_digest:

        async def check_page(request: Request) -> None:
            check_origin(request, config.host, config.hosts, config.cors)

        return check_page

    bearer = HTTPBearer(auto_error=False, description="the server's token")

    async def check(
        request: Request,
        given: HTTPAuthorizationCredentials | None = Depends(bearer),  # noqa: B008  as FastAPI has it
    ) -> None:
        check_origin(request, config.host, config.hosts, config.cors)
        if given is None or not is_token(given.credentials, token_digest):
            if request.method == "POST":
                await drain(request, config.max_megabytes)
            wrong = "is missing" if given is None else "is another one"
            raise HTTPException(
                401,
                f"this server is only for those who have its token, which {wrong}: send it in the "
                "header `Authorization: Bearer TOKEN`",
                {"WWW-Authenticate": "Bearer"},
            )

    return check


def _example(command: str, token_digest: str = "") -> dict[str, Any]:
    """A command for the documentation, where `{}` is the server's address."""
    header = "-H 'Authorization: Bearer TOKEN' " if token_digest else ""
    source = command.replace("{token}", header).replace("{}", "ADDRESS")
    return {"x-codeSamples": [{"lang": "shell", "source": source}]}


# ---- refusals ----


async def _refuse_parameters(_: Request, error: RequestValidationError) -> JSONResponse:
    """Refuse wrong parameters in the form of all other refusals."""
    reasons = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
    return JSONResponse({"detail": reasons}, 422)


async def _refuse(request: Request, error: StarletteHTTPException) -> JSONResponse:
    """As FastAPI does, but with words where it only has the status."""
    detail, path, headers = error.detail, request.url.path, error.headers
    if detail == HTTPStatus(error.status_code).phrase and error.status_code == 404:
        detail = f"there is nothing at {path}: see /docs for what there is"
    if detail == HTTPStatus(error.status_code).phrase and error.status_code == 405:
        allowed = (headers or {}).get("Allow", "another method")
        detail = f"{path} takes {allowed}, not {request.method}"
        if path == "/predict":
            detail += f": {HOW}"
    return JSONResponse({"detail": detail}, error.status_code, headers)


async def _fail(_: Request, error: Exception) -> JSONResponse:
    """The reason goes to Ray's log: it may have names of files on this machine."""
    detail = "the server failed, by a fault of its own; the log of its replica has the reason"
    return JSONResponse({"detail": detail}, 500)


class HeadAsGet:
    """Responds to HEAD as to GET, without the body, for all paths: what monitors ask by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if "body" in message else message)

        await self._app({**scope, "method": "GET"}, receive, send_without_body)


# ---- the description as a page ----


def docs_page(described: dict[str, Any], address: str) -> str:
    """An OpenAPI description as a page without scripts; examples are for the server's address."""
    return _template().render(api=described, address=shlex.quote(address))


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_DOCS.read_text("utf-8"))
