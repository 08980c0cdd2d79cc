"""The dataset: features in Parquet, ready for training.

    DIR/dataset.json     configuration, features, genres, counts; "finished" once all is there
    DIR/tracks.parquet   one row per track: path, genre, artist, group, split, seconds, chunks, and
                         where its chunks are
    DIR/chunks/*.parquet one row per chunk: track_id, chunk, and one column per feature
    DIR/skipped.csv      path,reason of what was left out
    DIR/synthetic/       generated music that was added to the training part, where asked for

A feature's column has Arrow's fixed-shape tensor type [bands, frames]: `pyarrow.parquet.read_table`
returns it so, `pandas.read_parquet` as one flat array per row. Each track is one row group, so that
a part of the split can be read without the others. A shard's schema metadata (key `mgc_ray`) says
what it was made from and which tracks are in it, so a shard of other settings is never read.
"""

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.confounds import Properties
from mgc_ray.data.features import (
    FeatureSet,
    TrackFeatures,
    feature_set_from_json,
    no_fingerprint,
)
from mgc_ray.data.files import atomic_write, is_damaged, read_typed, write_csv, write_json
from mgc_ray.data.names import from_cell
from mgc_ray.data.split.protocols import LEAKY_PROTOCOLS
from mgc_ray.data.storage import SharedFolder, Storage
from mgc_ray.data.tracks import Skipped, Track
from mgc_ray.data.untrusted import check_folder, check_regular, check_size, parse_json, read_table
from mgc_ray.settings import Params, as_json, validated

TRACKS_PER_SHARD = 16  # 160 chunks of the default size: 21 MB, a second of work
_METADATA_KEY = b"mgc_ray"
_FINGERPRINTS_KEY = b"mgc_ray_fingerprints"
Count = Annotated[int, pydantic.Field(ge=0, le=10**9)]
Chunks = Annotated[int, pydantic.Field(ge=0, le=10**6)]  # of one track
_REMEDY = "make it with: mgc-ray preprocess --tracks FOLDER_OR_CSV --dataset DIR"


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset was made from and how."""

    config: DatasetConfig
    features: Annotated[
        FeatureSet,
        pydantic.PlainValidator(feature_set_from_json),
        pydantic.PlainSerializer(FeatureSet.to_json),
    ]
    listing: str  # hash of the table's rows and of each file's size and time
    genres: tuple[str, ...] = ()
    tracks: Count = 0
    accuracy_without_music: float | None = None  # see confounds.py; None where it is not known
    warnings: tuple[str, ...] = ()  # what to know before figures are believed
    shards: Count = 0
    split_id: str = ""  # see `split_identity`
    finished: bool = False

    @property
    def protocol(self) -> str:
        return self.config.protocol

    @property
    def fold(self) -> str:
        return self.config.fold

    @property
    def seed(self) -> int:
        """Of the split."""
        return self.config.split_seed

    @property
    def leaky(self) -> bool:
        """Whether chunks of one song are on both sides of the split."""
        return self.protocol in LEAKY_PROTOCOLS

    @property
    def source_name(self) -> str:
        """The track table as it is recorded in models: without the folders of this machine."""
        return table_name(self.config.tracks)

    @property
    def protocol_in_words(self) -> str:
        """The protocol with its fold, where it has any."""
        return f"{self.protocol}, fold {self.fold}" if self.fold else self.protocol

    def holds_the_same_as(self, other: "DatasetInfo") -> bool:
        """Whether both have the same features of the same tracks in the same parts."""
        return (self.split_id, self.features) == (other.split_id, other.features)

    def write(self, folder: Path) -> None:
        write_json(folder / "dataset.json", as_json(self))


def table_name(source: str) -> str:
    """The last two parts of a folder's or table's path: they say what it is, not where it was."""
    return "/".join(Path(source).parts[-2:])


def has_info(folder: Path) -> bool:
    """Whether there is a DIR/dataset.json; a damaged one, as after a loss of power, is none."""
    path = folder / "dataset.json"
    return path.exists() and not is_damaged(path)


def is_whole(path: Path) -> bool:
    """Whether a Parquet file is there from its beginning to its end.

    After a loss of power a file may be empty or cut, or zeros may be in it.
    """
    try:
        with path.open("rb") as file:
            first = file.read(4)
            file.seek(-4, os.SEEK_END)
            return (first, file.read(4)) == (b"PAR1", b"PAR1")
    except OSError:
        return False


def read_info(folder: str | Path) -> DatasetInfo:
    """Read DIR/dataset.json, finished or not; raise RequestError where there is none."""
    check_folder(Path(folder), "dataset.json")
    return read_typed(DatasetInfo, Path(folder) / "dataset.json", "dataset", _REMEDY)


def read_finished_info(folder: str | Path) -> DatasetInfo:
    """The same of a dataset that can be used; RequestError for one that is unfinished."""
    info = read_info(folder)
    if not info.finished:
        raise RequestError(
            f"{folder} is unfinished: run the command that makes it again, it continues where it "
            f"stopped (mgc-ray preprocess --tracks {info.config.tracks} --dataset "
            f"{folder})"
        )
    return info


def shared_dataset(
    folder: Path, storage: Storage | None, info: DatasetInfo | None = None
) -> SharedFolder:
    """The dataset's folder, as the nodes of a cluster reach it; with `info` also its copies."""
    made_from = json.dumps(_made_from(info), sort_keys=True) if info else ""
    identity = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    return SharedFolder(folder.resolve(), storage, f"datasets/{folder.name}", identity=identity)


# ---- shards ----


@dataclass(frozen=True)
class ShardTrack:
    """A usable track in a shard; its chunks are the row group `row_group`."""

    path: str
    row_group: Count
    chunks: Chunks
    seconds: float
    content_hash: str
    lost_seconds: float = 0.0  # of a damaged file
    properties: Properties = field(default_factory=Properties)
    fingerprint: Annotated[np.ndarray, pydantic.PlainValidator(np.asarray)] = field(
        default_factory=no_fingerprint, compare=False
    )


@dataclass(frozen=True)
class ShardContent:
    """What a shard's metadata says: the usable tracks, and what could not be used."""

    tracks: tuple[ShardTrack, ...]
    skipped: tuple[Skipped, ...]


def shard_path(folder: Path, shard: int) -> Path:
    return folder / "chunks" / f"{shard:05d}.parquet"


def write_shard(
    path: Path,
    info: DatasetInfo,
    tracks: Sequence[tuple[Track, TrackFeatures]],
    skipped: Sequence[Skipped],
) -> None:
    """Write the features of tracks, one row group each; the file is complete or absent."""
    usable = [
        {
            "path": track.path,
            "row_group": i,
            "chunks": features.chunks,
            "seconds": features.seconds,
            "content_hash": features.content_hash,
            "lost_seconds": round(features.lost_seconds, 3),
            "properties": asdict(features.properties),
        }
        for i, (track, features) in enumerate(tracks)
    ]
    content = {"tracks": usable, "skipped": [asdict(s) for s in skipped]}
    metadata = {
        _METADATA_KEY: json.dumps(_made_from(info) | content).encode(),
        _FINGERPRINTS_KEY: _packed([features.fingerprint for _, features in tracks]),
    }
    schema = _schema(info.features).with_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="lz4",
            use_dictionary=["track_id"],  # of spectrograms it would be as long as they are
            write_statistics=False,
        ) as writer,
    ):
        for track, features in tracks:
            writer.write_table(_rows(track, features, schema))


def _schema(features: FeatureSet) -> pa.Schema:
    fields = [("track_id", pa.string()), ("chunk", pa.int32())]
    for name, feature in features.columns.items():
        shape = (feature.bands, feature.frames)
        fields.append((name, pa.fixed_shape_tensor(pa.from_numpy_dtype(feature.dtype), shape)))
    return pa.schema(fields)


def _rows(track: Track, features: TrackFeatures, schema: pa.Schema) -> pa.Table:
    columns: list[Any] = [
        pa.array([track.track_id] * features.chunks, pa.string()),
        pa.array(range(features.chunks), pa.int32()),
    ]
    for name, chunks in features.columns.items():
        size = chunks.shape[1] * chunks.shape[2]
        storage = pa.FixedSizeListArray.from_arrays(pa.array(chunks.reshape(-1)), size)
        columns.append(pa.ExtensionArray.from_storage(schema.field(name).type, storage))
    return pa.table(columns, schema=schema)


def _packed(fingerprints: Sequence[np.ndarray]) -> bytes:
    """Arrays of uint32 as bytes: how many there are, their lengths, then all of them."""
    lengths = np.array([len(fingerprints), *map(len, fingerprints)], "<u4")
    return np.concatenate([lengths, *fingerprints]).astype("<u4").tobytes()


def _unpacked(packed: bytes) -> tuple[np.ndarray, ...]:
    numbers = np.frombuffer(packed, "<u4")
    count = int(numbers[0])
    ends = 1 + count + np.cumsum(numbers[1 : 1 + count])
    return tuple(np.split(numbers, [1 + count, *ends])[1:-1])


def _made_from(info: DatasetInfo) -> Params:
    return {"features": info.features.to_json(), "listing": info.listing}


def read_shard_content(path: Path, info: DatasetInfo) -> ShardContent:
    """What a shard holds; RequestError where it is damaged or of other settings."""
    with _readable(path, info):
        check_regular(path)
        schema = pq.read_schema(path)
        metadata = _metadata(schema, path, info)
        fingerprints = _unpacked(schema.metadata[_FINGERPRINTS_KEY])
        tracks = zip(metadata["tracks"], fingerprints, strict=True)
        return ShardContent(
            tuple(validated(ShardTrack, one | {"fingerprint": codes}) for one, codes in tracks),
            validated(tuple[Skipped, ...], metadata["skipped"]),
        )


def read_shard(
    path: Path,
    info: DatasetInfo,
    row_groups: Sequence[int],
    names: Sequence[str],
    chunks: Sequence[int] | None = None,
) -> dict[str, np.ndarray]:
    """Features [chunks, bands, frames] of some tracks of a shard, by name.

    `chunks`: how many each of them has. Raises RequestError where the shard is damaged, of other
    settings or has others.
    """
    with _readable(path, info):
        check_regular(path)
        with pq.ParquetFile(path) as file:
            _metadata(file.schema_arrow, path, info)
            groups = [file.metadata.row_group(group) for group in row_groups]
            if chunks is not None and [group.num_rows for group in groups] != list(chunks):
                raise ValueError("its tracks have other numbers of chunks than tracks.parquet says")
            wanted = _schema(info.features)
            for name in names:
                if file.schema_arrow.field(name).type != wanted.field(name).type:
                    raise ValueError(f"{name} is of another type than dataset.json says")
            check_size(sum(group.total_byte_size for group in groups), path)
            table = file.read_row_groups(list(row_groups), columns=list(names))
        arrays = {name: _tensor(table, name) for name in names}
        for name, array in arrays.items():
            if not _all_finite(array):
                raise ValueError(f"{name} holds NaN or infinity")
    return arrays


def _all_finite(array: np.ndarray) -> bool:
    if array.dtype == np.float16 and array.flags.c_contiguous:  # ten times as fast as isfinite
        bits = array.reshape(-1).view(np.uint16) & np.uint16(0x7FFF)
        return not len(bits) or bits.max() < 0x7C00
    return bool(np.isfinite(array).all())


class _readable:  # noqa: N801  used like a function
    """Turns whatever a damaged shard raises into a RequestError."""

    def __init__(self, path: Path, info: DatasetInfo) -> None:
        self._path, self._info = path, info

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        damaged = (OSError, pa.ArrowException, ValueError, LookupError, TypeError)
        if isinstance(error, damaged) and not isinstance(error, RequestError):
            raise RequestError(
                f"{self._path} is missing or damaged ({_one_line(error)}): delete it and run "
                f"again: {_command(self._path, self._info)}"
            ) from None


def _one_line(error: BaseException) -> str:
    """Messages of Parquet may have several."""
    return " ".join(str(error).split())


def _metadata(schema: pa.Schema, path: Path, info: DatasetInfo) -> Params:
    content = parse_json((schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    content = content if isinstance(content, dict) else {}
    if any(content.get(name) != value for name, value in _made_from(info).items()):
        raise RequestError(
            f"{path} was made with other settings than dataset.json says: delete the folder and "
            f"make it again: {_command(path, info)}"
        )
    return content


def _command(path: Path, info: DatasetInfo) -> str:
    return f"mgc-ray preprocess --tracks {info.config.tracks} --dataset {path.parent.parent}"


def _tensor(table: pa.Table, name: str) -> np.ndarray:
    """[n, bands, frames] without a copy where the column is in one part."""
    if not len(table):
        shape = table.schema.field(name).type.shape
        return np.zeros((0, *shape), table.schema.field(name).type.value_type.to_pandas_dtype())
    column = table[name].combine_chunks()
    part = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    array: np.ndarray = part.to_numpy_ndarray()
    return array.reshape(len(table), *part.type.shape)


# ---- tracks ----


@dataclass(frozen=True)
class TrackPlace:
    """Where a track's chunks are, and how many."""

    shard: Count
    row_group: Count
    chunks: Chunks
    seconds: float
    content_hash: str
    recording: str  # the same for all copies of one recording, see copies.py
    lost_seconds: float = 0.0  # of a damaged file
    properties: Properties = field(default_factory=Properties)


def write_tracks(folder: Path, tracks: Sequence[tuple[Track, TrackPlace]]) -> None:
    """Write DIR/tracks.parquet: the split as it was drawn, and where chunks are."""
    rows = [asdict(track) | _columns(place) for track, place in tracks]
    with atomic_write(folder / "tracks.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)


def _columns(place: TrackPlace) -> Params:
    """A column per field, and one per property of the file."""
    columns = asdict(place)
    return columns | columns.pop("properties")


def read_dataset_tracks(folder: Path) -> tuple[list[Track], list[TrackPlace]]:
    """What `write_tracks` wrote, in the same order."""
    path = folder / "tracks.parquet"
    check_folder(folder, path.name)
    try:
        rows = read_table(path).to_pylist()
        tracks = validated(list[Track], rows)
        return tracks, validated(list[TrackPlace], [row | {"properties": row} for row in rows])
    except (OSError, pa.ArrowException, ValueError) as error:
        raise RequestError(
            f"{path} is missing or damaged ({_one_line(error)}): make the dataset again with "
            "--overwrite"
        ) from None


def write_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    write_csv(folder / "skipped.csv", ["path", "reason"], [[s.path, s.reason] for s in skipped])


def read_skipped(folder: Path) -> list[Skipped]:
    """What `write_skipped` wrote; nothing where the dataset is not at hand."""
    try:
        check_folder(folder, "skipped.csv")
        with (folder / "skipped.csv").open(newline="", encoding="utf-8") as file:
            return [
                Skipped(from_cell(row["path"]), from_cell(row["reason"]))
                for row in csv.DictReader(file, restval="")
            ]
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def split_identity(tracks: Sequence[tuple[Track, TrackPlace]], info: DatasetInfo) -> str:
    """Sixteen digits that change with each track's audio, genre, group and part.

    Models, predictions and ensembles record them, so that nothing is ever measured on tracks that
    another split gave to the training part. Where the files are does not matter.
    """
    rows = sorted(
        (place.content_hash, track.track_id, track.genre, track.group, track.split, track.added)
        for track, place in tracks
    )
    drawn_from = info.protocol, info.seed  # chunks of `random-chunks` have a split of their own
    return hashlib.sha256(repr((rows, drawn_from)).encode()).hexdigest()[:16]


def finish(folder: Path, info: DatasetInfo) -> DatasetInfo:
    """Mark a dataset as complete."""
    finished = replace(info, finished=True)
    finished.write(folder)
    return finished
