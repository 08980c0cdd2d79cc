"""The rows of a CSV as people write it: delimiters, headers, quotes, empty and short rows."""

import csv
import io
import random
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.tables.columns import Column
from tests.data.tables.test_file import COLUMNS, read, rows

# --- delimiters and headers ---


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_delimiter_is_the_one_that_gives_the_columns(
    tmp_path: Path, delimiter: str, newline: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline)
    # more commas and semicolons in the cells than there are delimiters
    wanted = [("a, b; c, d.wav", "drum, bass; jungle", "x|y\tz"), ("b.wav", "jazz", "")]
    writer.writerows([("path", "genre", "artist"), *wanted])
    file = read(tmp_path, text.getvalue())
    assert rows(file) == wanted
    assert file.assumed == []


def test_columns_that_are_needed_decide_on_the_delimiter(tmp_path: Path) -> None:
    optional = [Column("artist"), Column("split"), Column("year")]
    file = read(
        tmp_path, "year,artist,split;path;genre\nx,y,z;a.wav;jazz\n", COLUMNS[:2] + optional
    )
    assert rows(file) == [("a.wav", "jazz", "", "", "")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_without_a_name_are_ignored(tmp_path: Path, delimiter: str) -> None:
    lines = [["", "path", "", "genre", ""], ["0", "a.wav", "x", "jazz", ""]]
    text = "\n".join(delimiter.join(cells) for cells in lines)
    assert rows(read(tmp_path, text)) == [("a.wav", "jazz", "")]


def test_excels_line_with_the_delimiter_is_no_header(tmp_path: Path) -> None:
    assert rows(read(tmp_path, "sep=;\r\npath;genre\r\na.wav;rock\r\n")) == [("a.wav", "rock", "")]
    assert rows(read(tmp_path, '"sep=,"\npath,genre\na.wav,rock\n')) == [("a.wav", "rock", "")]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a.wav,jazz\nb.wav,rock\n", "path,genre"),
        ("jazz;a.wav\nrock;b.wav\n", "genre,path"),
        ("music/a.FLAC\tjazz\nmusic/b.FLAC\trock\n", "path,genre"),
    ],
)
def test_two_columns_without_a_header_are_read_where_one_has_songs(
    tmp_path: Path, content: str, names: str
) -> None:
    file = read(tmp_path, content)
    assert [row.cells["genre"] for row in file.rows] == ["jazz", "rock"]
    assert [row.number for row in file.rows] == [1, 2]
    assert file.assumed == [f"it has no header, so its columns count as {names}"]


def test_a_list_of_songs_is_read_where_only_paths_are_needed(tmp_path: Path) -> None:
    assert rows(read(tmp_path, "a, b.wav\nc.wav\n", COLUMNS[:1])) == [("a, b.wav",), ("c.wav",)]


@pytest.mark.parametrize("content", ["a.wav,jazz,Ella\n", "a.wav;a.mp3\n", "\n\na.wav\n"])
def test_other_tables_without_a_header_are_refused_with_what_to_add(
    tmp_path: Path, content: str
) -> None:
    line = 1 + content.index("a")
    with pytest.raises(
        RequestError,
        match=rf"line {line}: .*first line is already a song: 'a\.wav.*'; add a line above it that "
        "names all columns, e.g. path,genre,artist",
    ):
        read(tmp_path, content)


# --- rows ---


def test_empty_rows_trailing_commas_and_short_rows(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        "path,genre,artist,,\na.wav,jazz,Ella,,\n,,,,\n\n  \nb.wav,rock\nc.wav,rock,,,,,,\n",
    )
    assert [(row.number, *row.cells.values()) for row in file.rows] == [
        (2, "a.wav", "jazz", "Ella"),
        (6, "b.wav", "rock", ""),
        (7, "c.wav", "rock", ""),
    ]
    assert file.assumed == [
        "line 6: fewer cells than in the header, so the last ones count as empty"
    ]


def test_a_header_that_is_repeated_is_left_out(tmp_path: Path) -> None:
    file = read(tmp_path, "path,genre\na.wav,jazz\npath,genre\nb.wav,rock\n")
    assert rows(file) == [("a.wav", "jazz", ""), ("b.wav", "rock", "")]
    assert file.assumed == ["line 3: the header again, which is left out"]


def test_a_column_that_is_there_twice_is_one_where_its_cells_agree(tmp_path: Path) -> None:
    file = read(tmp_path, "path,genre,Genre,genre\na.wav,jazz,jazz,\nb.wav,,rock,rock\n")
    assert rows(file) == [("a.wav", "jazz", ""), ("b.wav", "rock", "")]
    with pytest.raises(RequestError, match="line 3: the header has the column genre several times"):
        read(tmp_path, "path,genre,genre\na.wav,jazz,jazz\nb.wav,rock,pop\n")


@pytest.mark.parametrize(
    ("lines", "artists"),
    [
        # opened and never closed: the rest of the file would be one cell
        (['a.wav,x,"Heroes', "b.wav,x,Bowie", "c.wav,x,Low"], ['"Heroes', "Bowie", "Low"]),
        # closed by another stray quote: the row between them would vanish
        (['a.wav,x,"Heroes', "b.wav,x,Bowie", 'c.wav,x,Low"'], ['"Heroes', "Bowie", 'Low"']),
        (['a.wav,x,"Heroes', 'b.wav,x,"Low'], ['"Heroes', '"Low']),
        (['a.wav,x,"Weird Al" Yankovic', "b.wav,x,y"], ['"Weird Al" Yankovic', "y"]),
        (['a.wav,x,The 12" Mix', 'b.wav,x,"7"" Mix"'], ['The 12" Mix', '7" Mix']),
        (['a.wav,"x" ,"Ella" ', '"b.wav" ,x,y'], ["Ella", "y"]),
        (['a.wav,x,"Earth, Wind & Fire"', 'b.wav, "x", "y, z"'], ["Earth, Wind & Fire", "y, z"]),
    ],
)
def test_a_stray_quote_swallows_no_rows(
    tmp_path: Path, lines: list[str], artists: list[str]
) -> None:
    file = read(tmp_path, "\n".join(["path,genre,artist", *lines]) + "\n")
    assert [row.cells["artist"] for row in file.rows] == artists
    assert [row.cells["genre"] for row in file.rows] == ["x"] * len(lines)
    assert all(
        'a " that encloses no cell is taken as part of its text' in one for one in file.assumed
    )


def test_no_row_is_lost_whatever_quotes_are_typed(tmp_path: Path) -> None:
    draw = random.Random(0)
    lines = ["path,genre,title,artist", *(f"{i}.wav,jazz,Low,B. B. {i}" for i in range(12))]
    read_whole, refusals = 0, []
    for _ in range(500):
        text = "\n".join(lines)
        for _ in range(draw.choice([1, 2])):
            place = draw.randrange(len(lines[0]) + 1, len(text))
            text = text[:place] + draw.choice(['"', '""', ',"', '",']) + text[place:]
        try:
            file = read(tmp_path, text)
        except RequestError as error:
            refusals.append(str(error))
            continue
        read_whole += 1
        rows_typed = [line for line in text.splitlines()[1:] if line.strip(' ,"')]
        assert len(file.rows) == len(rows_typed), text
    assert read_whole > 100
    assert all("table.csv, line " in refusal for refusal in refusals)


def test_a_quoted_cell_may_have_several_lines(tmp_path: Path) -> None:
    text = 'path,genre,lyrics\na.wav,pop,"love, love,\nlove\n\nlove"\nb.wav,pop,x\n'
    file = read(tmp_path, text)
    assert [(row.number, row.cells["path"]) for row in file.rows] == [(2, "a.wav"), (6, "b.wav")]
    assert file.assumed == []


def test_a_stray_quote_beside_a_comma_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError,
        match='line 3: a " must enclose a whole cell, .*"Al" Y., Jr..*with each " in it',
    ):
        read(tmp_path, 'path,genre,artist\na.wav,pop,x\nb.wav,pop,"Al" Y., Jr.\n')


def test_an_overlong_cell_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="line 2: not a readable CSV: field larger than field"):
        read(tmp_path, "path,genre\n" + "a" * 200_000 + ",jazz\n")
    with pytest.raises(RequestError, match="its first line is too long for that of a table"):
        read(tmp_path, "a" * 200_000)
