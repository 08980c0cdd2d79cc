"""The table of a library: what `predict --out` writes and `similar` reads.

One row per file: OWN_COLUMNS, `prob_GENRE` for each genre, and with `--embeddings` the column
`embedding`, a fixed-length list of float32 (see ensembling/embedding.py). The metadata of a Parquet
file also record where the library and the model are (`Origin`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from mgc_ray import RequestError
from mgc_ray.data.files import atomic_write
from mgc_ray.data.names import FORMULA
from mgc_ray.data.untrusted import leads_out, parse_json, read_table
from mgc_ray.models import own_families
from mgc_ray.results import Member
from mgc_ray.settings import validated

OWN_COLUMNS = {
    "path": pa.string(),  # below the folder; bytes that are not UTF-8 as \xNN
    "genre": pa.string(),
    "probability": pa.float64(),
    "reason": pa.string(),  # why there is no genre
    "lost_seconds": pa.float64(),  # of a damaged file, of which the rest was used
    "short": pa.string(),  # that it is shorter than half a chunk
    "size": pa.int64(),  # bytes
    "modified_ns": pa.int64(),
    "model": pa.string(),  # a hash, see `model_key`
}
EMBEDDING = "embedding"
_ORIGIN = b"mgc_ray"


@dataclass(frozen=True)
class Origin:
    """Where the songs of a table and the model that predicted them are: folders, as text."""

    music: str
    model: str


def table_schema(genres: Sequence[str], embedding_length: int = 0) -> pa.Schema:
    """The columns of a table; `embedding_length` 0: without embeddings."""
    probs = [(f"prob_{genre}", pa.float32()) for genre in genres]
    embedding = [(EMBEDDING, pa.list_(pa.float32(), embedding_length))] if embedding_length else []
    return pa.schema([*OWN_COLUMNS.items(), *probs, *embedding])


def model_key(model: Path, members: Iterable[Member], embedding_version: str = "") -> str:
    """A hash that changes with everything that decides a prediction, or an embedding.

    `members`: those that predict; `embedding_version`: of how embeddings are computed, "" for a
    table without them.
    """
    names = [member.name for member in members]
    digest = hashlib.sha256(json.dumps([names, embedding_version]).encode())
    for path in sorted(model.rglob("*")):
        if path.suffix in (".json", ".safetensors"):
            digest.update(path.read_bytes())
    for _, source in own_families().values():
        digest.update(source.encode())
    return digest.hexdigest()[:16]


def read_earlier(out: Path, schema: pa.Schema) -> pa.Table:
    """The table of an earlier run, also one of other columns; empty where there is none.

    `schema` decides the types of a CSV's columns. RequestError where `out` is something else, which
    must not be overwritten.
    """
    if not out.exists() or not out.stat().st_size:
        return schema.empty_table()
    try:
        if out.suffix.lower() == ".parquet":
            table = read_table(out)
        else:
            options = pa.csv.ConvertOptions(
                column_types=schema,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,  # a genre may be called NA
            )
            lines = pa.csv.ParseOptions(newlines_in_values=True)
            table = pa.csv.read_csv(out, parse_options=lines, convert_options=options)
            table = _texts(table, f"^'({FORMULA})", r"\1")
        if set(OWN_COLUMNS) <= set(table.column_names):
            _check_paths(table)
            return table
    except (OSError, pa.ArrowException, ValueError):
        pass
    raise RequestError(
        f"--out {out} exists already, and is not a table of genres that this program wrote: give "
        "another, or delete it"
    )


def _check_paths(table: pa.Table) -> None:
    """Raise ValueError where a table names a song that is not below its folder."""
    if outside := [path for path in table["path"].to_pylist() if leads_out(path)]:
        raise ValueError(f"its path {outside[0]!r} is not below its folder")


def _texts(table: pa.Table, pattern: str, replacement: str) -> pa.Table:
    """The table with this changed in all texts: as `to_cell` and `from_cell` do."""
    for number, name in enumerate(table.column_names):
        if table.schema.field(name).type == pa.string():
            changed = pc.replace_substring_regex(table[name], pattern, replacement)
            table = table.set_column(number, table.schema.field(name), changed)
    return table


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table in these columns; empty where its own are others, of another model."""
    same = table.column_names == schema.names and _length(table.schema) == _length(schema)
    return table.cast(schema) if same else schema.empty_table()


def music_of(table: pa.Table) -> str:
    """Where the songs of a table are; "" where it does not say so."""
    try:
        return str(json.loads((table.schema.metadata or {})[_ORIGIN])["music"])
    except (KeyError, TypeError, ValueError):
        return ""


def _length(schema: pa.Schema) -> int:
    """Values of an embedding; 0 where there is none, or of no fixed length."""
    if EMBEDDING not in schema.names:
        return 0
    length: int = getattr(schema.field(EMBEDDING).type, "list_size", 0)
    return length


@dataclass(frozen=True)
class EmbeddedSongs:
    """All rows of a table, and the embeddings [songs, values] of those `rows` that have one.

    `model`: the hash of the ensemble that made them. `identities`: size in bytes and time of change
    in ns of each row's file.
    """

    paths: list[str]
    genres: list[str]
    reasons: list[str]
    identities: list[tuple[int, int]]
    rows: list[int]
    embeddings: np.ndarray
    model: str
    origin: Origin


def read_embedded(path: Path) -> EmbeddedSongs:
    """Read a table with embeddings; RequestError for anything else."""
    rule = f"--in must be a table that predict --out TABLE --embeddings wrote, but {path}"
    if not path.exists():
        raise RequestError(f"{rule} does not exist: give another")
    if not has_embeddings(path):
        raise RequestError(
            f"{rule} has no embeddings: make it by mgc-ray predict MUSIC --out "
            f"{path.with_suffix('.parquet')} --embeddings"
        )
    try:
        # not by pyarrow's read_table and to_numpy, which import pandas
        table = read_table(path, [*OWN_COLUMNS, EMBEDDING])
        _check_paths(table)
        origin = validated(Origin, parse_json(table.schema.metadata[_ORIGIN]))
        columns = {name: table[name].to_pylist() for name in OWN_COLUMNS}
        (model,) = set(columns["model"])
        embedding = table[EMBEDDING].combine_chunks()
        rows = [row for row, known in enumerate(embedding.is_valid().to_pylist()) if known]
        values = np.from_dlpack(embedding.flatten()).reshape(len(rows), embedding.type.list_size)
    except (OSError, pa.ArrowException, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{rule} is damaged or from another version ({error})") from None
    return EmbeddedSongs(
        paths=columns["path"],
        genres=columns["genre"],
        reasons=columns["reason"],
        identities=list(zip(columns["size"], columns["modified_ns"], strict=True)),
        rows=rows,
        embeddings=values,
        model=model,
        origin=origin,
    )


def has_embeddings(path: Path) -> bool:
    """Whether a file is a table with embeddings."""
    try:
        is_table = path.suffix.lower() == ".parquet" and path.is_file()  # a pipe would not end
        return is_table and EMBEDDING in pq.read_schema(path).names
    except (OSError, pa.ArrowException):  # there is none, or it is something else
        return False


def check_keeps_embeddings(out: Path) -> None:
    """Refuse a run without embeddings that would delete those of an earlier one."""
    if any(map(has_embeddings, (out, *parts_folder(out).glob("*.parquet")))):
        raise RequestError(
            f"--out {out} has embeddings, which a run without them would delete: add --embeddings, "
            "or give another --out"
        )


def parts_folder(out: Path) -> Path:
    """Where a run writes rows until all are there."""
    return out.with_name(f"{out.name}.parts")


def with_origin(table: pa.Table, origin: Origin) -> pa.Table:
    """The table with its origin in the metadata."""
    return table.replace_schema_metadata({_ORIGIN: json.dumps(asdict(origin)).encode()})


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as .parquet or .csv; the file is complete or as it was."""
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".csv":
            pa.csv.write_csv(_texts(table, f"^({FORMULA})", r"'\1"), temporary)
        else:
            pq.write_table(table, temporary)
