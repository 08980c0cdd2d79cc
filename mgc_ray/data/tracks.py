"""The track table: which tracks there are, read from a folder or a CSV.

A *track* is a song or an excerpt. Files are not opened here; split/ says how tracks are split.
"""

import csv
import os.path
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.data.genres import one_spelling
from mgc_ray.data.layouts import Layout, find_layout
from mgc_ray.data.names import as_text, is_utf8
from mgc_ray.data.walk import walk

SPLITS = ("train", "valid", "test")

# columns that a track table must have, and may have
_LABELLED_COLUMNS = (("path", "genre"), ("track_id", "artist", "split"))
_UNLABELLED_COLUMNS = (("path",), ("track_id", "artist"))
_STRAY = 0.1  # of the others: so many arrays among audio, or the other way round, are left out


@dataclass(frozen=True)
class Track:
    """One row of a track table; "" where something is not known or not drawn yet.

    `genre` is "" in an unlabelled table. `group`: tracks of one group are always in one part.
    `added`: in the training part only, and in no fold.
    """

    path: str
    genre: str
    track_id: str
    artist: str = ""
    group: str = ""
    split: str = ""
    added: bool = False

    @property
    def is_array(self) -> bool:
        return self.path.lower().endswith(".npy")


@dataclass(frozen=True)
class Skipped:
    """A track that is left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class TrackTable:
    """The rows of a folder or CSV that may be tracks, and those that cannot be.

    `no_audio`: how many other files a folder has, by ending. `artists_from`: where the artists are
    from, see tags.py. `levels`: how many folders above a song say its genre and part, see
    layouts.py. `notes`: what is assumed of the table, for whoever gave it.
    """

    source: Path
    tracks: list[Track]
    skipped: list[Skipped]
    no_audio: Counter[str] = field(default_factory=Counter)
    artists_from: Counter[str] = field(default_factory=Counter)
    levels: int = 0
    notes: tuple[str, ...] = ()

    @property
    def genres(self) -> list[str]:
        return sorted({track.genre for track in self.tracks} - {""})

    def genres_in_words(self) -> str:
        """E.g. `genres: blues (100 files), jazz (99)`, "" for an unlabelled table."""
        count = Counter(track.genre for track in self.tracks)
        first, *others = sorted(count)
        words = [f"{first} ({count[first]} files)", *(f"{name} ({count[name]})" for name in others)]
        return f"genres: {', '.join(words)}" if first else ""


def read_tracks(source: str | Path, labelled: bool = True) -> TrackTable:
    """Read a folder with one subfolder per genre, or a CSV `path,genre[,track_id,artist,split]`.

    See layouts.py for other folders. Paths of a CSV are relative to it. Files are not opened here.
    Not `labelled`: the folder's files at any depth, or a CSV `path[,track_id,artist]`; genres and
    splits are ignored, and rows with the same track_id are parts of one recording, so one group.
    Raises RequestError for a source that cannot be a track table: missing, no genre, a path with
    two genres, an unknown split.
    """
    source = Path(source)
    if not is_utf8(whole := os.path.abspath(source)):
        raise RequestError(
            f"--tracks must have a UTF-8 name, but it is {as_text(whole)}: rename it"
        )
    # absolute, so that a table is the same whatever the working folder is
    if source.is_dir():
        table = _read_folder(Path(os.path.abspath(source)), labelled)
    elif source.is_file():
        table = _read_csv(Path(os.path.abspath(source)), labelled)
    else:
        raise RequestError(
            f"--tracks must be a folder with one subfolder per genre, or a CSV file, but {source} "
            f"{'is neither' if source.exists() else 'does not exist'}"
        )
    if not table.tracks:
        raise RequestError(
            f"{source} holds no track: expected FOLDER/{'GENRE/' if labelled else ''}FILE, or a "
            f"CSV with the columns {','.join(_columns(labelled)[0])}"
        )
    return with_one_spelling(_without_strays(table))


def with_one_spelling(table: TrackTable, genres: Sequence[str] = ()) -> TrackTable:
    """The table with each genre spelt in one way: as in `genres`, else as most tracks have it."""
    spelt = one_spelling(Counter(track.genre for track in table.tracks), genres)
    others: dict[str, list[str]] = {}
    for genre, chosen in spelt.items():
        if genre != chosen:
            others.setdefault(chosen, []).append(genre)
    notes = [
        f"{' and '.join(map(repr, sorted([chosen, *same])))} are taken for one genre, {chosen!r}"
        for chosen, same in sorted(others.items())
    ]
    tracks = [replace(track, genre=spelt[track.genre]) for track in table.tracks]
    return replace(table, tracks=tracks, notes=(*table.notes, *notes))


def _without_strays(table: TrackTable) -> TrackTable:
    """Leave out a few arrays among audio, or a few other files among arrays, with the reason.

    Where they are more, or all that a genre has, they stay, and `check_table` refuses the table.
    """
    arrays = [track for track in table.tracks if track.is_array]
    others = [track for track in table.tracks if not track.is_array]
    few, many, reason = arrays, others, "a .npy spectrogram among audio"
    if len(arrays) > len(others):
        few, many, reason = others, arrays, "no .npy spectrogram, as all others are"
    genres = {track.genre for track in many}
    if len(few) > _STRAY * len(many) or any(track.genre not in genres for track in few):
        return table
    skipped = [*table.skipped, *(Skipped(track.path, reason) for track in few)]
    return replace(table, tracks=many, skipped=skipped)


def read_artists(source: str | Path) -> list[str]:
    """The artists in a CSV's column `artist`; RequestError where there are none."""
    rows = _csv_rows(Path(source), ["artist"], [])
    artists = sorted({row["artist"] for _, row in rows} - {""})
    if not artists:
        raise RequestError(f"{source} has no artist in its column artist: give another table")
    return artists


def _read_folder(source: Path, labelled: bool) -> TrackTable:
    if not os.access(source, os.R_OK | os.X_OK):
        raise RequestError(f"{source} may not be read: no permission")
    found = walk(source)
    layout = find_layout(source, found.files) if labelled else Layout(source, genre=None)
    root, tracks = layout.root, []
    skipped = [Skipped(as_text(path), reason) for path, reason in found.left_out]
    for path in found.files:
        place = layout.place(path)
        if place is None:
            skipped.append(Skipped(as_text(path), "is outside the genre folders"))
        elif not is_utf8(path):  # neither Parquet nor skipped.csv could hold it
            skipped.append(Skipped(as_text(path), "its name is not UTF-8"))
        else:
            genre, split = place
            tracks.append(Track(str(path), genre, track_id="", split=split))
    stems = Counter(Path(track.path).stem for track in tracks)
    named = []
    for track in tracks:
        path = Path(track.path)
        unique = stems[path.stem] == 1
        named.append(
            replace(track, track_id=path.stem if unique else path.relative_to(root).as_posix())
        )
    notes = (layout.note,) if layout.note else ()
    return TrackTable(root, named, skipped, found.no_audio, levels=layout.levels, notes=notes)


def _read_csv(source: Path, labelled: bool) -> TrackTable:
    rows = _csv_rows(source, *_columns(labelled))
    tracks: dict[str, Track] = {}
    skipped: list[Skipped] = []
    for number, row in rows:
        where = f"{source}, line {number}"
        genre, split = row.get("genre", ""), row.get("split", "")  # ignored where not labelled
        if not row["path"]:
            raise RequestError(f"{where}: each row needs a path, but this one has none")
        path = os.path.normpath(source.parent / row["path"])
        if labelled and not genre:
            skipped.append(Skipped(path, "the table has no genre for it"))
            continue
        if split not in ("", *SPLITS):
            raise RequestError(
                f"{where}: split must be one of {', '.join(SPLITS)} or empty, but it is {split!r}"
            )
        track = Track(path, genre, row["track_id"] or row["path"], row["artist"], split=split)
        if path in tracks and tracks[path].genre != track.genre:
            raise RequestError(
                f"{where}: a path has one genre, but {row['path']} is listed as "
                f"{tracks[path].genre!r} and as {track.genre!r}; remove one of the rows"
            )
        if path in tracks:
            skipped.append(Skipped(path, f"repeated in line {number}; the first row is used"))
            continue
        tracks[path] = track
    repeated = [i for i, n in Counter(t.track_id for t in tracks.values()).items() if n > 1]
    if repeated and labelled:
        raise RequestError(
            f"{source}: track_id must be unique, but {repeated[0]!r} has several paths"
            f"{f' (and {len(repeated) - 1} more ids)' if len(repeated) > 1 else ''}"
        )
    return TrackTable(source, _with_unique_ids(tracks.values(), set(repeated)), skipped)


def _with_unique_ids(tracks: Iterable[Track], repeated: set[str]) -> list[Track]:
    """Parts of one recording get their path as id, and the id that they share as group."""
    return [
        replace(track, track_id=track.path, group=track.track_id)
        if track.track_id in repeated
        else track
        for track in tracks
    ]


def _columns(labelled: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _LABELLED_COLUMNS if labelled else _UNLABELLED_COLUMNS


def _csv_rows(
    source: Path, needed: Sequence[str], optional: Sequence[str]
) -> list[tuple[int, dict[str, str]]]:
    """Line number and stripped cells, "" where a column is missing or a row is short."""
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or []]
            missing = [name for name in needed if name not in header]
            if missing:
                more = f" (and may have {', '.join(optional)})" if optional else ""
                raise RequestError(
                    f"{source}: this table needs the column{'s' * (len(needed) > 1)} "
                    f"{' and '.join(needed)}{more}, but "
                    f"{' and '.join(missing)} is missing from its first line: "
                    f"{','.join(header)[:200]!r}"
                )
            reader.fieldnames = header
            columns = [*needed, *optional]
            return [
                (reader.line_num, {name: (row.get(name) or "").strip() for name in columns})
                for row in reader
            ]
    except UnicodeDecodeError as error:
        raise RequestError(f"{source}: a table must be UTF-8 text, but {error}") from None
    except csv.Error as error:
        raise RequestError(f"{source}: not a readable CSV: {error}") from None
    except OSError as error:
        raise RequestError(f"{source} cannot be read: {error.strerror}") from None
