"""Small music and tables to make datasets of, and what a dataset holds."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile

from mgc_ray.data.dataset import (
    DatasetInfo,
)
from mgc_ray.data.request import DatasetRequest
from mgc_ray.jobs.preprocess import preprocess

RATE = 22050
PARTS = ["train", "valid", "test"]


def make(
    source: Path, dataset: Path, anew: bool = False, gpu: bool = False, **settings: Any
) -> DatasetInfo:
    return preprocess(DatasetRequest(str(source), **settings), dataset, anew=anew, gpu=gpu)


def wav(path: Path, seed: int, seconds: float = 3.0, rate: int = RATE) -> Path:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def music(folder: Path, count: int = 4, genres: tuple[str, ...] = ("jazz", "rock")) -> Path:
    for g, genre in enumerate(genres):
        for i in range(count):
            wav(folder / genre / f"{genre}{i}.wav", 100 * g + i)
    return folder


def arrays(folder: Path, bands: int = 8, frames: int = 47) -> Path:
    random = np.random.default_rng(0)
    for genre in ("jazz", "rock"):
        (folder / genre).mkdir(parents=True)
        for i in range(3):
            array = random.integers(0, 256, (bands, frames)).astype(np.uint8)
            np.save(folder / genre / f"{genre}{i}.npy", array)
    return folder


def table(
    path: Path, rows: list[tuple[str, ...]], columns: str = "path,genre,artist,split"
) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return path


def reasons(dataset: Path) -> dict[str, str]:
    with open(dataset / "skipped.csv", newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def shards(dataset: Path) -> list[Path]:
    return sorted((dataset / "chunks").glob("*.parquet"))


def times(dataset: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in shards(dataset)}


def contents(dataset: Path) -> list[Any]:
    return [pq.read_table(path) for path in shards(dataset)]


def own_environment() -> dict[str, str]:
    """Without what would lead the command to another cluster."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_ADDRESS")}
