"""A dataset's chunks as training and ensembling take them: in memory, or read as they are needed.

`open_chunks` gives `Chunks` where the spectrograms fit into memory, `StreamedChunks` where they do
not. Both know the same of every chunk (`ChunkTable`); both give spectrograms by `pieces`.
"""

import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from mgc_ray import RequestError
from mgc_ray.data.dataset import (
    DatasetInfo,
    dataset_exchange,
    read_info,
    read_shard,
    read_track_rows,
    shard_path,
)
from mgc_ray.data.storage import Exchange, Storage
from mgc_ray.data.tracks import Track

_PIECE = 256  # chunks that `pieces` gives at a time: 34 MB of the default size


@dataclass(frozen=True)
class ChunkTable:
    """What is known of N chunks from K tracks, without their spectrograms.

    track [N]: indices into `tracks`, whose genre is an index into `info.genres`; split [N] of
    "train", "valid", "test". Of an unlabelled dataset asking for genres raises RequestError.
    """

    info: DatasetInfo
    track: np.ndarray
    split: np.ndarray
    tracks: list[Track]

    @cached_property
    def track_genre(self) -> np.ndarray:
        """Genre index of each track, int64 [K]."""
        if not self.info.genres:
            raise RequestError(
                f"the dataset of {self.info.source} has no genres to learn, as it was made for "
                f"pre-training (--protocol {self.info.protocol}): name one of labelled tracks, "
                "made by another --protocol"
            )
        return np.array([self.info.genres.index(t.genre) for t in self.tracks], np.int64)

    @cached_property
    def genre(self) -> np.ndarray:
        """Genre index of each chunk, int64 [N]."""
        return self.track_genre[self.track]

    def rows(self, split: str) -> np.ndarray:
        """Indices of the chunks of one part, int64 [n]."""
        return np.flatnonzero(self.split == split)

    @property
    def nbytes(self) -> int:
        """Bytes that all spectrograms take in memory."""
        features = self.info.features
        return len(self.track) * features.bands * features.frames * features.dtype.itemsize

    def pieces(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows [n], spectrograms [n, bands, frames]) until all of `rows` were given once.

        In the order of `rows` where they are sorted.
        """
        raise NotImplementedError

    @cached_property
    def band_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each band over the training part alone, float32 [bands] each."""
        rows = self.rows("train")
        total = np.zeros(self.info.features.bands)
        squares = np.zeros(self.info.features.bands)
        for _, piece in self.pieces(rows):
            x = piece.astype(np.float64)
            total += x.sum((0, 2))
            squares += np.square(x).sum((0, 2))
        count = len(rows) * self.info.features.frames
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        # a band that never changes would be divided by zero
        return mean.astype(np.float32), np.maximum(deviation, 1e-3).astype(np.float32)


@dataclass(frozen=True)
class Chunks(ChunkTable):
    """Chunks in memory: spectrograms [N, bands, frames], uint8 or float32."""

    spectrograms: np.ndarray

    def pieces(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(rows), _PIECE):  # so that no copy of all is made
            part = rows[start : start + _PIECE]
            yield part, self.spectrograms[part]


@dataclass(frozen=True)
class StreamedChunks(ChunkTable):
    """Chunks on disk: a shard is read each time one of its chunks is asked for.

    shard [N], place [N]: each chunk's file and its row therein. A node that does not see the
    dataset's folder fetches each shard once.
    """

    dataset: Exchange
    shard: np.ndarray
    place: np.ndarray

    def read_shard(self, shard: int, rows: np.ndarray) -> np.ndarray:
        """Spectrograms of `rows`, which all lie in this shard."""
        path = shard_path(self.dataset.folder, shard)
        if not path.exists():
            there = self.dataset.elsewhere()
            path = shard_path(there.folder, shard)
            if not path.exists():
                there.fetch(path.relative_to(there.folder).as_posix())
        table = read_shard(path, self.info, columns=["log_mel"])
        return _spectrograms(table.take(self.place[rows]), self.info)

    def pieces(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for shard in np.unique(self.shard[rows]):
            part = rows[self.shard[rows] == shard]
            yield part, self.read_shard(int(shard), part)


def load_chunks(folder: str | Path, splits: Sequence[str]) -> Chunks:
    """Read the chunks of some parts of a finished dataset; rows of other parts are left on disk.

    Raises RequestError for an unfinished dataset and for a shard of other settings.
    """
    return _load(_open(Path(folder), splits, None))


def open_chunks(
    folder: str | Path,
    splits: Sequence[str],
    memory: int | None = None,
    storage: Storage | None = None,
) -> Chunks | StreamedChunks:
    """The same, but streamed where the spectrograms take more than `memory` bytes.

    None: a quarter of the memory that this process may use. A search needs them three times while
    it starts (the file, the array, Ray's object store), and trials need memory too. `storage`:
    where processes that do not see the folder find its shards.
    """
    streamed = _open(Path(folder), splits, storage)
    limit = available_memory() // 4 if memory is None else memory
    return streamed if streamed.nbytes > limit else _load(streamed)


def available_memory() -> int:
    """Bytes this process may use: the machine's, its container's limit, or its own (ulimit)."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # not Linux, or "max"
            continue
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            limits.append(limit)
    return min(limits)


def _open(folder: Path, splits: Sequence[str], storage: Storage | None) -> StreamedChunks:
    info = read_info(folder)
    if not info.finished:
        raise RequestError(
            f"{folder} is unfinished: run the same command that makes it again, it goes on "
            f"where it stopped (python -m mgc_ray.preprocess --tracks {info.source} "
            f"--dataset {folder})"
        )
    tracks = read_track_rows(folder)[0]
    position = {track.track_id: i for i, track in enumerate(tracks)}
    track, split, shard, place = [], [], [], []
    for number in range(info.shards):
        table = read_shard(shard_path(folder, number), info, columns=["track_id", "split"])
        wanted = np.flatnonzero(np.isin(np.array(table["split"].to_pylist(), str), list(splits)))
        ids = table["track_id"].take(wanted).to_pylist()
        track.append(np.array([position[i] for i in ids], np.int64))
        split += table["split"].take(wanted).to_pylist()
        shard.append(np.full(len(wanted), number))
        place.append(wanted)
    present, renumbered = np.unique(np.concatenate(track), return_inverse=True)
    return StreamedChunks(
        info=info,
        track=renumbered,
        split=np.array(split, dtype=str),
        tracks=[tracks[i] for i in present],
        dataset=dataset_exchange(folder, storage),
        shard=np.concatenate(shard),
        place=np.concatenate(place),
    )


def _load(streamed: StreamedChunks) -> Chunks:
    info = streamed.info
    shape = (len(streamed.track), info.features.bands, info.features.frames)
    spectrograms = np.empty(shape, info.features.dtype)
    for rows, piece in streamed.pieces(np.arange(len(spectrograms))):
        spectrograms[rows] = piece
    return Chunks(info, streamed.track, streamed.split, streamed.tracks, spectrograms)


def _spectrograms(table: pa.Table, info: DatasetInfo) -> np.ndarray:
    """[n, bands, frames] without a copy where the column is in one part."""
    column = table["log_mel"].combine_chunks()
    part = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    array: np.ndarray = part.to_numpy_ndarray()
    return array.reshape(len(table), info.features.bands, info.features.frames)
