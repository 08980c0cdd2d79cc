"""A replica: one copy of the model.

It decodes songs in threads, several at a time, and puts the chunks of all requests that wait
through the model together. A song that does not fit into its queue is refused.
"""

import asyncio
import base64
import io
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import ray
import soundfile
import torch
from fastapi import FastAPI, HTTPException, Request
from PIL import Image
from ray import ObjectRef, serve
from ray.actor import ActorHandle
from ray.exceptions import RayError
from starlette.datastructures import UploadFile

from mgc_ray import __version__
from mgc_ray.config import ServeConfig
from mgc_ray.data.audio import UnusableTrackError, keep_freed_memory
from mgc_ray.data.decoding import UNKNOWN_LENGTH, open_sound
from mgc_ray.data.features import FeatureSet, TrackFeatures
from mgc_ray.data.ffmpeg import format_of, seconds_by_ffmpeg
from mgc_ray.ensembling.saved import Ensemble, SongFeatures, SongPrediction
from mgc_ray.models import register_sources
from mgc_ray.serving.interface import ModelInfo, Part, Prediction, interface
from mgc_ray.serving.receiving import Receiving, drain, ending_of
from mgc_ray.tuning.pictures import coloured

_BLOCK = 2**20  # bytes that are read at a time
_PICTURE_WIDTH = 1200  # pixels, at most about twice that
_DECODED_AT_A_TIME = 4
_SONGS_AT_A_TIME = 16  # of a replica: decoded, waiting or in the model


@dataclass(frozen=True)
class ReplicaConfig:
    """What each replica needs besides the model.

    `own_families`: see models.own_families. `waiting`: songs in its queue, at most. `totals`: the
    actor that counts for all replicas, see metrics.py.
    """

    serve: ServeConfig
    own_families: dict[str, tuple[str, str]]
    threads: int
    waiting: int
    token_digest: str
    totals: ActorHandle


def stated_seconds(path: str) -> float:
    """How long a song is by its header; 0 where that does not say, or is damaged."""
    try:
        if format := format_of(path):
            return seconds_by_ffmpeg(path, format)
        with open_sound(path) as file:
            known = file.frames < UNKNOWN_LENGTH
            return float(file.frames / file.samplerate) if known else 0.0
    except (soundfile.LibsndfileError, UnusableTrackError, ZeroDivisionError):
        return 0.0


def part_times(song: TrackFeatures) -> list[tuple[float | None, float | None]]:
    """Where each chunk starts and ends in the song, in seconds; None for a spectrogram."""
    if song.times is None:
        return [(None, None)] * song.chunks
    return [
        (round(float(start), 2), round(float(min(end, song.seconds)), 2))
        for start, end in song.times
    ]


def spectrogram_picture(features: FeatureSet, song: TrackFeatures) -> str | None:
    """The first spectrogram along the song, low bands below, as PNG in a data URI.

    What no chunk covers is dark. None where the features are no spectrograms.
    """
    spectrograms = [name for name, one in features.columns.items() if one.kind == "spectrogram"]
    if not spectrograms:
        return None
    chunks = song.columns[spectrograms[0]].astype(np.float32)
    if song.times is None:
        x = np.concatenate(list(chunks), axis=1)
    else:
        x = _along_time(chunks, song.times, song.seconds)
    x = x[:, :: max(1, x.shape[1] // _PICTURE_WIDTH)][::-1]
    low, high = np.percentile(x, [2, 99.5])
    png = io.BytesIO()
    Image.fromarray(coloured((x - low) / max(high - low, 1e-6))).save(png, "PNG")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def _along_time(chunks: np.ndarray, times: np.ndarray, seconds: float) -> np.ndarray:
    """Chunks [chunks, bands, frames] -> [bands, frames of the whole song], where each is."""
    frames = chunks.shape[2]
    start, end = times.T
    width = max(1, round(seconds / (end[0] - start[0]) * frames))
    time = (np.arange(width) + 0.5) * seconds / width
    chunk = np.searchsorted(start, time, side="right") - 1
    share = (time - start[chunk]) / (end[chunk] - start[chunk])
    x = chunks[chunk, :, np.minimum((share * frames).astype(int), frames - 1)].T
    x[:, share >= 1] = chunks.min()
    return x


# A replica refuses songs itself, as Serve would cut the connection.
@serve.deployment(max_ongoing_requests=1000)
@serve.ingress()
class Replica:
    """One copy of the model; the Service of interface.py."""

    def __init__(self, model: "list[ObjectRef[Ensemble]]", config: ReplicaConfig) -> None:
        keep_freed_memory()
        torch.set_num_threads(config.threads)
        register_sources(config.own_families)
        self._ensemble: Ensemble = ray.get(model[0])
        self._config = config
        self._name = serve.get_replica_context().replica_id.unique_id
        self._songs, self._most_songs = 0, _SONGS_AT_A_TIME + config.waiting
        self._receiving = Receiving(config.serve.timeout, 2 * self._most_songs)
        self._free = asyncio.Semaphore(_SONGS_AT_A_TIME)
        self._decoding = threading.Semaphore(_DECODED_AT_A_TIME)
        # always the same thread: each that calls PyTorch would start its own team of OpenMP threads
        self._model_thread = ThreadPoolExecutor(1)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Serve calls for the application of this replica."""
        config = self._config
        return interface(self, config.serve, config.token_digest, config.totals.request.remote)

    def model(self) -> ModelInfo:
        info, config = self._ensemble.info, self._config.serve
        return ModelInfo(
            genres=list(info.genres),
            members=[member.name for member in info.members],
            trained_on=list(info.trained_on),
            protocol=info.protocol,
            figures=info.test,
            version=__version__,
            limits={
                "megabytes": config.max_megabytes,
                "seconds": config.max_seconds,
                "timeout": config.timeout,
                "queue": config.queue,
            },
        )

    async def metrics(self) -> bytes:
        try:
            text: bytes = await self._config.totals.text.remote()
        except RayError as error:
            reason = str(error).splitlines()[0]
            raise HTTPException(
                503, f"what counts for all replicas is not there ({reason}): ask again in a moment"
            ) from None
        return text

    async def predict(self, request: Request, picture: bool) -> Prediction:
        config = self._config.serve
        if self._songs >= self._most_songs:
            await drain(request, config.max_megabytes)
            raise self._full()
        file = await self._receiving.song(request, config.max_megabytes)
        if self._songs >= self._most_songs:
            raise self._full()
        with self._counted():
            try:
                done = await asyncio.wait_for(self._when_free(file, picture), config.timeout)
            except TimeoutError:
                raise HTTPException(
                    503,
                    f"it took longer than {config.timeout:g} s: send a shorter song, or try it "
                    "later",
                ) from None
        self._config.totals.song.remote(next(iter(done.genres)), done.seconds or 0.0)
        return done

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a song that waits or is predicted, and report so."""
        self._songs += 1
        self._report_load()
        try:
            yield
        finally:
            self._songs -= 1
            self._report_load()

    def _report_load(self) -> None:
        running = min(self._songs, _SONGS_AT_A_TIME)
        self._config.totals.load.remote(self._name, running, self._songs - running)

    def _full(self) -> HTTPException:
        return HTTPException(
            503, f"{self._songs} songs are waiting already: send it again in a moment"
        )

    async def _when_free(self, file: UploadFile, picture: bool) -> Prediction:
        async with self._free:
            return await self._predict(file, picture)

    async def _predict(self, file: UploadFile, picture: bool) -> Prediction:
        name = os.path.basename(file.filename or "") or "song"
        with tempfile.NamedTemporaryFile(suffix=ending_of(name)) as copy:
            while block := await file.read(_BLOCK):
                copy.write(block)
            copy.flush()
            try:
                song = await asyncio.to_thread(self._compute_features, copy.name)
            except UnusableTrackError as error:
                raise HTTPException(
                    415,
                    f"{name} cannot be used: {error}. Send a song as WAV, AU, FLAC, MP3 or OGG",
                ) from None
        prediction = await self.predict_song(song)
        shortest = song.shortest
        is_audio = shortest.times is not None
        return Prediction(
            file=name,
            seconds=round(shortest.seconds, 2) if is_audio else None,
            genres=self._by_genre(prediction.song),
            parts=[
                Part(start=start, end=end, genres=self._by_genre(probs))
                for (start, end), probs in zip(part_times(shortest), prediction.chunks, strict=True)
            ],
            short=song.too_short or None,
            picture=await asyncio.to_thread(self._picture, song) if picture else None,
        )

    def _picture(self, song: SongFeatures) -> str | None:
        pairs = zip(self._ensemble.inputs, song.inputs, strict=True)
        pictures = (spectrogram_picture(features, own) for features, own in pairs if own)
        return next((picture for picture in pictures if picture), None)

    def _by_genre(self, probs: np.ndarray) -> dict[str, float]:
        return {genre: round(p, 6) for genre, p in self._ensemble.by_genre(probs).items()}

    def _compute_features(self, path: str) -> SongFeatures:
        """The features of a song; HTTPException 413 for one that is too long."""
        most = self._config.serve.max_seconds
        too_long = HTTPException(413, f"a song may be {most:g} s long at most: send a part")
        if stated_seconds(path) > most:
            raise too_long
        with self._decoding:  # what a song takes while it is decoded is a thousand times its file
            decoded = self._ensemble.decode(path)
        if any(track and track.seconds > most for track in decoded):
            raise too_long
        return self._ensemble.features_of(decoded)

    @serve.batch(max_batch_size=_SONGS_AT_A_TIME, batch_wait_timeout_s=0.01)
    async def predict_song(self, songs: list[SongFeatures]) -> list[SongPrediction]:
        """Called with one song by each request; Serve calls this with those that wait."""
        return await asyncio.get_running_loop().run_in_executor(
            self._model_thread, self._ensemble.predict_songs, songs
        )
