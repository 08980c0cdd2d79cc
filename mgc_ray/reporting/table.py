"""A table of the page."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

_NUMBER = re.compile(r"[\d.,%±†!()–+\- ]+[kM]?")


@dataclass(frozen=True)
class Table:
    """Cells are text; the first of each row is its heading.

    `audio`: for each row a data URI, None where there is no audio. `bar`: the column of
    percentages that are also drawn.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    audio: Sequence[str | None] = ()
    bar: int | None = None

    @cached_property
    def numbers(self) -> list[bool]:
        """Of each column, whether all of its cells are numbers, which are aligned on the right."""
        return [
            all(_NUMBER.fullmatch(row[column]) for row in self.rows)
            for column in range(len(self.head))
        ]


def first_of(shown: int, items: Sequence[object]) -> str:
    """What a caption adds where not all are listed."""
    return f", the first {shown} of them" if len(items) > shown else ""
