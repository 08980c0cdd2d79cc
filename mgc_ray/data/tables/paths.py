"""The paths in a table -> files on disk.

Tables come from other systems: with backslashes, `~/`, `file://`, another Unicode form or case
than the names on disk, or with bare names of files that are in subfolders. Where only one file
can be meant it is used, and `assumed` says so.
"""

import contextlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

from mgc_ray import RequestError
from mgc_ray.data.genres import composed
from mgc_ray.data.names import is_utf8
from mgc_ray.data.walk import walk

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_FILE_URL = re.compile(r"file:(?://(?:localhost)?)?(/(?!/).*)", re.IGNORECASE | re.DOTALL)
_COPY = {"s3": "aws s3 cp --recursive", "gs": "gcloud storage cp --recursive"}
_DEPTH = 2  # of folders below the table's in which files are looked for


def local_path(written: str) -> str:
    """A path without `file://` and `~/`; RequestError for other URLs."""
    if url := _FILE_URL.fullmatch(written):
        try:
            return unquote(url[1], errors="strict")
        except UnicodeDecodeError:
            return url[1]
    if url := _URL.match(written):
        copy = _COPY.get(url[1].lower())
        raise RequestError(
            f"music is read from files, but {written[:200]!r} is a URL: copy it into a folder"
            f"{f' ({copy} {url[0]}BUCKET/FOLDER FOLDER)' if copy else ''} and give the path there"
        )
    return os.path.expanduser(written) if written.startswith("~") else written


class PathFinder:
    """Finds the files of a table in `folder`, where the table is."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._listings: dict[str, dict[tuple[str, str], list[str]]] = {}
        self._folders: dict[str, str | None] = {}
        self._ways: Counter[str] = Counter()  # what was assumed
        self._examples: dict[str, str] = {}

    def exists(self, written: str) -> bool:
        """Whether there is such a file, written in whatever way."""
        try:
            return os.path.exists(self._found(written)[0])
        except RequestError:
            return False

    def find(self, rows: Sequence[tuple[str, str]], where: Callable[[int], str]) -> list[str]:
        """The absolute path of each row (path as written, genre), whether or not it exists.

        `where`: the place of a row, for messages. Raises RequestError for URLs.
        """
        paths = []
        for i, (written, _) in enumerate(rows):
            try:
                path, ways = self._found(written)
            except RequestError as error:
                raise RequestError(f"{where(i)}: {error}") from None
            paths.append(path)
            for way in ways:
                self._count(way, written, path)
        if not any(map(os.path.exists, paths)):  # the table is elsewhere than it should be
            paths = self._find_below(rows, paths)
        return paths

    def assumed(self) -> list[str]:
        """What was assumed, in sentences."""
        return [
            f"paths that {way}: {count}, e.g. {self._examples[way]}"
            for way, count in self._ways.items()
        ]

    def _count(self, way: str, written: str, path: str) -> None:
        self._ways[way] += 1
        self._examples.setdefault(way, f"{written!r} is read as {path!r}")

    def _found(self, written: str) -> tuple[str, list[str]]:
        """The path, and in which ways it is not written as the file is called."""
        path = os.path.normpath(os.path.join(self._folder, written))
        if os.path.exists(path):
            return path, []
        text, ways = local_path(written), []
        if text != written:
            ways.append("begin with ~" if written.startswith("~") else "begin with file://")
        path = os.path.normpath(os.path.join(self._folder, text))
        if "\\" in text:
            path = os.path.normpath(os.path.join(self._folder, text.replace("\\", "/")))
            ways.append("have \\ for /")
        on_disk = self._spelt(path)
        if on_disk and on_disk != path:
            same = composed(on_disk) == composed(path)
            ways.append(f"have another {'Unicode form' if same else 'case'} than on disk")
        return on_disk or path, ways

    def _spelt(self, path: str) -> str | None:
        """The only path on disk that differs at most in Unicode form, else in case."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = folder if os.path.isdir(folder) else self._follow(folder)
        found = self._folders[folder]
        return found and self._follow(name, found)

    def _follow(self, path: str, start: str = "/") -> str | None:
        """The same below a folder, part by part."""
        found = start
        for part in path.strip("/").split("/"):
            if os.path.lexists(os.path.join(found, part)):
                found = os.path.join(found, part)
                continue
            names = self._listing(found)
            alike = names.get(("form", composed(part))) or names.get(("case", _folded(part)))
            if not alike or len(alike) > 1:
                return None
            found = os.path.join(found, alike[0])
        return found

    def _listing(self, folder: str) -> dict[tuple[str, str], list[str]]:
        """The names in a folder by their composed form, and by that without case."""
        if folder not in self._listings:
            names: dict[tuple[str, str], list[str]] = defaultdict(list)
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):
                    names["form", composed(name)].append(name)
                    names["case", _folded(name)].append(name)
            self._listings[folder] = names
        return self._listings[folder]

    def _find_below(self, rows: Sequence[tuple[str, str]], paths: list[str]) -> list[str]:
        """Relative paths whose end only one file below the folder has, of the genre's folder."""
        files: dict[str, list[str]] = defaultdict(list)
        for file in filter(is_utf8, walk(Path(self._folder), _DEPTH).files):
            files[composed(file.name)].append(str(file))
        found = list(paths)
        for i, (written, genre) in enumerate(rows):
            below = os.path.normpath(composed(written).replace("\\", "/"))
            parts = below.split("/")
            alike = [
                path
                for path in files.get(parts[-1], ())
                if composed(path).split("/")[-len(parts) :] == parts
            ]
            if len(alike) > 1:
                alike = [
                    path
                    for path in alike
                    if _folded(os.path.basename(os.path.dirname(path))) == _folded(genre)
                ]
            if len(alike) == 1:
                found[i] = alike[0]
                self._count("are of a file in a subfolder", written, alike[0])
        return found


def _folded(name: str) -> str:
    return composed(unicodedata.normalize("NFD", name).casefold())
