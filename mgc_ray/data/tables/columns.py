"""The columns of a table: which are wanted, how their names are recognised, and rows of them.

People call columns differently, and a column may be there twice. Where only one can be meant it is
used; everything else is refused with what to type.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.settings import nearest

FMA = "FMA's tracks.csv"  # with three header lines: group, column, and `track_id`


@dataclass(frozen=True)
class Column:
    """A column that a table must have (`needed`) or may have.

    `also`: other usual names of it. `option`: what the user can type to name it. `given`: the name
    that the user gave.
    """

    name: str
    needed: bool = False
    also: tuple[str, ...] = ()
    option: str = ""
    given: str = ""
    given_needed: bool = True  # whether a table without the given name is refused


@dataclass(frozen=True)
class Row:
    """The cells of a row by column, "" where there are none; `number`: its first line.

    `joined`: whether it had more cells than the header, so that some were taken as one. `other`:
    what else it may say, where a delimiter may be part of a cell and the last cells be left out.
    """

    number: int
    cells: dict[str, str]
    joined: bool = False
    other: dict[str, str] | None = None


@dataclass(frozen=True)
class TableFile:
    """A table: its header, and its rows but for empty ones.

    `kind`: FMA, or "" for an ordinary table. `assumed`: what was assumed to read it, in sentences.
    """

    source: Path
    header: tuple[str, ...]
    rows: list[Row]
    kind: str = ""
    assumed: list[str] = field(default_factory=list)
    unit: str = "line"

    def where(self, number: int) -> str:
        return f"{self.source}, {self.unit} {number}"


class AmbiguousError(Exception):
    """Which column is meant is not clear; the message says what to type."""


def plain_name(name: str) -> str:
    """A column's name without what people write differently: `File Path` and `file_path`."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in folded if letter.isalnum())


def find_columns(columns: Sequence[Column], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Where each column is; at several places where the header has its name several times."""
    plain = [plain_name(name) for name in names]
    found = {}
    for column in columns:
        exact = tuple(i for i, name in enumerate(names) if name and name == column.given)
        for candidates in ((column.given,), (column.name,), column.also):
            wanted = {plain_name(one) for one in candidates} - {""}
            places = exact or tuple(i for i, name in enumerate(plain) if name in wanted)
            if len({plain[i] for i in places}) > 1:
                which = " and ".join(repr(names[i]) for i in places)
                raise AmbiguousError(
                    f"the columns {which} may both be the {column.name}: say which by "
                    f"{column.option}, or rename one to {column.name}"
                )
            if places:
                found[column.name] = places
                break
            if column.given and column.given_needed:
                break  # nothing else is what the user means
    return found


def check_found(
    source: Path,
    columns: Sequence[Column],
    names: Sequence[str],
    found: dict[str, tuple[int, ...]],
    first: str,
) -> None:
    """Refuse a table without the columns that are needed or that the user gave."""
    for column in columns:
        if column.given and column.given_needed and column.name not in found:
            raise RequestError(
                f"{column.option.removesuffix(' NAME')} {column.given}: {source} has no such column"
                f"{nearest(column.given, names)}; its columns are {_listed(names)}"
            )
    missing = [column for column in columns if column.needed and column.name not in found]
    if missing:
        needed = [column.name for column in columns if column.needed]
        optional = ", ".join(column.name for column in columns if not column.needed)
        options = " ".join(column.option for column in missing)
        raise RequestError(
            f"{source}: this table needs the column{'s' * (len(needed) > 1)} "
            f"{' and '.join(needed)}{f' (and may have {optional})' if optional else ''}, but "
            f"{' and '.join(column.name for column in missing)} is missing from its first line: "
            f"{first[:200]!r}; correct that line, or name the column by {options}"
        )


def _listed(names: Iterable[str]) -> str:
    named = [name for name in names if name]
    return ", ".join(named[:30]) + (", ..." if len(named) > 30 else "")


def names_in_words(
    columns: Sequence[Column], names: Sequence[str], found: dict[str, tuple[int, ...]]
) -> list[str]:
    """Which columns were found by another name than their own, where the user did not give it."""
    other = [
        f"{names[found[c.name][0]]!r} as the {c.name}"
        for c in columns
        if c.name in found
        and plain_name(names[found[c.name][0]]) not in (plain_name(c.name), plain_name(c.given))
    ]
    return [f"takes the column {', '.join(other)}"] if other else []


def cells_of_row(
    found: dict[str, tuple[int, ...]],
    columns: Sequence[Column],
    cells: Sequence[str] | dict[int, str],
) -> dict[str, str] | str:
    """The cells by column; the name of a column that has two different cells."""
    row = {}
    for column in columns:
        places = found.get(column.name, ())
        if len(places) < 2:
            row[column.name] = cells[places[0]].strip() if places else ""
            continue
        values = {cell: None for place in places if (cell := cells[place].strip())}
        if len(values) > 1:
            return column.name
        row[column.name] = next(iter(values), "")
    return row
