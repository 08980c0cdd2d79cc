"""Files that may come from a stranger: what they name stays inside, what they take is bounded.

Models, datasets and searches are folders that people pass on. Before one is read, `check_folder`
makes sure that nothing in it leads out of it or never ends. JSON, arrays and tables are read here,
with a limit that holds before memory is taken.
"""

import io
import json
import os
import stat
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from mgc_ray import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST = 1 << 29  # bytes that an array or a table may take; more only where its file is large
_RATIO = 20  # bytes of it for each byte of its file
_LARGEST_TEXT = 1 << 26  # bytes of a JSON file; the largest that this program writes have a few MB
_DEEPEST = 64  # JSON in JSON; this program writes six levels
_ROWS = 256  # of a table that are decoded at a time


def check_folder(folder: Path, marker: str) -> None:
    """Raise RequestError where a folder holds what leads out of it, or is no file.

    A link would make the program read, copy or delete something else on this machine; a pipe or
    device would make it wait for ever. The folder itself may be a link: the user gave it. One that
    lacks the file `marker` is not what is meant: whoever reads that file next says so.
    """
    if not os.path.lexists(folder / marker):
        return
    root = os.path.realpath(folder)
    for place, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            try:
                kind = os.lstat(path).st_mode
            except OSError:  # deleted since, by whoever is writing here
                continue
            if stat.S_ISLNK(kind) and not _is_below(os.path.realpath(path), root):
                wrong = f"a link to {os.readlink(path)}, outside of it"
            elif not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
                wrong = "neither a file nor a folder"
            else:
                continue
            raise RequestError(
                f"{folder} must hold files and folders, but {os.path.relpath(path, root)} in it is "
                f"{wrong}: delete it, or put the file that is meant in its place"
            )


def _is_below(path: str, root: str) -> bool:
    return path != root and os.path.commonpath([path, root]) == root


def leads_out(name: object) -> bool:
    """Whether what a file names as a path below a folder is none, or is not below it."""
    return (
        not isinstance(name, str) or os.path.isabs(name) or "\0" in name or ".." in name.split("/")
    )


def check_regular(path: Path, most: int | None = None) -> None:
    """Raise OSError for a pipe, a device or a folder, and for a file of more than `most` bytes."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a file")
    if most is not None and status.st_size > most:
        raise OSError(f"it has {status.st_size >> 20} MiB, more than {most >> 20}")


# ---- JSON ----


def read_text(path: Path) -> str:
    """The text of a file of ours; OSError for one that is too large or no file."""
    check_regular(path, _LARGEST_TEXT)
    return path.read_text("utf-8")


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds; ValueError for any other, and for one that is nested too deeply.

    Python's own reader takes hundreds of levels, and what walks through them afterwards may not.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {_DEEPEST} levels deep") from None
    level = [content]
    for _ in range(_DEEPEST):
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return content
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
    raise ValueError(f"nested more than {_DEEPEST} levels deep")


# ---- arrays and tables ----


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`, by name; ValueError for what is none, is damaged or too large."""
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as file:
            check_size(sum(entry.file_size for entry in file.infolist()), path)
            return {
                entry.filename.removesuffix(".npy"): _array(file.read(entry))
                for entry in file.infolist()
            }
    except FileNotFoundError:
        raise
    except Exception as error:  # of zip, of its compression, of NumPy's header: a dozen kinds
        raise ValueError(f"{path} is damaged: {str(error) or type(error).__name__}") from None


def check_size(size: int, path: Path) -> None:
    """Raise OSError where what a file holds would take too many bytes, for a file of its size."""
    if size > max(LARGEST, _RATIO * os.path.getsize(path)):
        raise OSError(f"it would take more than {LARGEST >> 20} MiB")


def _array(content: bytes) -> np.ndarray:
    return read_npy(io.BytesIO(content))


def read_npy(file: BinaryIO) -> np.ndarray:
    """The array of a `.npy`; many kinds of errors where it is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that Python 2 has written its header
        return np.lib.format.read_array(file, allow_pickle=False)


def read_table(path: Path, columns: Sequence[str] | None = None) -> "pa.Table":
    """A Parquet table; OSError or pyarrow's own errors for what is none, is damaged or too large.

    It is decoded a few rows at a time, as a few kilobytes may stand for any number of rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_regular(path)
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            check_size(file.metadata.row_group(number).total_byte_size, path)
        batches, size = [], 0
        for batch in file.iter_batches(_ROWS, columns=columns):
            size += batch.nbytes
            check_size(size, path)
            batches.append(batch)
        schema = file.schema_arrow
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns], schema.metadata)
    return pa.Table.from_batches(batches, schema) if batches else schema.empty_table()
