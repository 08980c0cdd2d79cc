"""The rows of a CSV: delimiter, header and quotes as people and programs write them.

The delimiter is the one that gives the columns that are needed. A cell that is not quoted as it
should be is read where that is clear; it never swallows other rows, and is never cut off.
"""

import contextlib
import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mgc_ray import RequestError
from mgc_ray.data.endings import SONGS
from mgc_ray.data.tables.columns import (
    FMA,
    AmbiguousError,
    Column,
    Row,
    TableFile,
    cells_of_row,
    check_found,
    find_columns,
    names_in_words,
)

_DELIMITERS = (",", ";", "\t", "|")
_LOOKED_AT = 1000  # lines, to see whether the paths of a table have endings


def read_csv_text(
    source: Path, text: str, columns: Sequence[Column], assumed: Sequence[str]
) -> TableFile:
    """Read the `columns` of a CSV's text; `assumed`: what was assumed to decode it.

    Raises RequestError for what is no such table.
    """
    return _CsvReader(source, text, columns, list(assumed)).read()


def too_many_cells(where: str) -> RequestError:
    """The refusal of a row of which it is not clear which cell holds a delimiter."""
    return RequestError(
        f"{where}: the row has more cells than the header, and it is not clear which of them holds "
        'the delimiter: enclose that cell in ", e.g. "Earth, Wind & Fire"'
    )


def one_cell_or_two(where: str, cell: str) -> RequestError:
    """The refusal of a row in which a delimiter may be part of a cell."""
    return RequestError(
        f'{where}: it is not clear whether {cell!r} is one cell or two: enclose it in ", e.g. '
        '"Earth, Wind & Fire", or remove the space'
    )


class _Record(NamedTuple):
    """A row as it was parsed: `number` of its first line, `end`: the index of the line after it.

    `literal`: whether a stray `"` in it was taken as text.
    """

    number: int
    end: int
    cells: list[str]
    literal: bool = False


@dataclass(frozen=True)
class _Header:
    """`start`: the index of the line after it; `spaced`: whether its delimiters have spaces."""

    delimiter: str
    names: list[str]
    found: dict[str, tuple[int, ...]]
    start: int
    kind: str = ""
    spaced: bool = False


class _CsvReader:
    def __init__(
        self, source: Path, text: str, columns: Sequence[Column], assumed: list[str]
    ) -> None:
        self._source = source
        self._columns = columns
        self._assumed = assumed
        self._lines = list(io.StringIO(text, newline=""))

    def read(self) -> TableFile:
        header = self._header()
        self._assumed += names_in_words(self._columns, header.names, header.found)
        rows: list[Row] = []
        loose: list[tuple[int, list[int]]] = []  # rows with spaces after delimiters, and which
        notes: dict[str, list[int]] = defaultdict(list)  # what was assumed -> of which lines
        width, example = len(header.names), ""
        for number, _, cells, literal in self._records(header):
            while len(cells) > width and not cells[-1].strip():
                cells.pop()
            if not any(cell.strip() for cell in cells):
                continue
            if [cell.strip() for cell in cells] == header.names:
                notes["the header again, which is left out"].append(number)
                continue
            joined = len(cells) > width
            if joined and literal:
                raise self._stray(number)
            if joined:
                cells, whole = self._joined(number, cells, header)
                example = example or whole
                notes[f"more cells than in the header, so {example!r} is taken as one"] += [number]
            elif literal:
                notes['a " that encloses no cell is taken as part of its text'].append(number)
            elif len(cells) < width:
                notes["fewer cells than in the header, so the last ones count as empty"] += [number]
            if not joined and (places := self._spaces(number, cells, header)):
                loose.append((len(rows), places))
            cells += [""] * (width - len(cells))
            rows.append(self._row(number, cells, header, joined))
        self._read_otherwise(rows, loose, header)
        self._assumed += [f"{_lines_in_words(lines)}: {note}" for note, lines in notes.items()]
        names = tuple(header.names)
        return TableFile(self._source, names, rows, header.kind, self._assumed)

    def _header(self) -> _Header:
        """The header with the delimiter that gives the columns that are needed."""
        start, delimiters = self._start()
        headers, ambiguous = [], None
        for delimiter in delimiters:
            try:
                headers.append(self._header_by(delimiter, start))
            except AmbiguousError as error:
                ambiguous = error
            except csv.Error:  # a very long line, which another delimiter may split
                continue
        needed = [column.name for column in self._columns if column.needed]
        best = max(
            headers,
            key=lambda header: (
                sum(name in header.found for name in needed),
                len(header.found),
                len(header.names),
            ),
            default=None,
        )
        complete = best is not None and all(name in best.found for name in needed)
        if ambiguous and not complete:
            raise RequestError(f"{self._source}: {ambiguous}")
        if best is None:
            raise RequestError(f"{self._source}: its first line is too long for that of a table")
        if not complete and not any(column.given for column in self._columns):
            best = self._without_header(start, delimiters) or best
        first = self._lines[start].strip() if start < len(self._lines) else ""
        check_found(self._source, self._columns, best.names, best.found, first)
        return best

    def _start(self) -> tuple[int, Sequence[str]]:
        """The index of the first line that is not empty, and the delimiters that there may be.

        Excel begins some files with `sep=;`.
        """
        start = next((i for i, line in enumerate(self._lines) if line.strip()), len(self._lines))
        if start < len(self._lines):
            line = self._lines[start].strip(" \r\n")
            if stated := re.fullmatch(r'"?sep=([,;|\t])"?', line, re.IGNORECASE):
                return start + 1, [stated[1]]
        return start, list(_DELIMITERS)

    def _header_by(self, delimiter: str, start: int) -> _Header:
        names, end = self._record(start, delimiter)
        if fma := self._fma_header(names, end, delimiter):
            return fma
        while names and not names[-1]:
            names.pop()
        spaced = end > 0 and f"{delimiter} " in self._lines[end - 1].rstrip()
        return _Header(delimiter, names, find_columns(self._columns, names), end, spaced=spaced)

    def _fma_header(self, groups: list[str], second: int, delimiter: str) -> _Header | None:
        """The header of FMA's tracks.csv as GROUP.COLUMN; the path there is the track's number."""
        if groups[:1] != [""] or "track" not in groups:
            return None
        names, third = self._record(second, delimiter)
        last, end = self._record(third, delimiter)
        if "genre_top" not in names or last[:1] != ["track_id"]:
            return None
        merged = [f"{group}.{name}" for group, name in zip(groups, names, strict=False)]
        merged[0] = "path"
        return _Header(delimiter, merged, find_columns(self._columns, merged), end, FMA)

    def _record(self, start: int, delimiter: str) -> tuple[list[str], int]:
        """The stripped cells from a line on, and the index of the line after them."""
        for record in _records(self._lines, start, delimiter, lambda _: False):
            if record.cells:
                return [cell.strip() for cell in record.cells], record.end
        return [], len(self._lines)

    def _without_header(self, start: int, delimiters: Sequence[str]) -> _Header | None:
        """The header that a table lacks whose first line has one song, and the genre if needed.

        Refused where that is not clear; None where the first line has no song.
        """
        needed = [column.name for column in self._columns if column.needed]
        if "path" not in needed or start >= len(self._lines):
            return None
        songs = {}
        for delimiter in delimiters:
            with contextlib.suppress(csv.Error):
                cells, _ = self._record(start, delimiter)
                places = [i for i, cell in enumerate(cells) if _is_song(cell)]
                songs[delimiter] = (places, len(cells))
        for delimiter, (places, width) in songs.items():
            if width == len(needed) and len(places) == 1:
                names = [name for name in needed if name != "path"]
                names.insert(places[0], "path")
                self._assumed.append(f"it has no header, so its columns count as {','.join(names)}")
                return _Header(delimiter, names, {n: (i,) for i, n in enumerate(names)}, start)
        if any(places for places, _ in songs.values()):
            raise RequestError(
                f"{self._source}, line {start + 1}: a table begins with the names of its columns, "
                f"but its first line is already a song: {self._lines[start].strip()[:200]!r}; add "
                f"a line above it that names all columns, e.g. {','.join(needed)},artist"
            )
        return None

    def _records(self, header: _Header) -> Iterator[_Record]:
        place = header.found["path"][0] if "path" in header.found else None

        def cells_of(line: str) -> list[str]:
            try:
                return _split(line, header.delimiter)
            except csv.Error:  # too long
                return []

        def is_song(line: str) -> bool:
            cells = cells_of(line)
            return place is not None and place < len(cells) and _is_song(cells[place])

        start = self._lines[header.start : header.start + _LOOKED_AT]
        has_songs = 2 * sum(map(is_song, start)) > len(start)

        def are_rows(lines: Sequence[str]) -> bool:
            if has_songs:
                return any(map(is_song, lines))
            return all(len(cells_of(line)) == len(header.names) for line in lines)

        last = header.start
        try:
            for record in _records(self._lines, header.start, header.delimiter, are_rows):
                yield record
                last = record.end
        except csv.Error as error:
            raise RequestError(
                f"{self._source}, line {last + 1}: not a readable CSV: {error}"
            ) from None

    def _row(self, number: int, cells: list[str], header: _Header, joined: bool) -> Row:
        row = cells_of_row(header.found, self._columns, cells)
        if isinstance(row, str):
            raise RequestError(
                f"{self._source}, line {number}: the header has the column {row} several times, "
                "and the cells differ: delete or rename one of the columns"
            )
        return Row(number, row, joined)

    def _joined(self, number: int, cells: list[str], header: _Header) -> tuple[list[str], str]:
        """The cells of a row that has too many, as a delimiter in a cell is not quoted; that cell.

        That is clear where there is one column, and where those delimiters are followed by a space,
        as in "Earth, Wind & Fire", and no other is.
        """
        single = len(header.names) == 1
        exact = self._exact(number, cells, header)
        places = range(1, len(exact)) if single else self._spaces(number, cells, header)
        if len(places) != len(cells) - len(header.names):
            raise too_many_cells(f"{self._source}, line {number}")
        whole = _join(exact, places, header.delimiter)
        return whole, max(whole, key=lambda cell: cell.count(header.delimiter)).strip()

    def _exact(self, number: int, cells: list[str], header: _Header) -> list[str]:
        """The cells with the spaces around them; [] where they are quoted."""
        exact = _split(self._lines[number - 1].rstrip("\r\n"), header.delimiter)[: len(cells)]
        same = [cell.strip() for cell in exact] == [cell.strip() for cell in cells]
        return exact if same else []

    def _spaces(self, number: int, cells: list[str], header: _Header) -> list[int]:
        """The cells that begin with a space, where the header has no such spaces."""
        if header.spaced or f"{header.delimiter} " not in self._lines[number - 1]:
            return []
        exact = self._exact(number, cells, header)
        return [i for i, cell in enumerate(exact) if i and cell.startswith(" ") and cell.strip()]

    def _read_otherwise(
        self, rows: list[Row], loose: Sequence[tuple[int, list[int]]], header: _Header
    ) -> None:
        """Give rows their `other` cells; not for spaces that most rows have at that place."""
        counts = Counter(place for _, places in loose for place in places)
        for i, places in loose:
            rare = [place for place in places if 2 * counts[place] <= len(rows)]
            exact = _split(self._lines[rows[i].number - 1].rstrip("\r\n"), header.delimiter)
            cells = _join(exact, rare, header.delimiter)
            cells += [""] * (len(header.names) - len(cells))
            other = cells_of_row(header.found, self._columns, cells)
            if rare and not isinstance(other, str):
                rows[i] = replace(rows[i], other=other)

    def _stray(self, number: int) -> RequestError:
        return RequestError(
            f'{self._source}, line {number}: a " must enclose a whole cell, but there is another: '
            f'{self._lines[number - 1].strip()[:200]!r}; write the cell as "..." with each " in it '
            'doubled, e.g. """Weird Al"" Yankovic"'
        )


def _records(
    lines: Sequence[str], start: int, delimiter: str, are_rows: Callable[[Sequence[str]], bool]
) -> Iterator[_Record]:
    """The rows from a line on.

    A `"` is text where it encloses no cell, also where it would only end in a later line and
    swallow lines that `are_rows`. Otherwise a cell may hold line breaks.
    """
    while start < len(lines):
        reader = csv.reader(
            (lines[i] for i in range(start, len(lines))),
            delimiter=delimiter,
            skipinitialspace=True,
            strict=True,
        )
        begin = start
        try:
            for cells in reader:
                end = start + reader.line_num
                if end > begin + 1 and are_rows(lines[begin + 1 : end]):
                    break
                yield _Record(begin + 1, end, cells)
                begin = end
            else:
                return
        except csv.Error:
            pass
        start = begin + 1
        yield _Record(start, start, *_literal(lines[begin], delimiter))


def _join(cells: Sequence[str], places: Sequence[int], delimiter: str) -> list[str]:
    """Join the cells at some places, of which 0 is none, with those before them."""
    joined: list[str] = []
    for i, cell in enumerate(cells):
        if i in places:
            joined[-1] += delimiter + cell
        else:
            joined.append(cell)
    return joined


def _literal(line: str, delimiter: str) -> tuple[list[str], bool]:
    """The cells of a line whose quotes are not those of a CSV, and whether they are now text."""
    with_spaces = re.sub(rf'" +(?={re.escape(delimiter)}|[\r\n]*$)', '"', line)
    try:
        reader = csv.reader([with_spaces], delimiter=delimiter, skipinitialspace=True, strict=True)
        return next(reader, []), False
    except csv.Error:
        return [cell.lstrip(" ") for cell in _split(line, delimiter)], True


def _split(line: str, delimiter: str) -> list[str]:
    """The cells of a line, in which a `"` is text."""
    return next(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE), [])


def _is_song(cell: str) -> bool:
    return Path(cell.strip()).suffix.lower() in SONGS


def _lines_in_words(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
    return f"line {numbers[0]}{more}"
