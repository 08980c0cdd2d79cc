"""Names of files, genres and artists, which may hold anything, as text to store and to show.

A file's name is bytes on Linux: Python reads those that are not UTF-8 as lone surrogates, which no
file or terminal in UTF-8 takes. A name may also hold line breaks and terminal escape sequences.
"""

import re
from pathlib import Path
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")  # that is not UTF-8, as text
FORMULA = r"'*[=+\-@\t\r]"  # how text begins that a spreadsheet runs, or that was marked
_FORMULA = re.compile(FORMULA)
# control characters, line separators, and what reverses the direction of the text that follows
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def as_text(name: str | Path) -> str:
    """A name as UTF-8 text; bytes that are not UTF-8 as \\xNN."""
    return _SURROGATE.sub(_escaped, str(name))


def from_text(text: str) -> str:
    """What `as_text` was made from, as far as text can say: it may have had \\xNN itself."""
    return _BYTE.sub(lambda match: chr(0xDC00 + int(match[1], 16)), text)


def is_utf8(name: str | Path) -> bool:
    """Whether a file, e.g. Parquet, can hold a name as it is."""
    return not _SURROGATE.search(str(name))


def one_line(text: str | Path) -> str:
    """Text with names in it as one line that any terminal shows: control characters escaped."""
    return _CONTROL.sub(_escaped, as_text(text))


def for_terminal(text: str) -> str:
    """The same, with the line breaks that it has."""
    return "\n".join(map(one_line, text.split("\n")))


def to_cell(value: Any) -> Any:
    """A value for a CSV; text that a spreadsheet would run as a formula begins with a '."""
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    return value


def from_cell(text: str) -> str:
    """What `to_cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escaped(character: re.Match[str]) -> str:
    code = ord(character[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python reads a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character[0].encode("unicode_escape").decode()
