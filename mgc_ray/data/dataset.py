"""The dataset: chunks in Parquet, ready for training.

    DIR/dataset.json     features, split, genres, counts; "finished" once every shard is there
    DIR/tracks.parquet   one row a track: path, genre, artist, group, split, seconds, chunks, hash
    DIR/chunks/*.parquet one row a chunk: track_id, chunk, genre, group, split, log_mel
    DIR/skipped.csv      path,reason of what was left out
    DIR/synthetic/       music that the program made and added to the training part, if asked for

`log_mel` has Arrow's fixed-shape tensor type [bands, frames]: `pyarrow.parquet.read_table` gives it
so, `pandas.read_parquet` as one flat array a row, to be reshaped. The content of dataset.json also
stands in each shard's schema metadata, under the key `mgc_ray`, so a shard explains itself and one
of other settings is never read as part of this dataset.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mgc_ray import RequestError
from mgc_ray.data.files import read_json, write_csv, write_json, written_whole
from mgc_ray.data.request import CHUNKS_PER_ARRAY
from mgc_ray.data.spectrogram import (
    BandGroups,
    Features,
    Inspection,
    LogMel,
    features_from_json,
    features_to_json,
)
from mgc_ray.data.split import LEAKY_PROTOCOLS
from mgc_ray.data.storage import Exchange, Storage
from mgc_ray.data.tracks import Skipped, Track

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
    fold: str = ""  # "2/5", under cross-validation
    chunks_per_track: int = CHUNKS_PER_ARRAY  # of arrays of the most usual size
    synthetic: int = 0  # generated tracks a genre among the training part
    more_source: str = ""  # of further tracks among it
    finished: bool = False

    @property
    def leaky(self) -> bool:
        """Whether pieces of one song are on both sides of the split."""
        return self.protocol in LEAKY_PROTOCOLS

    @property
    def source_name(self) -> str:
        """`source` as it stands in models: without the folders of this machine."""
        return table_name(self.source)

    @property
    def protocol_in_words(self) -> str:
        """The protocol as it stands beside figures, with its fold where it has any."""
        return f"{self.protocol}, fold {self.fold}" if self.fold else self.protocol

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the content of a shard, as plain JSON values.

        Less what stands at its default, as in datasets that are older than the setting.
        """
        content = asdict(self) | {
            "features": features_to_json(self.features),
            "genres": list(self.genres),
        }
        defaults = {field.name: field.default for field in fields(self)}
        return {k: v for k, v in content.items() if k != "finished" and v != defaults[k]}

    def write(self, folder: Path) -> None:
        write_json(folder / "dataset.json", self.settings | {"finished": self.finished})


def table_name(source: str) -> str:
    """The last two parts of a folder's or table's path: they say what it is, not where it lay."""
    return "/".join(Path(source).parts[-2:])


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


def dataset_exchange(folder: Path, storage: Storage | None) -> Exchange:
    """The dataset's folder, as the nodes of a cluster reach it."""
    return Exchange(folder.resolve(), storage, f"datasets/{folder.name}")


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
    others = table.column_names[:-1]
    with written_whole(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            compression="lz4",
            use_dictionary=others,  # of spectrograms it would be as long as they are
            use_byte_stream_split=["log_mel.list.element"],  # a fifth smaller, and faster to write
            write_statistics=others,
        )
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


def read_shard(path: Path, info: DatasetInfo, columns: Sequence[str]) -> pa.Table:
    """Some columns of a shard; RequestError where it is damaged or of other settings."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        if json.loads(metadata.get(_METADATA_KEY, b"{}")) != info.settings:
            raise RequestError(
                f"{path} was made with other settings than dataset.json says: delete the folder "
                f"and make it anew: python -m mgc_ray.preprocess --tracks {info.source} "
                f"--dataset {path.parent.parent}"
            )
        return pq.read_table(path, columns=list(columns))
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
    names = ", ".join(features.groups).replace("_", "-")
    size = f"{names} {features.bands} bands x {features.frames} frames"
    log_mel = features.log_mel if isinstance(features, BandGroups) else features
    if not isinstance(log_mel, LogMel):
        return f"{size} a chunk"
    return f"{size}, {log_mel.chunk_samples / log_mel.sample_rate:.2f} s a chunk"
