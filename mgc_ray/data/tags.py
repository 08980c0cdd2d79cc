"""The artist of a song where no table gives it: from the file's tags, else from its folders."""

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tinytag import TinyTag

from mgc_ray.data.artists import is_known
from mgc_ray.data.tracks import Track, TrackTable

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
        found = list(pool.map(artist_in_tags, [tracks[i].path for i in missing]))
    for i, artist in zip(missing, found, strict=True):
        if artist:
            tracks[i] = replace(tracks[i], artist=artist)
            sources["tags"] += 1
        elif table.source.is_dir() and (artist := _artist_in_path(tracks[i], table.source)):
            tracks[i] = replace(tracks[i], artist=artist)
            sources["folders"] += 1
        else:
            sources["unknown"] += 1
    if table.source.is_dir():
        tracks = _with_folders_as_groups(tracks, table.source)
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
    if path.lower().endswith(".npy"):
        return ""
    try:
        tag = TinyTag.get(path, duration=False)
    except Exception:  # whatever a damaged file or another format makes of it
        return ""
    for artist in (tag.artist, tag.albumartist):
        if artist and is_known(artist):
            return " ".join(artist.replace("\0", "/").split())
    return ""


def _folders(track: Track, source: Path) -> list[str]:
    """The folders between the genre's and the song; those of discs (CD 1) do not count."""
    _, *folders, _ = ("", *Path(track.path).relative_to(source).parts)
    below = folders[1:] if track.genre else []
    return [name for name in below if not _DISC.fullmatch(name)]


def _artist_in_path(track: Track, source: Path) -> str:
    folders = _folders(track, source)
    return folders[0] if len(folders) > 1 and is_known(folders[0]) else ""


def _with_folders_as_groups(tracks: Sequence[Track], source: Path) -> list[Track]:
    """Songs of unknown artists in one folder below their genre's become a group.

    Only in genres with enough of such folders for all parts of the split.
    """
    folder_of = {
        track.path: f"{track.genre}/{folders[0]}"
        for track in tracks
        if not is_known(track.artist) and (folders := _folders(track, source))
    }
    genre_of = {folder: folder.partition("/")[0] for folder in folder_of.values()}
    count = Counter(genre_of.values())
    return [
        replace(track, group=folder_of[track.path])
        if track.path in folder_of and count[track.genre] >= _LEAST_FOLDERS
        else track
        for track in tracks
    ]
