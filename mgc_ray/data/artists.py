"""Artists: which spellings mean the same one, and tables that are filtered by artist.

`--more-tracks` adds labelled music to the training part. More artists help more than anything else
where a genre has few, but no figure may depend on whose music that is: these tracks are never
validated or tested on, are in no fold, and those by an artist of the main table, or of a recording
in it, are left out.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace

from mgc_ray import RequestError
from mgc_ray.data.tracks import Skipped, Track, TrackTable, read_artists, read_tracks


def read_more_tracks(source: str, main: TrackTable) -> TrackTable:
    """The tracks of a folder or table that may be added to `main`; the others as skipped.

    Each has an id that no track of `main` has. Raises RequestError for what cannot be a track
    table, for arrays where `main` is audio or vice versa, and where no track is left.
    """
    table = read_tracks(source)
    if table.tracks[0].is_array != main.tracks[0].is_array:
        kind = ".npy spectrograms" if main.tracks[0].is_array else "audio"
        raise RequestError(
            f"--more-tracks must be {kind} as --tracks are, but {source} begins with "
            f"{table.tracks[0].path}: give another table"
        )
    genres, known = set(main.genres), Artists(track.artist for track in main.tracks)
    tracks, skipped = [], list(table.skipped)
    for track in table.tracks:
        same = known.same(track.artist)
        if track.genre not in genres:
            skipped.append(Skipped(track.path, f"--tracks has no genre {track.genre!r}"))
        elif same:
            reason = f"its artist {track.artist!r} is in --tracks as {same!r}"
            skipped.append(Skipped(track.path, reason))
        else:
            tracks.append(replace(track, track_id=f"more:{track.track_id}", split="", added=True))
    if not tracks:
        raise RequestError(
            f"--more-tracks {source} has no track that could be added to the training part, e.g. "
            f"{skipped[0].path}: {skipped[0].reason}"
        )
    return replace(table, tracks=tracks, skipped=skipped)


def new_recordings(
    tracks: Iterable[Track], hashes: dict[str, str], main: Iterable[Track]
) -> tuple[list[Track], list[Skipped]]:
    """Leave out recordings that are in `main`, or earlier among `tracks`; `hashes` are by path."""
    known = {hashes[track.path]: track.path for track in main}
    kept, skipped = [], []
    for track in tracks:
        first = known.setdefault(hashes[track.path], track.path)
        if first == track.path:
            kept.append(track)
        else:
            skipped.append(Skipped(track.path, f"the same recording as {first}"))
    return kept, skipped


def exclude_artists(table: TrackTable, source: str) -> TrackTable:
    """The table without tracks by the artists in a CSV's column `artist`; these as skipped.

    For weights that are to be tested on those artists' music. Raises RequestError for a file
    without artists, and where no track is left.
    """
    unwanted = Artists(read_artists(source))
    tracks, skipped = [], list(table.skipped)
    for track in table.tracks:
        same = unwanted.same(track.artist)
        if same:
            reason = f"its artist {track.artist!r} is in --exclude-artists as {same!r}"
            skipped.append(Skipped(track.path, reason))
        else:
            tracks.append(track)
    if not tracks:
        raise RequestError(
            f"--exclude-artists {source} leaves no track of {table.source}: give another table"
        )
    return replace(table, tracks=tracks, skipped=skipped)


class Artists:
    """A list of artists that recognises one in any usual spelling.

    A name is the set of its words: "Cash, Johnny", "Johnny Cash" and "Johnny Cash & The Tennessee
    Two" are the same, as two common words or more suffice where one name has further ones; so are
    "The Who" and "Who [1]", "Beyoncé" and "BEYONCE". A cell may hold several names, separated by /
    or ; or "feat." or by two commas or more; "Rihanna & Eminem" is also each of the two.
    """

    def __init__(self, artists: Iterable[str] = ()) -> None:
        self._by_word: dict[str, dict[frozenset[str], dict[str, None]]] = {}
        for artist in artists:
            self.add(artist)

    def add(self, artist: str) -> None:
        for name in _names(artist):
            for word in name:
                self._by_word.setdefault(word, {}).setdefault(name, {})[artist] = None

    def all_same(self, artist: str) -> list[str]:
        """The listed artists who are the same or take part, as spelt in the list."""
        found: dict[str, None] = {}
        for name in _names(artist):
            for word in sorted(name):
                for other, spelt in self._by_word.get(word, {}).items():
                    few, many = sorted((name, other), key=len)
                    if name == other or (len(few) > 1 and few <= many):
                        found |= spelt
        return list(found)

    def same(self, artist: str) -> str:
        """The first of `all_same`; "" for none."""
        return next(iter(self.all_same(artist)), "")


_IGNORED = ("the", "a", "an", "and")
# of "X & Friends": no artist by themselves
_COMPANY = frozenset(
    word
    for words in (
        "band boys choir chorus co combo company crew ensemble family friends gang girls group",
        "guests orchestra others philharmonic players quartet quintet sextet singers sons symphony",
        "trio two",
    )
    for word in words.split()
)
_NOBODY = frozenset(
    frozenset(name.split())
    for name in ("artist", "artists", "na", "none", "unknown", "unknown artist", "va", "various")
) | {frozenset(("various", "artists"))}


def is_known(artist: str) -> bool:
    """Whether it says who it is: neither empty nor "Unknown Artist", "Various Artists" or so."""
    return bool(_names(artist))


def _names(artist: str) -> list[frozenset[str]]:
    decomposed = unicodedata.normalize("NFKD", artist.casefold())
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    plain = re.sub(r"\[.*?\]|\(.*?\)", " ", plain)
    cells = re.split(r"[/;]|\b(?:feat|ft|featuring|vs|versus)\b\.?", plain)
    if len(cells) == 1 and plain.count(",") > 1:
        cells = plain.split(",")
    names = [_words(cell) for cell in cells]
    for cell in cells:
        parts = [_words(part) for part in re.split(r"&|\+|\band\b|\bwith\b", cell)]
        if len(parts) > 1:
            names += [part for part in parts if not part <= _COMPANY]
    return [name for name in names if name and name not in _NOBODY]


def _words(cell: str) -> frozenset[str]:
    words = frozenset(re.findall(r"\w+", cell))
    return words - frozenset(_IGNORED) or words
