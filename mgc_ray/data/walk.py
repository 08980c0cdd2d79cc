"""Which files of a folder may be songs: one walk for all commands.

Every file is one of three: it may be a song, it is left out with a reason, or it is no audio at all
(pictures, texts, playlists), which is only counted. Whether a file that may be a song is one is
found out when it is decoded.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mgc_ray.data.endings import NO_AUDIO

_HIDDEN = "is hidden: its name, or that of a folder it is in, begins with a dot"


@dataclass(frozen=True)
class Walk:
    """What is below a folder, each sorted by path; `no_audio` counts files by ending."""

    files: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    no_audio: Counter[str] = field(default_factory=Counter)


def walk(folder: Path, depth: float = math.inf) -> Walk:
    """All files below a folder, `depth` folders deep; links are followed, but not in circles."""
    found = Walk()
    for path, reason, hidden in _entries(folder, (_identity(folder),), False, depth):
        ending = path.suffix.lower()
        if reason:
            found.left_out.append((path, reason))
        elif ending in NO_AUDIO or (hidden and not ending) or path.name.startswith("._"):
            found.no_audio[ending or "without an ending"] += 1
        elif hidden:
            found.left_out.append((path, _HIDDEN))
        else:
            found.files.append(path)
    found.files.sort()
    found.left_out.sort()
    return found


def no_audio_in_words(counts: Counter[str]) -> str:
    """E.g. `3 files are no audio (2 .jpg, 1 .txt)`, "" for none."""
    total, kinds = sum(counts.values()), counts.most_common(5)
    listed = ", ".join(f"{count} {ending}" for ending, count in kinds)
    more = ", ..." if len(counts) > len(kinds) else ""
    return f"{total} file{'s are' if total > 1 else ' is'} no audio ({listed}{more})" * bool(total)


def _entries(
    folder: Path, above: tuple[tuple[int, int], ...], hidden: bool, depth: float
) -> Iterator[tuple[Path, str, bool]]:
    """Each file, why it (or a whole folder) is left out if so, and whether it is hidden.

    `above`: the folder's identity and those of the folders that led to it.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield folder, f"this folder cannot be read: {error.strerror}", hidden
        return
    for name in names:
        path = folder / name
        # `...And Justice for All` is a name like any other
        is_hidden = hidden or (name.startswith(".") and not name.startswith(".."))
        if not _is_folder(path):
            yield path, "", is_hidden
        elif (identity := _identity(path)) in above:
            yield path, "is a link to a folder that it is in", is_hidden
        elif depth:
            yield from _entries(path, (*above, identity), is_hidden, depth - 1)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # behind a link that may not be followed
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
