"""Playlists (M3U, UTF-8) for music players: one per genre, or of similar songs."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from mgc_ray.data.files import atomic_write
from mgc_ray.data.names import one_line
from mgc_ray.terminal.command import console

_LONGEST = 200  # bytes of a file's name, of 255 that file systems take
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f"*/:<>?\\|]')  # of files, on some system
# that a player takes for a comment, an address or another line if it begins a path
_PLAIN_START = re.compile(r"(?![\w.+-]+:)[\w.]")

Song = tuple[str, str, float]  # path below the folder as it is on disk, genre, probability


def write_playlists(
    place: Path, folder: Path, songs: Iterable[Song], genres: Sequence[str]
) -> None:
    """Write a playlist of each genre's songs into the folder `place`, most certain ones first.

    `genres`: all that a song may have. The playlist of a genre without songs is emptied, where an
    earlier run left one. A song with a line break in its path, which no playlist can hold, is left
    out with a message.
    """
    place.mkdir(parents=True, exist_ok=True)
    of_genre: dict[str, list[tuple[float, str]]] = {genre: [] for genre in genres}
    for path, genre, probability in _listable(place, folder, songs):
        of_genre[genre].append((-probability, path))
    for genre, name in file_names(genres).items():
        if of_genre[genre] or (place / name).exists():
            entries = [(path, f"{-negative:.0%}") for negative, path in sorted(of_genre[genre])]
            _write(place / name, genre, folder, entries)


def write_similar(playlist: Path, title: str, folder: Path, songs: Iterable[Song]) -> None:
    """Write one playlist of songs in this order, with a similarity instead of a probability.

    One with a line break in its path is left out with a message, as above.
    """
    listable = _listable(playlist.parent, folder, songs)
    entries = [(path, f"{genre}, {similarity:.2f}") for path, genre, similarity in listable]
    _write(playlist, title, folder, entries)


def _listable(place: Path, folder: Path, songs: Iterable[Song]) -> list[Song]:
    """Those songs that a playlist in the folder `place` can hold."""
    kept: list[Song] = []
    left_out: list[Song] = []
    for song in songs:
        has_line_break = {"\n", "\r"} & set(os.path.relpath(folder / song[0], place))
        (left_out if has_line_break else kept).append(song)
    if left_out:
        console.print(
            f"in no playlist, as their names have line breaks: {len(left_out)}, e.g. "
            f"{one_line(left_out[0][0])}"
        )
    return kept


def _write(playlist: Path, title: str, folder: Path, entries: Iterable[tuple[str, str]]) -> None:
    """Write songs, each with what is shown behind its name."""
    lines = ["#EXTM3U", f"#PLAYLIST:{one_line(title)}"]
    for path, note in entries:
        relative = Path(os.path.relpath(folder / path, playlist.parent)).as_posix()
        lines += [f"#EXTINF:-1,{one_line(Path(path).stem)} ({one_line(note)})", _location(relative)]
    with atomic_write(playlist) as temporary:
        temporary.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))


def file_names(genres: Iterable[str]) -> dict[str, str]:
    """The file of each genre's playlist, GENRE.m3u8, with - for what files cannot be called.

    No two are the same, also where upper and lower case are: the later one gets a number.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    # those whose name is a file's name first, so that they keep it
    for genre in sorted(genres, key=lambda genre: (_cleaned(genre) != genre, genre)):
        base, number = _cleaned(genre), 1
        while (name := base if number == 1 else f"{base} ({number})").casefold() in taken:
            number += 1
        taken.add(name.casefold())
        names[genre] = f"{name}.m3u8"
    return names


def _cleaned(genre: str) -> str:
    plain = _NOT_IN_NAMES.sub("-", unicodedata.normalize("NFC", one_line(genre))).strip(" .")
    return plain.encode()[:_LONGEST].decode("utf-8", "ignore").strip(" .") or "genre"


def _location(path: str) -> str:
    return path if _PLAIN_START.match(path) else f"./{path}"
