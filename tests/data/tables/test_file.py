"""Table files in usual encodings, and Parquet: what is read, assumed and refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgc_ray import RequestError
from mgc_ray.data.tables.columns import Column, TableFile
from mgc_ray.data.tables.file import read_table_file

COLUMNS = [
    Column("path", needed=True, option="--path-column NAME"),
    Column("genre", needed=True, also=("label", "class"), option="--genre-column NAME"),
    Column("artist", option="the setting artist_column"),
]


def read(folder: Path, content: str | bytes, columns: list[Column] = COLUMNS) -> TableFile:
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table_file(path, columns)


def rows(file: TableFile) -> list[tuple[str, ...]]:
    return [tuple(row.cells.values()) for row in file.rows]


# --- encodings ---

TABLE = "path,genre,artist\na.wav,chanson,Édith Piaf\n"
PIAF = [("a.wav", "chanson", "Édith Piaf")]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark", "utf-32", "cp1252"]
)
def test_usual_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    if encoding == "utf-16-be-mark":
        content = b"\xfe\xff" + TABLE.encode("utf-16-be")
    else:
        content = TABLE.encode(encoding)
    file = read(tmp_path, content)
    assert rows(file) == PIAF
    assert file.assumed == (
        [
            "not UTF-8, so read as Windows-1252 (cp1252), e.g. 'Édith' in line 2; if that is "
            "wrong, save it as CSV with the encoding UTF-8"
        ]
        if encoding == "cp1252"
        else []
    )


def test_excels_unicode_text_is_read(tmp_path: Path) -> None:
    content = TABLE.replace(",", "\t").replace("\n", "\r\n").encode("utf-16")
    assert rows(read(tmp_path, content)) == PIAF


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "path,genre\nÉ.wav,jazz\nb.wav,caf".encode() + b"\xe9\n",
            r"line 3: a table must have one encoding, but other lines are UTF-8 and the byte "
            r"b'\\xe9' is not: correct this line",
        ),
        (
            b"path,genre\r\n\r\n\x81.wav,jazz\r\n",
            r"line 3: a table must be UTF-8 \(or .*\) text, but the byte b'\\x81' is not: save",
        ),
        (
            b"path,genre\na.wav,ja\0zz\n",
            "line 2: a table is text, but there is a NUL byte: give an",
        ),
        (b"path,genre\na\xe9.wav,ja\0zz\n", "line 2: a table is text, but there is a NUL byte"),
        ("path,genre\n".encode("utf-16-le"), "line 1: a table is text, but there is a NUL byte"),
        ("path,genre\na\0.wav,x\n".encode("utf-16"), "line 2: a table is text, but there is a NUL"),
        (b"\xff\xfep\0a\0t", "begins as text in UTF-16, but byte 6 is none .*truncated"),
        (
            b"PK\x03\x04\x14\0",
            "is a spreadsheet .* or a ZIP file: save it as CSV with the encoding",
        ),
        (b"\x1f\x8b\x08\0", "is compressed: unpack it by gunzip"),
        (b'[{"path": "a.wav"}]', "must be a CSV or Parquet file, but is JSON: write it as CSV"),
        (b"PAR1 and so on", "is not a readable Parquet file: "),
    ],
)
def test_what_is_no_text_is_refused_with_the_line_and_the_remedy(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        read(tmp_path, content)


# --- Parquet ---


def parquet(folder: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), folder / "table.parquet")
    return folder / "table.parquet"


def test_a_parquet_table_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    labels = pa.array(["jazz", "rock", None, None]).dictionary_encode()
    path = parquet(tmp_path, Path=[" a.wav", "b.wav", "c.wav", None], label=labels, n=[1, 2, 3, 4])
    path.rename(tmp_path / "table")
    file = read_table_file(tmp_path / "table", COLUMNS)
    assert [(row.number, *row.cells.values()) for row in file.rows] == [
        (1, "a.wav", "jazz", ""),
        (2, "b.wav", "rock", ""),
        (3, "c.wav", "", ""),
    ]
    assert file.where(3) == f"{tmp_path / 'table'}, row 3"
    assert file.assumed == ["takes the column 'label' as the genre"]


def test_numbers_in_a_parquet_table_are_text(tmp_path: Path) -> None:
    path = parquet(tmp_path, path=["a.wav", "b.wav"], genre=[3, 4], artist=[1.5, float("nan")])
    assert rows(read_table_file(path, COLUMNS)) == [("a.wav", "3", "1.5"), ("b.wav", "4", "")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": [["a.wav"]], "genre": ["x"]}, "the path must be text, but .* holds list<"),
        ({"path": [b"a.wav"], "genre": ["x"]}, "the path must be text, but .* holds binary"),
        ({"path": ["a\0.wav"], "genre": ["x"]}, "the column 'path' has NUL bytes"),
        (
            {"song": ["a.wav"], "genre": ["x"]},
            "path is missing .*name the column by --path-column NAME",
        ),
        (
            {"path": ["a"], "genre": ["x"], "Genre": ["y"]},
            "row 1: .* several columns genre, and the",
        ),
    ],
)
def test_other_parquet_tables_are_refused(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        read_table_file(parquet(tmp_path, **columns), COLUMNS)
