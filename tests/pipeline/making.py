"""Small music and tables to make datasets of, and what a dataset holds."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile

from mgc_ray.config import ClusterConfig, DatasetConfig
from mgc_ray.data.dataset import DatasetInfo
from mgc_ray.pipeline.preprocess import preprocess
from mgc_ray.pipeline.tables import read_tables

RATE = 22050
PARTS = ["train", "valid", "test"]


def make(
    source: Path, dataset: Path, overwrite: bool = False, storage: str = "", **settings: Any
) -> DatasetInfo:
    """Make a dataset as the command preprocess does."""
    tables = read_tables(DatasetConfig(tracks=str(source), **settings))
    return preprocess(tables, dataset, ClusterConfig(storage=storage), overwrite)


def wav(path: Path, seed: int, seconds: float = 3.0, rate: int = RATE) -> Path:
    """Write noise."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def music(folder: Path, count: int = 4, genres: Sequence[str] = ("jazz", "rock")) -> Path:
    """Write a folder of `count` tracks per genre, of one chunk each."""
    for g, genre in enumerate(genres):
        for i in range(count):
            wav(folder / genre / f"{genre}{i}.wav", 100 * g + i)
    return folder


def arrays(folder: Path, bands: int = 8, frames: int = 47) -> Path:
    """Write a folder of three spectrograms per genre."""
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
    """Write a track table."""
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return path


def reasons(dataset: Path) -> dict[str, str]:
    """Why each skipped file was, by its name."""
    with open(dataset / "skipped.csv", newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def shards(dataset: Path) -> list[Path]:
    return sorted((dataset / "chunks").glob("*.parquet"))


def times(dataset: Path) -> dict[str, int]:
    """When each shard was written."""
    return {path.name: path.stat().st_mtime_ns for path in shards(dataset)}


def contents(dataset: Path) -> list[Any]:
    """The rows of all shards."""
    return [pq.read_table(path) for path in shards(dataset)]


def without_other_clusters() -> dict[str, str]:
    """The environment without what would lead a command to another cluster."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
