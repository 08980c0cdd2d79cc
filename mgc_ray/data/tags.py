"""The artist of a song where no table gives it: from the file's tags, else from its folders.

Tags also show where a folder's subfolders are artists or albums instead of genres.
"""

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from shlex import quote

from tinytag import TinyTag

from mgc_ray import RequestError
from mgc_ray.data.artists import Artists, is_known
from mgc_ray.data.tracks import Track, TrackTable
from mgc_ray.data.untrusted import check_regular

_THREADS = 8  # most of the time is spent waiting for disks
_DISC = re.compile(r"(cd|dis[ck]|side|vol(ume)?|part)?[\W_]*\d+", re.IGNORECASE)
_LEAST_FOLDERS = 3  # of a genre, for one in each part of the split


def with_artists(table: TrackTable) -> TrackTable:
    """The table with the artists that can be found, and where they are from.

    Tags come before folders. GENRE/ARTIST/ALBUM/SONG gives the artist; in GENRE/FOLDER/SONG the
    folder may be an artist or an album, so it only keeps its songs together, as a group.
    """
    missing = [i for i, track in enumerate(table.tracks) if not is_known(track.artist)]
    sources = Counter(table=len(table.tracks) - len(missing))
    tracks = list(table.tracks)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(_tags, [tracks[i].path for i in missing]))
    is_folder = table.source.is_dir()
    if is_folder and table.genres:
        _check_are_genres(table, dict(zip([tracks[i].path for i in missing], found, strict=True)))
    for i, (artist, _) in zip(missing, found, strict=True):
        if artist:
            tracks[i] = replace(tracks[i], artist=artist)
            sources["tags"] += 1
        elif is_folder and (artist := _artist_in_path(tracks[i], table)):
            tracks[i] = replace(tracks[i], artist=artist)
            sources["folders"] += 1
        else:
            sources["unknown"] += 1
    if is_folder:
        tracks = _with_folders_as_groups(tracks, table)
    return replace(table, tracks=tracks, artists_from=+sources)


def artists_in_words(sources: Counter[str]) -> str:
    """E.g. `artists: 12 from the table, 5 from tags; 3 unknown`."""
    places = {"table": "the table", "tags": "tags", "folders": "folders"}
    known = ", ".join(f"{sources[s]} from {place}" for s, place in places.items() if sources[s])
    return f"artists: {known or 'none is known'}" + (
        f"; {sources['unknown']} unknown" if known and sources["unknown"] else ""
    )


def artist_in_tags(path: str) -> str:
    """The artist in a file's tags; "" where there is none, or it says nothing."""
    return _tags(path)[0]


def _tags(path: str) -> tuple[str, str]:
    """Artist and album of a file; "" for what its tags do not give."""
    if path.lower().endswith(".npy"):
        return "", ""
    try:
        check_regular(Path(path))
        tag = TinyTag.get(path, duration=False)
    except Exception:  # whatever a damaged file or another format makes of it
        return "", ""
    known = (artist for artist in (tag.artist, tag.albumartist) if artist and is_known(artist))
    artist = " ".join(next(known, "").replace("\0", "/").split())
    return artist, " ".join((tag.album or "").split())


def _check_are_genres(table: TrackTable, tags: dict[str, tuple[str, str]]) -> None:
    """Refuse a folder most of whose subfolders are called like the artist or album in them."""
    values: dict[str, list[tuple[str, str]]] = {}
    for track in table.tracks:
        if any(tag := tags.get(track.path, ("", ""))):
            values.setdefault(track.genre, []).append(tag)
    for number, what in enumerate(("artists", "albums")):
        same = [
            genre
            for genre, of_genre in values.items()
            if 2 * sum(bool(Artists([genre]).same(tag[number])) for tag in of_genre) > len(of_genre)
        ]
        if 2 * len(same) > len(table.genres):
            raise RequestError(
                f"the folders of {table.source} seem to be {what}, no genres: the tags of most "
                f"songs in {min(same)} have {min(same)} among the {what}. Sort the songs into one "
                "subfolder per genre, with these folders below, or give the folder above, if this "
                f"one is a genre (--tracks {quote(str(table.source.parent))})"
            )


def _folders(track: Track, table: TrackTable) -> list[str]:
    """The folders between the genre's and the song; those of discs (CD 1) do not count."""
    *folders, _ = Path(track.path).relative_to(table.source).parts
    below = folders[table.levels :] if track.genre else []
    return [name for name in below if not _DISC.fullmatch(name)]


def _artist_in_path(track: Track, table: TrackTable) -> str:
    folders = _folders(track, table)
    return folders[0] if len(folders) > 1 and is_known(folders[0]) else ""


def _with_folders_as_groups(tracks: Sequence[Track], table: TrackTable) -> list[Track]:
    """Songs of unknown artists in one folder below their genre's become a group.

    Only in genres with enough of such folders for all parts of the split.
    """
    folder_of = {
        track.path: f"{track.genre}/{folders[0]}"
        for track in tracks
        if not is_known(track.artist) and (folders := _folders(track, table))
    }
    genre_of = {folder: folder.partition("/")[0] for folder in folder_of.values()}
    count = Counter(genre_of.values())
    return [
        replace(track, group=folder_of[track.path])
        if track.path in folder_of and count[track.genre] >= _LEAST_FOLDERS
        else track
        for track in tracks
    ]
