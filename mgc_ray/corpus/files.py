"""The built-in corpus on disk: synthesised tracks as WAV files with their table."""

import multiprocessing
import os
import signal
import wave
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mgc_ray import RequestError
from mgc_ray.corpus.composer import (
    EXTRA_SEED,
    GENRES,
    VERSION,
    artist_of,
    check_arguments,
    synthesise,
)
from mgc_ray.corpus.instruments import SAMPLE_RATE
from mgc_ray.data.files import atomic_write, read_json, write_csv, write_json
from mgc_ray.data.tracks import Track
from mgc_ray.settings import Params

SYNTHETIC = "synthetic"  # artist, and prefix of the track_id, of generated tracks


@dataclass(frozen=True)
class Settings:
    """What a corpus is made of; the content of corpus.json."""

    seed: int
    seconds: float
    tracks_per_genre: int
    version: int


def write_corpus(
    out: Path,
    tracks_per_genre: int,
    seed: int = 0,
    seconds: float = 30.0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write OUT/GENRE/GENRE.00000.wav ... (16-bit, mono), OUT/corpus.json and OUT/tracks.csv.

    `workers` processes share the work (None: one per core); `progress` is called with (done, total)
    after every track. An interrupted run continues where it stopped: each file is complete or
    absent, and tracks.csv, whose path is returned, is written last. Raises RequestError when an
    argument is out of range or OUT holds a corpus made with other settings.
    """
    check_arguments(GENRES[0], 0, seed, seconds)
    if tracks_per_genre < 1:
        raise RequestError(
            f"`tracks_per_genre >= 1` must hold, but got {tracks_per_genre}: "
            "ask for at least one track per genre"
        )
    if workers is not None and workers < 1:
        raise RequestError(
            f"`workers >= 1` must hold, but got {workers}: leave it out for one process per core"
        )
    out = Path(out)
    settings = Settings(seed, float(seconds), tracks_per_genre, VERSION)
    _claim(out, settings)
    tracks = [(genre, index) for genre in GENRES for index in range(tracks_per_genre)]
    jobs = [(_track_path(out, *track), *track, seed, float(seconds)) for track in tracks]
    jobs = [job for job in jobs if not _complete(job[0], float(seconds))]
    done = len(tracks) - len(jobs)
    if progress is not None and done:
        progress(done, len(tracks))
    for number in _each_done(jobs, workers or os.cpu_count() or 1):
        if progress is not None:
            progress(done + number, len(tracks))
    table = out / "tracks.csv"
    rows = []
    for genre, index in tracks:
        path = _track_path(out, genre, index)
        artist = artist_of(genre, index, seed)
        rows.append((path.relative_to(out).as_posix(), genre, path.stem, artist))
    write_csv(table, ("path", "genre", "track_id", "artist"), rows)
    return table


def _claim(out: Path, settings: Settings) -> None:
    """Write OUT/corpus.json, or refuse a folder whose corpus.json has other settings."""
    file, wanted = out / "corpus.json", asdict(settings)
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, wanted)
        return
    found = read_json(file, "corpus", "choose another folder or delete this one")
    if found != wanted:
        raise RequestError(
            f"a folder holds one corpus, but {out} was made with {_in_words(found)}, and now it is "
            f"{_in_words(wanted)}: choose another folder or delete this one"
        )


def _in_words(settings: Params) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _track_path(out: Path, genre: str, index: int) -> Path:
    return out / genre / f"{genre}.{index:05d}.wav"


def _complete(path: Path, seconds: float) -> bool:
    header = 44  # bytes of a PCM WAV header as the wave module writes it
    return path.exists() and path.stat().st_size == header + 2 * round(seconds * SAMPLE_RATE)


def extra_track(folder: Path, genre: str, index: int) -> Track:
    """The track table's row of a generated track in this folder; see `write_extra_tracks`."""
    path = _track_path(folder, genre, index)
    return Track(str(path), genre, f"{SYNTHETIC}/{path.stem}", SYNTHETIC)


def write_extra_tracks(
    folder: Path,
    tracks: Sequence[tuple[str, int]],
    seconds: float,
    progress: Callable[[int], None],
) -> None:
    """Write tracks (genre, index) by artists whom no corpus has, on all cores."""
    jobs = [(_track_path(folder, *track), *track, EXTRA_SEED, seconds) for track in tracks]
    for done in _each_done(jobs, os.cpu_count() or 1):
        progress(done)


def write_track(path: Path, genre: str, index: int, seed: int, seconds: float) -> None:
    """Synthesise a track and write it: 16-bit mono WAV, complete or absent."""
    samples = synthesise(genre, index, seed, seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def _each_done(jobs: list[tuple[Path, str, int, int, float]], workers: int) -> Iterator[int]:
    """Write the tracks, here or in processes; yields 1, 2, ... as they are finished."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        for number, job in enumerate(jobs, 1):
            write_track(*job)
            yield number
        return
    context = multiprocessing.get_context("spawn")
    with _one_thread_per_process():
        pool = ProcessPoolExecutor(workers, context)
        try:
            # Processes inherit what the thread that starts them blocks: what stops all processes
            # of a command reaches this one alone, which ends the others. And a KeyboardInterrupt,
            # which the main thread raises, cannot leave one half started.
            with ThreadPoolExecutor(1, initializer=_block_signals) as starter:
                start = starter.submit(lambda: [pool.submit(write_track, *job) for job in jobs])
                pending = start.result()
            for number, future in enumerate(as_completed(pending), 1):
                future.result()
                yield number
        finally:
            pool.shutdown(cancel_futures=True)


def _block_signals() -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@contextmanager
def _one_thread_per_process() -> Iterator[None]:
    """Processes that start here have single-threaded numerical libraries."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
