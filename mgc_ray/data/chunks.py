"""A dataset's chunks as training and ensembling take them: in memory, or read as they are needed.

`open_chunks` gives `Chunks` where the features fit into memory, `StreamedChunks` where they do not.
Both know the same about every chunk (`ChunkTable`); both give features by `pieces`.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.dataset import (
    DatasetInfo,
    read_dataset_tracks,
    read_finished_info,
    read_shard,
    shard_path,
    shared_dataset,
)
from mgc_ray.data.split.protocols import chunk_splits
from mgc_ray.data.storage import SharedFolder, Storage
from mgc_ray.data.tracks import Track
from mgc_ray.data.untrusted import LARGEST

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Features = dict[str, np.ndarray]  # chunks [n, bands, frames] by feature

_MOST_COMPRESSED = 300  # times; LZ4 cannot do more than 255
_UNKNOWN_MEMORY = 8 * 2**30  # bytes, where the system does not say; `--memory` does
_PIECE = 256  # chunks that `pieces` gives at a time: 34 MB of the default size


@dataclass(frozen=True)
class ChunkTable:
    """What is known about N chunks of K tracks, without their features.

    track [N]: indices into `tracks`, whose genre is an index into `info.genres`; split [N] of
    "train", "valid", "test". Asking an unlabelled dataset for genres raises RequestError.
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
                f"the dataset of {self.info.config.tracks} has no genres to learn, as it was made "
                f"for pre-training (--protocol {self.info.protocol}): give a dataset of labelled "
                "tracks, made with another --protocol"
            )
        return np.array([self.info.genres.index(t.genre) for t in self.tracks], np.int64)

    @cached_property
    def genre(self) -> np.ndarray:
        """Genre index of each chunk, int64 [N]."""
        return self.track_genre[self.track]

    @cached_property
    def track_group(self) -> np.ndarray:
        """Group of each track, str [K]."""
        return np.array([track.group for track in self.tracks])

    def rows(self, split: str) -> np.ndarray:
        """Indices of the chunks of one part, int64 [n]."""
        return np.flatnonzero(self.split == split)

    @property
    def nbytes(self) -> int:
        """Bytes that all features take in memory."""
        return len(self.track) * self.info.features.chunk_bytes

    def pieces(
        self, rows: np.ndarray, names: Sequence[str] | None = None
    ) -> Iterator[tuple[np.ndarray, Features]]:
        """(rows [n], features) until all of `rows` were given once; `names`: of some features.

        In the order of `rows` where they are sorted.
        """
        raise NotImplementedError

    @cached_property
    def band_statistics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and deviation of each band by feature, over the training part: float32 [bands]."""
        rows = self.rows("train")
        totals: dict[str, np.ndarray] = {}
        for _, piece in self.pieces(rows):
            for name, chunks in piece.items():
                x = chunks.astype(np.float64)
                sums = np.stack([x.sum((0, 2)), np.square(x).sum((0, 2))])
                totals[name] = totals.get(name, 0) + sums
        statistics = {}
        for name, (total, squares) in totals.items():
            count = len(rows) * self.info.features.columns[name].frames
            mean = total / count
            deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
            # a band that never changes would be divided by zero
            deviation = np.maximum(deviation, 1e-3)
            statistics[name] = mean.astype(np.float32), deviation.astype(np.float32)
        return statistics


@dataclass(frozen=True)
class Chunks(ChunkTable):
    """Chunks in memory: arrays [N, bands, frames] by feature."""

    features: Features

    def pieces(
        self, rows: np.ndarray, names: Sequence[str] | None = None
    ) -> Iterator[tuple[np.ndarray, Features]]:
        for start in range(0, len(rows), _PIECE):  # so that no copy of all is made
            part = rows[start : start + _PIECE]
            yield part, {name: self.features[name][part] for name in names or self.features}


@dataclass(frozen=True)
class StreamedChunks(ChunkTable):
    """Chunks on disk: a shard is read each time one of its chunks is needed.

    shard [N], row_group [N], chunk [N], length [N]: each chunk's file, its track therein, its
    number in that track and how many that has. A node that does not see the dataset's folder
    fetches each shard once.
    """

    dataset: SharedFolder
    shard: np.ndarray
    row_group: np.ndarray
    chunk: np.ndarray
    length: np.ndarray

    def read_shard(
        self, shard: int, rows: np.ndarray, names: Sequence[str] | None = None
    ) -> Features:
        """Features of `rows`, which are all in this shard."""
        path = shard_path(self.dataset.folder, shard)
        if not path.exists():
            copy = self.dataset.on_this_node()
            path = shard_path(copy.folder, shard)
            if not path.exists():
                copy.fetch(path.relative_to(copy.folder).as_posix())
        groups, first, position = np.unique(
            self.row_group[rows], return_index=True, return_inverse=True
        )
        lengths = self.length[rows][first]
        place = (np.cumsum(lengths) - lengths)[position] + self.chunk[rows]
        features = read_shard(
            path, self.info, groups.tolist(), names or [*self.info.features.columns], lengths
        )
        if len(place) == lengths.sum() and (np.diff(place) == 1).all():
            return features
        return {name: chunks[place] for name, chunks in features.items()}

    def pieces(
        self, rows: np.ndarray, names: Sequence[str] | None = None
    ) -> Iterator[tuple[np.ndarray, Features]]:
        for shard in np.unique(self.shard[rows]):
            part = rows[self.shard[rows] == shard]
            yield part, self.read_shard(int(shard), part, names)


def load_chunks(folder: str | Path, splits: Sequence[str]) -> Chunks:
    """Read the chunks of some parts of a finished dataset; those of other parts are not read.

    Raises RequestError for an unfinished dataset and for a shard of other settings.
    """
    return _load(_open(Path(folder), splits, None))


def open_chunks(
    folder: str | Path,
    splits: Sequence[str],
    memory: int | None = None,
    storage: Storage | None = None,
) -> Chunks | StreamedChunks:
    """The same, but streamed where the features take more than `memory` bytes.

    None: a quarter of the memory that this process may use. A search needs them three times while
    it starts (the file, the array, Ray's object store), and trials need memory too. `storage`:
    where processes that do not see the folder find its shards.
    """
    streamed = _open(Path(folder), splits, storage)
    limit = available_memory() // 4 if memory is None else memory
    return streamed if streamed.nbytes > limit else _load(streamed)


def available_memory() -> int:
    """Bytes this process may use: the machine's, its container's limit, or its own (ulimit)."""
    if resource is None:
        return _UNKNOWN_MEMORY
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
    info = read_finished_info(folder)
    tracks, places = read_dataset_tracks(folder)
    counts = np.array([place.chunks for place in places], np.int64)
    if storage is None:
        _check_counts(folder, int(counts.sum()) * info.features.chunk_bytes)
    starts = np.cumsum(counts) - counts  # where a track's chunks begin in `parts`
    parts = np.array(
        [
            part
            for of_track in chunk_splits(tracks, counts.tolist(), info.seed)
            for part in of_track
        ],
        str,
    )
    # as they are in the files, so that reading in order reads each file once
    order = np.lexsort(([p.row_group for p in places], [p.shard for p in places]))
    track = np.repeat(order, counts[order])
    chunk = np.arange(len(track)) - np.repeat(
        np.cumsum(counts[order]) - counts[order], counts[order]
    )
    split = parts[starts[track] + chunk]
    wanted = np.isin(split, list(splits))
    track, chunk, split = track[wanted], chunk[wanted], split[wanted]
    present, renumbered = np.unique(track, return_inverse=True)
    return StreamedChunks(
        info=info,
        track=renumbered,
        split=split,
        tracks=[tracks[i] for i in present],
        dataset=shared_dataset(folder, storage, info),
        shard=np.array([place.shard for place in places], np.int64)[track],
        row_group=np.array([place.row_group for place in places], np.int64)[track],
        chunk=chunk,
        length=counts[track],
    )


def _check_counts(folder: Path, needed: int) -> None:
    """Refuse tracks.parquet where its chunks cannot be in the shards: numbers take memory too."""
    stored = sum(path.stat().st_size for path in (folder / "chunks").glob("*.parquet"))
    if needed > max(LARGEST, _MOST_COMPRESSED * stored):
        raise RequestError(
            f"{folder} is damaged: tracks.parquet has chunks of {needed / 2**30:.1f} GiB, but the "
            f"shards have {stored / 2**20:.0f} MiB: make the dataset again with --overwrite"
        )


def _load(streamed: StreamedChunks) -> Chunks:
    features = {
        name: np.empty((len(streamed.track), feature.bands, feature.frames), feature.dtype)
        for name, feature in streamed.info.features.columns.items()
    }
    for rows, piece in streamed.pieces(np.arange(len(streamed.track))):
        for name, chunks in piece.items():
            features[name][rows] = chunks
    return Chunks(streamed.info, streamed.track, streamed.split, streamed.tracks, features)
