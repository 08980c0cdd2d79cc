"""The HTTP interface: what is asked, what is answered, what is refused.

A replica decodes songs in threads, several at a time, and puts the chunks of all requests that wait
through the model together. What does not fit into its queue is refused.
"""

import asyncio
import base64
import io
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import soundfile
import torch
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from pydantic import BaseModel, Field
from ray import serve
from starlette.datastructures import UploadFile

from mgc_ray import __version__
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.ensembling.artefact import Ensemble
from mgc_ray.ensembling.calibration import temper
from mgc_ray.serving.receiving import FORM, drain, song_of
from mgc_ray.tuning.pictures import coloured

PAGE = Path(__file__).with_name("page.html")
_BLOCK = 2**20  # bytes that are read at a time
_WIDEST = 1200  # pixels of a picture
_SONGS_AT_A_TIME = 16  # of a replica: decoded, waiting or in the model


@dataclass(frozen=True)
class Limits:
    """What a song may be, and how long an answer may take."""

    megabytes: float = 50.0
    seconds: float = 1200.0  # length of a song
    timeout: float = 60.0  # seconds
    queue: int = 64  # songs that may wait, over all replicas; more are refused


class Part(BaseModel):
    """A part of the song."""

    start: float = Field(description="seconds")
    end: float = Field(description="seconds")
    genres: dict[str, float]


class Answer(BaseModel):
    """What a song is."""

    file: str
    seconds: float = Field(description="length of the song")
    genres: dict[str, float] = Field(description="probabilities, most probable first, sum 1")
    parts: list[Part] = Field(description="the same for each chunk, in order")
    picture: str | None = Field(None, description="PNG of what the model saw, as a data URI")


class About(BaseModel):
    """The model."""

    genres: list[str]
    members: list[str]
    trained_on: list[dict[str, Any]]
    protocol: str
    figures: dict[str, Any] | None = Field(description="on the test part, or None")
    version: str
    limits: dict[str, float]


class Trouble(BaseModel):
    """Why there is no answer."""

    detail: str


app = FastAPI(
    title="mgc_ray",
    version=__version__,
    description="Genres of songs by an ensemble of mgc_ray.",
    docs_url="/docs",
    redoc_url=None,
)
_REFUSED = {
    400: {"model": Trouble, "description": "the body is no form that can be read"},
    413: {"model": Trouble, "description": "the file is too large, or the song too long"},
    415: {"model": Trouble, "description": "the file is no audio that can be used; why"},
    422: {"model": Trouble, "description": "there is no field `file`, or there are several"},
    503: {"model": Trouble, "description": "too many songs wait, or it took too long"},
}


@app.exception_handler(RequestValidationError)
async def _no_such_option(_: Request, error: RequestValidationError) -> JSONResponse:
    """As all other refusals: a reason in words."""
    wrong = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
    return JSONResponse({"detail": wrong}, 422)


# Above the class: `ingress` pickles its methods with what is defined by then.
def _named(genres: tuple[str, ...], probs: np.ndarray) -> dict[str, float]:
    order = np.argsort(-probs, kind="stable")
    return {genres[i]: round(float(probs[i]), 6) for i in order}


def _picture(spectrograms: np.ndarray) -> str:
    """All chunks side by side, low bands below, as PNG in a data URI."""
    x = np.concatenate(list(spectrograms.astype(np.float32)), axis=1)
    x = x[:, :: max(1, x.shape[1] // _WIDEST)][::-1]
    low, high = np.percentile(x, [2, 99.5])
    packed = io.BytesIO()
    Image.fromarray(coloured((x - low) / max(high - low, 1e-6))).save(packed, "PNG")
    return f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"


# The replica refuses what is too much by itself, as Serve would cut the connection.
@serve.deployment(max_ongoing_requests=1000)
@serve.ingress(app)
class Classifier:
    """One replica."""

    def __init__(self, model: list[Any], limits: Limits, threads: int, waiting: int) -> None:
        torch.set_num_threads(threads)
        self._ensemble: Ensemble = ray.get(model[0])
        self._limits = limits
        self._songs, self._most_songs = 0, _SONGS_AT_A_TIME + waiting
        self._turn = asyncio.Semaphore(_SONGS_AT_A_TIME)
        # of its own: each thread that calls PyTorch would start a team of OpenMP threads
        self._of_model = ThreadPoolExecutor(1)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page(self) -> str:
        return PAGE.read_text("utf-8")

    @app.get("/health")
    async def health(self) -> dict[str, str]:
        """Whether it answers."""
        return {"status": "ok"}

    @app.get("/model")
    async def model(self) -> About:
        """What the model knows, what it was trained on, how good it is."""
        content = self._ensemble.content
        return About(
            genres=list(self._ensemble.genres),
            members=[member["name"] for member in content.get("members", [])],
            trained_on=content.get("trained_on", []),
            protocol=str(content.get("protocol", "")),
            figures=content.get("test") or None,
            version=__version__,
            limits=vars(self._limits),
        )

    @app.post("/predict", responses=_REFUSED, openapi_extra=FORM)  # type: ignore[arg-type]
    async def predict(
        self,
        request: Request,
        picture: bool = Query(False, description="also a picture of what the model saw"),
    ) -> Answer:
        """The genres of one song: WAV, AU, FLAC, MP3, OGG."""
        limits = self._limits
        if self._songs >= self._most_songs:
            await drain(request, limits.megabytes)
            raise HTTPException(503, f"{self._songs} songs wait already: send it again in a moment")
        self._songs += 1
        try:
            file = await song_of(request, limits.megabytes)
            return await asyncio.wait_for(self._in_turn(file, picture), limits.timeout)
        except TimeoutError:
            raise HTTPException(
                503, f"it took longer than {limits.timeout:g} s: send a shorter song, or later"
            ) from None
        finally:
            self._songs -= 1

    async def _in_turn(self, file: UploadFile, picture: bool) -> Answer:
        async with self._turn:
            return await self._predict(file, picture)

    async def _predict(self, file: UploadFile, picture: bool) -> Answer:
        name = os.path.basename(file.filename or "") or "song"
        with tempfile.NamedTemporaryFile(suffix=os.path.splitext(name)[1][:8]) as copy:
            while block := await file.read(_BLOCK):
                copy.write(block)
            copy.flush()
            try:
                seconds, spectrograms = await asyncio.to_thread(self._read, copy.name)
            except UnusableTrackError as error:
                raise HTTPException(415, f"{name} cannot be used: {error}") from None
        probs = await self.probs(spectrograms)
        genres, temperature = self._ensemble.genres, self._ensemble.temperature
        each = temper(probs, temperature)
        long = seconds / len(probs)
        return Answer(
            file=name,
            seconds=round(seconds, 2),
            genres=_named(genres, temper(probs.mean(0), temperature)),
            parts=[
                Part(
                    start=round(i * long, 2), end=round((i + 1) * long, 2), genres=_named(genres, p)
                )
                for i, p in enumerate(each)
            ],
            picture=await asyncio.to_thread(_picture, spectrograms) if picture else None,
        )

    def _read(self, path: str) -> tuple[float, np.ndarray]:
        """Length, and spectrograms [chunks, bands, frames]."""
        try:
            found = soundfile.info(path)
            seconds = found.frames / found.samplerate
        except (soundfile.LibsndfileError, TypeError, ZeroDivisionError):
            seconds = 0.0  # decoding tells what is wrong
        if seconds > self._limits.seconds:
            raise HTTPException(
                413, f"a song may be {self._limits.seconds:g} s long at most: send a part"
            )
        return seconds, self._ensemble.features.chunks(path)

    @serve.batch(max_batch_size=_SONGS_AT_A_TIME, batch_wait_timeout_s=0.01)
    async def probs(self, songs: list[np.ndarray]) -> list[np.ndarray]:
        """Probabilities [chunks, genres] of each song; those that wait go through together."""
        counts = [len(song) for song in songs]
        together = np.concatenate(songs)
        probs = await asyncio.get_running_loop().run_in_executor(
            self._of_model, self._ensemble.chunk_probs, together
        )
        return np.split(probs, np.cumsum(counts)[:-1])
