"""The dataset: chunks in Parquet, ready for training.

    DIR/dataset.json     features, split, genres, counts; "finished" once every shard is there
    DIR/tracks.parquet   one row a track: path, genre, artist, group, split, seconds, chunks, hash
    DIR/chunks/*.parquet one row a chunk: track_id, chunk, genre, group, split, log_mel
    DIR/skipped.csv      path,reason of what was left out

`log_mel` has Arrow's fixed-shape tensor type [bands, frames]: `pyarrow.parquet.read_table` gives it
so, `pandas.read_parquet` as one flat array a row, to be reshaped. The content of dataset.json also
stands in each shard's schema metadata, under the key `mgc_ray`, so a shard explains itself and one
of other settings is never read as part of this dataset.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mgc_ray import RequestError
from mgc_ray.data.files import read_json, write_csv, write_json, written_whole
from mgc_ray.data.spectrogram import (
    Features,
    Inspection,
    LogMel,
    features_from_json,
    features_to_json,
)
from mgc_ray.data.tracks import LEAKY_PROTOCOLS, Skipped, Track

TRACKS_PER_SHARD = 16  # 160 chunks of the default size: 21 MB, a second of work
_METADATA_KEY = b"mgc_ray"
_REMEDY = "make it with: python -m mgc_ray.preprocess --tracks FOLDER_OR_CSV --dataset DIR"


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset was made from and how; two with equal `settings` hold the same rows."""

    features: Features
    genres: tuple[str, ...]
    protocol: str
    seed: int
    source: str
    listing: str  # hash of the table's rows and of each file's size and time
    shards: int
    tracks: int
    finished: bool = False

    @property
    def leaky(self) -> bool:
        """Whether pieces of one song are on both sides of the split."""
        return self.protocol in LEAKY_PROTOCOLS

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the content of a shard, as plain JSON values."""
        content = asdict(self) | {
            "features": features_to_json(self.features),
            "genres": list(self.genres),
        }
        return {key: value for key, value in content.items() if key != "finished"}

    def write(self, folder: Path) -> None:
        write_json(folder / "dataset.json", self.settings | {"finished": self.finished})


def read_info(folder: str | Path) -> DatasetInfo:
    """Read DIR/dataset.json, finished or not; raise RequestError where there is none."""
    content = read_json(Path(folder) / "dataset.json", "dataset", _REMEDY)
    try:
        return DatasetInfo(
            **content
            | {
                "features": features_from_json(content["features"]),
                "genres": tuple(content["genres"]),
            }
        )
    except (KeyError, TypeError) as error:
        raise RequestError(
            f"{folder} was made by another version of this program ({error}): {_REMEDY}"
        ) from None


def shard_path(folder: Path, shard: int) -> Path:
    return folder / "chunks" / f"{shard:05d}.parquet"


def write_shard(
    folder: Path, shard: int, info: DatasetInfo, rows: Sequence[tuple[Track, np.ndarray, list[str]]]
) -> int:
    """Write tracks with their chunks [chunks, bands, frames] and each chunk's split; rows written.

    The file appears under its name only when it is whole.
    """
    features = info.features
    shape = (features.bands, features.frames)
    tracks = [track for track, chunks, _ in rows for _ in chunks]
    stacked = np.concatenate(
        [chunks for _, chunks, _ in rows] or [np.zeros((0, *shape), features.dtype)]
    )
    storage = pa.FixedSizeListArray.from_arrays(pa.array(stacked.reshape(-1)), shape[0] * shape[1])
    tensor = pa.fixed_shape_tensor(pa.from_numpy_dtype(features.dtype), shape)
    table = pa.table(
        {
            "track_id": pa.array([t.track_id for t in tracks], pa.string()),
            "chunk": pa.array([i for _, chunks, _ in rows for i in range(len(chunks))], pa.int32()),
            "genre": pa.array([t.genre for t in tracks], pa.string()),
            "group": pa.array([t.group for t in tracks], pa.string()),
            "split": pa.array([split for *_, splits in rows for split in splits], pa.string()),
            "log_mel": pa.ExtensionArray.from_storage(tensor, storage),
        }
    )
    metadata = dict(table.schema.metadata or {})
    metadata[_METADATA_KEY] = json.dumps(info.settings).encode()
    path = shard_path(folder, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="lz4")
    return len(tracks)


def write_tracks(folder: Path, tracks: Sequence[Track], found: Sequence[Inspection]) -> None:
    """Write DIR/tracks.parquet: the split as it was drawn, and what was found in each file."""
    rows = [asdict(t) | asdict(i) for t, i in zip(tracks, found, strict=True)]
    with written_whole(folder / "tracks.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)


def read_track_rows(folder: Path) -> tuple[list[Track], list[Inspection]]:
    """What `write_tracks` wrote, in the same order."""
    path = folder / "tracks.parquet"
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise RequestError(
            f"{path} is missing or damaged ({error}): make the dataset again with --anew"
        ) from None
    tracks, found = [], []
    for row in rows:
        found.append(Inspection(**{name: row.pop(name) for name in Inspection.__annotations__}))
        tracks.append(Track(**row))
    return tracks, found


def write_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    write_csv(folder / "skipped.csv", ["path", "reason"], [[s.path, s.reason] for s in skipped])


@dataclass(frozen=True)
class Chunks:
    """Chunks in memory, N of them from K tracks, as training and ensembling take them.

    spectrograms [N, bands, frames], uint8 or float32; track [N] indices into `tracks`, whose genre
    is an index into `info.genres`; split [N] of "train", "valid", "test".
    """

    info: DatasetInfo
    spectrograms: np.ndarray
    track: np.ndarray
    split: np.ndarray
    tracks: list[Track]

    @cached_property
    def track_genre(self) -> np.ndarray:
        """Genre index of each track, int64 [K]."""
        return np.array([self.info.genres.index(t.genre) for t in self.tracks], np.int64)

    @cached_property
    def genre(self) -> np.ndarray:
        """Genre index of each chunk, int64 [N]."""
        return self.track_genre[self.track]

    def rows(self, split: str) -> np.ndarray:
        """Indices of the chunks of one part, int64 [n]."""
        return np.flatnonzero(self.split == split)

    @cached_property
    def band_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each band over the training part alone, float32 [bands] each."""
        rows = self.rows("train")
        total = np.zeros(self.info.features.bands)
        squares = np.zeros(self.info.features.bands)
        for start in range(0, len(rows), 256):  # in pieces, so that no copy of all is made
            x = self.spectrograms[rows[start : start + 256]].astype(np.float64)
            total += x.sum((0, 2))
            squares += np.square(x).sum((0, 2))
        count = len(rows) * self.info.features.frames
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        # a band that never changes would be divided by zero
        return mean.astype(np.float32), np.maximum(deviation, 1e-3).astype(np.float32)


def load_chunks(folder: str | Path, splits: Sequence[str]) -> Chunks:
    """Read the chunks of some parts of a finished dataset; rows of other parts are left on disk.

    Raises RequestError for an unfinished dataset and for a shard of other settings.
    """
    folder = Path(folder)
    info = read_info(folder)
    if not info.finished:
        raise RequestError(
            f"{folder} is unfinished: run the same command that makes it again, it goes on "
            f"where it stopped (python -m mgc_ray.preprocess --tracks {info.source} "
            f"--dataset {folder})"
        )
    tables = [_read_shard(shard_path(folder, i), info, splits) for i in range(info.shards)]
    table = pa.concat_tables(tables)
    spectrograms = np.empty(
        (len(table), info.features.bands, info.features.frames), info.features.dtype
    )
    start = 0
    for piece in table["log_mel"].chunks:
        spectrograms[start : start + len(piece)] = piece.to_numpy_ndarray()
        start += len(piece)
    ids = table["track_id"].to_pylist()
    present = set(ids)
    rows = [track for track in read_track_rows(folder)[0] if track.track_id in present]
    position = {track.track_id: i for i, track in enumerate(rows)}
    return Chunks(
        info=info,
        spectrograms=spectrograms,
        track=np.array([position[i] for i in ids], np.int64),
        split=np.array(table["split"].to_pylist(), dtype=str),
        tracks=rows,
    )


def _read_shard(path: Path, info: DatasetInfo, splits: Sequence[str]) -> pa.Table:
    try:
        metadata = pq.read_schema(path).metadata or {}
        if json.loads(metadata.get(_METADATA_KEY, b"{}")) != info.settings:
            raise RequestError(
                f"{path} was made with other settings than dataset.json says: delete the folder "
                f"and make it anew: python -m mgc_ray.preprocess --tracks {info.source} "
                f"--dataset {path.parent.parent}"
            )
        return pq.read_table(path, filters=pc.field("split").isin(list(splits)))
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(
            f"{path} is missing or damaged ({error}): delete it and run again: python -m "
            f"mgc_ray.preprocess --tracks {info.source} --dataset {path.parent.parent}"
        ) from None


def finish(folder: Path, info: DatasetInfo) -> DatasetInfo:
    """Mark a dataset as whole."""
    finished = replace(info, finished=True)
    finished.write(folder)
    return finished


def describe(features: Features) -> str:
    """The features in words, for a person."""
    if isinstance(features, LogMel):
        return (
            f"log-mel {features.bands} bands x {features.frames} frames, "
            f"{features.chunk_samples / features.sample_rate:.2f} s a chunk"
        )
    return f"precomputed {features.bands} bands x {features.frames} frames a chunk"
