"""The table of a library, as `predict --out` writes it.

One row per file: OWN_COLUMNS, and `prob_GENRE` for each genre.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mgc_ray import RequestError
from mgc_ray.data.files import atomic_write
from mgc_ray.models import own_families

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


def table_schema(genres: Sequence[str]) -> pa.Schema:
    """The columns of a table."""
    probs = [(f"prob_{genre}", pa.float32()) for genre in genres]
    return pa.schema([*OWN_COLUMNS.items(), *probs])


def model_key(model: Path, left_out: str = "") -> str:
    """A hash that changes with everything that decides a prediction."""
    digest = hashlib.sha256(left_out.encode())
    for path in sorted(model.rglob("*")):
        if path.suffix in (".json", ".safetensors"):
            digest.update(path.read_bytes())
    for _, source in own_families().values():
        digest.update(source.encode())
    return digest.hexdigest()[:16]


def read_earlier(out: Path, schema: pa.Schema) -> pa.Table:
    """The table of an earlier run, empty where that had other genres.

    RequestError where `out` is something else, which must not be overwritten.
    """
    if not out.exists():
        return schema.empty_table()
    try:
        if out.suffix.lower() == ".parquet":
            table = pq.read_table(out)
        else:
            options = pa.csv.ConvertOptions(
                column_types=schema,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,  # a genre may be called NA
            )
            lines = pa.csv.ParseOptions(newlines_in_values=True)
            table = pa.csv.read_csv(out, parse_options=lines, convert_options=options)
        if set(OWN_COLUMNS) <= set(table.column_names):
            same = table.column_names == schema.names
            return table.cast(schema) if same else schema.empty_table()
    except (OSError, pa.ArrowException):
        pass
    raise RequestError(
        f"--out {out} exists already, and is not a table of genres that this program wrote: give "
        "another, or delete it"
    )


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as .parquet or .csv; the file is complete or as it was."""
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".csv":
            pa.csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary)
