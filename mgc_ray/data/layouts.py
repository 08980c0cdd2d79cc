"""How a folder of music is laid out: which of the folders above a song say its genre and its part.

ROOT/GENRE/... is what is expected. Other layouts are recognised where they can mean one thing only,
with a note that says what is assumed: the genres one folder lower, a split in folders called train,
valid and test. Folders that are no genres, or may be genres or not, are refused with what to type.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

from mgc_ray import RequestError
from mgc_ray.data.endings import SONGS
from mgc_ray.data.genres import is_known, known, mostly_known, spelling_key
from mgc_ray.data.names import as_text, is_utf8
from mgc_ray.data.split.words import PARTS, WORDS, part_words
from mgc_ray.data.walk import walk

# Whose subfolders are genres: GTZAN as it is downloaded from Kaggle, and as it was published.
_OF_GENRES = ("genres_original", "genres")
# What holds music and is no genre itself. What lies below may be genres, artists or anything.
_CONTAINERS = (
    *("aac", "aiff", "archive", "au", "audio", "clips", "data", "dataset", "download", "downloads"),
    *("features", "files", "flac", "lossless", "lossy", "m4a", "media", "mp3", "music", "npy"),
    *("ogg", "originals", "raw", "samples", "songs", "tracks", "wav", "wma"),
)
_NUMBERED = re.compile(r"(fold|part|split|batch|chunk|cd|disc|disk|vol|volume)\d+")
_TABLE = "give a table of the columns path,genre (--tracks songs.csv)"
_LISTED = 12  # names in a message, at most


@dataclass(frozen=True)
class Layout:
    """Where in ROOT/A/B/... a song's genre and part are; None where no folder says it.

    `parts`: the part of each folder's name. `levels`: how many folders below `root` say something;
    those below may be artists and albums.
    """

    root: Path
    genre: int | None = 0
    part: int | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def levels(self) -> int:
        return sum(level is not None for level in (self.genre, self.part))

    def place(self, path: Path) -> tuple[str, str] | None:
        """Genre and part of a file, None for one that is outside of the genres' folders."""
        if not path.is_relative_to(self.root):
            return None
        *folders, _ = path.relative_to(self.root).parts
        if self.genre is not None and len(folders) <= self.genre:
            return None
        genre = "" if self.genre is None else folders[self.genre]
        if self.part is None or len(folders) <= self.part:
            return genre, ""
        part = self.parts.get(folders[self.part], "")
        return (genre, part) if part or self.part > 0 else None


class _Folder:
    """A folder by what may be songs in it: subfolders by name, and names of files."""

    def __init__(self) -> None:
        self.folders: dict[str, _Folder] = {}
        self.files: list[str] = []

    @staticmethod
    def of(root: Path, paths: Iterable[Path]) -> "_Folder":
        found = _Folder()
        for path in paths:
            *folders, name = path.relative_to(root).parts
            node = found
            for folder in folders:
                node = node.folders.setdefault(folder, _Folder())
            node.files.append(name)
        return found

    @property
    def count(self) -> int:
        """Files at any depth."""
        return len(self.files) + sum(folder.count for folder in self.folders.values())


def find_layout(source: Path, files: Sequence[Path]) -> Layout:
    """The layout of a labelled folder, of which `files` may be songs.

    Raises RequestError for one that holds no genres, or may be read in several ways.
    """
    songs = [path for path in files if path.suffix.lower() in SONGS]
    top = _Folder.of(source, songs or files)  # not by a LICENSE or what else lies about
    root, folder = _genres_below(source, top)
    note = "" if root == source else f"--tracks {source} is read as {root}"
    if 2 * len(folder.files) > folder.count:
        raise _songs_without_genre(root)
    if root == source:
        _check_is_no_genre(root, folder)
    layout = _with_parts(root, folder)
    if layout.part == 0:
        genres = _Folder()
        for part in folder.folders.values():
            genres.folders |= part.folders
        _check_are_genres(root, genres)
    else:
        _check_are_genres(root, folder)
    return replace(layout, note="; ".join(filter(None, (note, layout.note))))


def gives_split(source: Path) -> bool:
    """Whether folders called train, valid and test give a split."""
    folder = source
    while len(names := _subfolders(folder)) == 1:
        folder /= names[0]
    near = {*names, *(below for name in names for below in _subfolders(folder / name))}
    if not any(name.casefold() in WORDS for name in near):  # without reading all folders
        return False
    try:
        return find_layout(source, walk(source).files).part is not None
    except RequestError:  # which will be raised again when the folder is read
        return False


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError:
        return []


# ---- one folder too high or too low ----


def _genres_below(source: Path, top: _Folder) -> tuple[Path, _Folder]:
    """The folder whose subfolders are the genres: `source`, or one below that surely is it."""
    root, folder = source, top
    while not folder.files and len(folder.folders) == 1:
        ((name, folder),) = folder.folders.items()
        root /= name
    for name in _OF_GENRES:
        if name in folder.folders and not known(folder.folders):
            return root / name, folder.folders[name]
    if root == source:
        return source, top
    names, inside = list(folder.folders), root.name
    if len(names) < 2 or (is_known(inside) and not known(names)):
        return source, top  # one genre, which is refused when genres are counted
    if _parts(names):
        return root, folder
    _check_are_genres(root, folder)
    if inside in _OF_GENRES or (mostly_known(names) and not is_known(inside)):
        return root, folder
    raise RequestError(
        f"{source} has one folder with music, {root.relative_to(source)}: if the folders in it "
        f"({_listed(names)}) are the genres, give --tracks {quote(str(root))}; if it is a genre "
        "itself, add a folder of another"
    )


def _songs_without_genre(root: Path) -> RequestError:
    return RequestError(
        f"most songs of {root} are in no subfolder, and so in no genre: if it is the folder of one "
        f"genre, give the folder above, --tracks {quote(str(root.parent))}; else sort the songs "
        f"into one subfolder per genre, or {_TABLE}"
    )


def _check_is_no_genre(root: Path, folder: _Folder) -> None:
    """Refuse one genre's own folder, or one in it: artists or albums would be taken for genres."""
    if known(folder.folders) or not folder.folders:
        return
    for genre in (root, root.parent):
        others = known(name for name in _subfolders(genre.parent) if name != genre.name)
        if is_known(genre.name) and others:
            raise RequestError(
                f"{genre} seems to be one genre, beside {_listed(others)}, and the folders in "
                f"{root} ({_listed(folder.folders)}) artists or albums: give the folder above, "
                f"--tracks {quote(str(genre.parent))}; if these are the genres, {_TABLE}"
            )


# ---- parts of a split ----


def _parts(names: Iterable[str]) -> dict[str, str]:
    """The parts of folders, of two at least, train first; empty where any is something else."""
    names = list(names)
    meant = part_words(name.casefold() for name in names)
    part_of = {name: meant.get(name.casefold(), "") for name in names}
    if "" in part_of.values() or len(set(part_of.values())) < 2:
        return {}
    return dict(sorted(part_of.items(), key=lambda item: (PARTS.index(item[1]), item[0])))


def _with_parts(root: Path, folder: _Folder) -> Layout:
    """The layout with the folders of parts above or below those of genres, if there are any."""
    names = list(folder.folders)
    if parts := _parts(names):
        if not any(part.folders for part in folder.folders.values()):
            raise RequestError(
                f"the folders {_listed(parts)} of {root} are parts of a split, but no genre is "
                "below them: sort the songs of each into one subfolder per genre, or "
                f"{_TABLE.replace('path,genre', 'path,genre,split')}"
            )
        note = f"the folders {_listed(parts)} are parts of a split, with the genres below them"
        return Layout(root, genre=1, part=0, parts=parts, note=note)
    meant = part_words(name.casefold() for name in names)
    if like_parts := _parts(name for name in names if name.casefold() in meant):
        others = [name for name in names if name not in like_parts]
        raise RequestError(
            f"the folders {_listed(like_parts)} of {root} seem to be parts of a split, but beside "
            f"them are {_listed(others)}: put these elsewhere, or {_TABLE}"
        )
    if below := _parts({name for genre in folder.folders.values() for name in genre.folders}):
        note = f"the folders {_listed(below)} below the genres are parts of a split"
        return Layout(root, genre=0, part=1, parts=below, note=note)
    return Layout(root)


# ---- folders that are no genres ----


def _check_are_genres(root: Path, folder: _Folder) -> None:
    """Refuse folders whose names say that they are something else."""
    names = sorted(folder.folders)
    for name in names:
        if not is_utf8(name):
            raise RequestError(
                f"a genre's folder must have a UTF-8 name, but {as_text(root / name)} has none: "
                "rename it"
            )
    if len(names) < 2:
        return
    what = ""
    if _are_numbers(folder):
        what = "numbers (as in FMA's download, where songs are sorted by theirs)"
    elif _is_index(folder):
        what = "first letters"
    elif all(_NUMBERED.fullmatch(spelling_key(name)) for name in names):
        what = "numbered parts"
    if what:
        raise RequestError(
            f"the folders {_listed(names)} of {root} are {what}, no genres: {_TABLE}"
        )
    below = {name: list(folder.folders[name].folders) for name in names}
    if all(spelling_key(name) in _CONTAINERS for name in names) or _are_collections(below):
        two = f" --more-tracks {quote(str(root / names[1]))}" if len(names) == 2 else ""
        inside = sorted({name for one in below.values() for name in one})
        raise RequestError(
            f"the folders {_listed(names)} of {root} seem to be collections, no genres"
            f"{f' (in them: {_listed(inside)})' if inside else ''}: give one of them (--tracks "
            f"{quote(str(root / names[0]))}{two}); if they are the genres, {_TABLE}"
        )


def _are_numbers(folder: _Folder) -> bool:
    """Whether folders are called 000, 001, ... or 1990, 1991, ..., or begin their songs' numbers.

    Genres may be called 1, 2, ...: nothing else says that they are not.
    """
    names = list(folder.folders)
    if not all(re.fullmatch("[0-9]+", name) for name in names):
        return False
    if len({len(name) for name in names}) == 1 and len(names[0]) > 1:
        return True
    stems = [(name, _stem(file)) for name in names for file in folder.folders[name].files]
    return bool(stems) and all(stem.isdigit() and stem.startswith(name) for name, stem in stems)


def _is_index(folder: _Folder) -> bool:
    """Whether folders are called A, B, ..., and all names in each begin with that letter."""
    letters = [name for name in folder.folders if name not in ("#", "0-9", "_")]
    if len(letters) < 3 or any(len(letter) > 1 for letter in letters):
        return False
    for letter in letters:
        inside = [*folder.folders[letter].folders, *map(_stem, folder.folders[letter].files)]
        if not all(_begins_with(name, letter) for name in inside):
            return False
        if not any(sum(map(str.isalpha, name)) > 2 for name in inside):  # a1, a2: no names
            return False
    return True


def _begins_with(name: str, letter: str) -> bool:
    """As an artist or title is sorted, "The Beatles" under B or T."""
    plain = re.sub(r"^(the|a|an)\s+", "", name.casefold())
    return letter.casefold() in (plain[:1], name.casefold()[:1])


def _stem(file: str) -> str:
    return Path(file).stem


def _are_collections(below: dict[str, list[str]]) -> bool:
    """Whether the genres are one level lower, in each of several folders that are called otherwise.

    By known names of genres, or as all have the same three subfolders or more.
    """
    inside = {name for names in below.values() for name in names}
    if known(below) or not all(below.values()):
        return False
    same = {frozenset(map(spelling_key, names)) for names in below.values()}
    return mostly_known(inside) or (len(same) == 1 and len(inside) > 2)


def _listed(names: Collection[str]) -> str:
    shown = [as_text(name) for name in list(names)[:_LISTED]]
    return ", ".join(shown) + (", ..." if len(names) > _LISTED else "")
