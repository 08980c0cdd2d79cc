"""Table files as people have them: CSV in any usual encoding, and Parquet.

A file that can be read in one way only is read in that way, and `assumed` says what was assumed;
everything else is refused with its line and what to type. What the cells mean is said in tracks.py.
"""

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.data.tables.columns import (
    AmbiguousError,
    Column,
    Row,
    TableFile,
    cells_of_row,
    check_found,
    find_columns,
    names_in_words,
)
from mgc_ray.data.tables.csv_text import read_csv_text

_BYTE_ORDER_MARKS = (  # UTF-32's begins as UTF-16's
    *((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_SAVE = "save it as CSV with the encoding UTF-8"
_OTHER_FORMATS = {  # what a file begins with -> what it is, and the remedy
    b"PK\x03\x04": ("a spreadsheet (.xlsx, .ods) or a ZIP file", _SAVE),
    b"\xd0\xcf\x11\xe0": ("an Excel file", _SAVE),
    b"\x1f\x8b": ("compressed", "unpack it by gunzip"),
    b"SQLite format 3": ("a database", "export its table as CSV"),
}


def read_table_file(source: Path, columns: Sequence[Column]) -> TableFile:
    """Read the `columns` of a CSV or Parquet file; RequestError for what is no such table."""
    try:
        data = source.read_bytes()
    except OSError as error:
        raise RequestError(f"{source} cannot be read: {error.strerror}") from None
    if data.startswith(b"PAR1"):
        return _read_parquet(source, columns)
    for start, (what, remedy) in _OTHER_FORMATS.items():
        if data.startswith(start):
            raise RequestError(f"{source} must be a CSV or Parquet file, but is {what}: {remedy}")
    if re.match(rb"\s*[\[{]\s*[\"\[{]", data):
        raise RequestError(f"{source} must be a CSV or Parquet file, but is JSON: write it as CSV")
    text, assumed = _decoded(source, data)
    del data
    return read_csv_text(source, text, columns, assumed)


# ---- encoding ----


def _decoded(source: Path, data: bytes) -> tuple[str, list[str]]:
    """The text, and what was assumed; RequestError for NUL bytes and for a mixture."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return _without_nul(source, data.decode(encoding)), []
            except UnicodeDecodeError as error:
                raise RequestError(
                    f"{source} begins as text in {encoding.removesuffix('-sig').upper()}, but "
                    f"byte {error.start} is none ({error.reason}): {_SAVE}"
                ) from None
    try:
        return _without_nul(source, data.decode("utf-8")), []
    except UnicodeDecodeError as error:
        where = f"{source}, line {_line_of(data[: error.start].decode('utf-8'))}"
        _without_nul(source, data.decode("latin-1"))
        wrong = data[error.start : error.start + 1]
    if re.search(r"[^\0-\x7f\udc80-\udcff]", data.decode("utf-8", "surrogateescape")):
        raise RequestError(
            f"{where}: a table must have one encoding, but other lines are UTF-8 and the byte "
            f"{wrong!r} is not: correct this line, or {_SAVE}"
        )
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        raise RequestError(
            f"{where}: a table must be UTF-8 (or UTF-16 or Windows-1252) text, but the byte "
            f"{wrong!r} is not: {_SAVE}"
        ) from None
    example = re.search(r"[^\s,;|]*[^\0-\x7f][^\s,;|]*", text)
    assert example
    line = _line_of(text[: example.start()])
    return text, [
        f"not UTF-8, so read as Windows-1252 (cp1252), e.g. {example[0]!r} in line {line}; if that "
        f"is wrong, {_SAVE}"
    ]


def _without_nul(source: Path, text: str) -> str:
    if "\0" in text:
        raise RequestError(
            f"{source}, line {_line_of(text[: text.index(chr(0))])}: a table is text, but there is "
            f"a NUL byte: give another file, or {_SAVE}"
        )
    return text


def _line_of(text: str) -> int:
    """The number of the line that follows a text."""
    return 1 + len(re.findall(r"\r\n|\r|\n", text))


# ---- Parquet ----


def _read_parquet(source: Path, columns: Sequence[Column]) -> TableFile:
    """Read the columns of a Parquet file; its rows are counted from 1."""
    import pyarrow as pa  # takes a fifth of a second, which most requests do not need
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source) as file:
            schema = file.schema_arrow
            names = list(schema.names)
            try:
                found = find_columns(columns, names)
            except AmbiguousError as error:
                raise RequestError(f"{source}: {error}") from None
            check_found(source, columns, names, found, ",".join(names))
            read = {}
            for column, places in found.items():
                for place in places:
                    _check_type(source, column, names[place], str(schema.types[place]))
                    if names.count(names[place]) > 1:
                        raise RequestError(f"{source} has the column {names[place]!r} twice")
                    cells = file.read(columns=[names[place]]).column(0)
                    read[place] = [_as_text(cell) for cell in cells.to_pylist()]
                    if any("\0" in cell for cell in read[place]):
                        raise RequestError(f"{source}: the column {names[place]!r} has NUL bytes")
            counts = {len(cells) for cells in read.values()}
            if len(counts) > 1:
                raise ValueError("its columns have different lengths")
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(
            f"{source} is not a readable Parquet file: {' '.join(str(error).split())[:300]}"
        ) from None
    rows = []
    for i in range(counts.pop()):
        row = cells_of_row(found, columns, {place: cells[i] for place, cells in read.items()})
        if isinstance(row, str):
            raise RequestError(
                f"{source}, row {i + 1}: there are several columns {row}, and they differ: delete "
                "or rename one of them"
            )
        if any(row.values()):
            rows.append(Row(i + 1, row))
    assumed = names_in_words(columns, names, found)
    return TableFile(source, tuple(names), rows, assumed=assumed, unit="row")


def _check_type(source: Path, column: str, name: str, kind: str) -> None:
    """`kind`: the type in Arrow's words, e.g. `list<element: string>`."""
    nested = "<" in kind and not kind.startswith("dictionary<")
    if nested or "binary" in kind:
        raise RequestError(
            f"{source}: the {column} must be text, but the column {name!r} holds {kind[:60]}: "
            "write a column of texts"
        )


def _as_text(cell: object) -> str:
    if cell is None or cell != cell:  # NaN
        return ""
    return str(cell).strip()
