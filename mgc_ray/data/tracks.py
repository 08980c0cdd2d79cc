"""The track table: which tracks there are, read from a folder or a table.

A *track* is a song or an excerpt. Files are not opened here; split/ says how tracks are split, and
tables/ how a table is read.
"""

import os.path
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from mgc_ray import RequestError
from mgc_ray.data.genres import composed, one_spelling, spelling_key
from mgc_ray.data.layouts import Layout, find_layout
from mgc_ray.data.names import as_text, is_utf8
from mgc_ray.data.split.words import PARTS, WORDS, part_words
from mgc_ray.data.tables.columns import FMA, Column, TableFile
from mgc_ray.data.tables.csv_text import one_cell_or_two, too_many_cells
from mgc_ray.data.tables.file import read_table_file
from mgc_ray.data.tables.known import find_fma_audio, is_gtzan_features, refuse_gtzan_parts
from mgc_ray.data.tables.paths import PathFinder, local_path
from mgc_ray.data.walk import no_audio_in_words, walk

# of a column -> other usual names; case, spaces and underscores make no difference
_USUAL = {
    "path": (
        *("file", "filename", "filepath", "fname", "location", "audio", "wav", "mp3"),
        *("audio file", "audio path", "audio filename", "audio filepath", "song path"),
    ),
    "genre": (
        *("label", "class", "genre label", "genre name", "class name", "category", "target"),
        *("genre top", "track.genre_top", "top genre", "main genre", "primary genre", "style"),
    ),
    "artist": ("artist name", "artists", "artist(s)", "performer", "band"),
    "split": ("partition", "data split", "dataset split", "set.split"),
    "track_id": (),
}
_NO_VALUE = frozenset(("nan", "<na>", "n/a", "#n/a", "na", "null", "none"))  # of exports
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
    """The rows of a folder or table that may be tracks, and those that cannot be.

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


@dataclass(frozen=True)
class ColumnNames:
    """The names of a table's columns where they are not the usual ones, "" where they are.

    `needed`: whether a table without them is refused.
    """

    path: str = ""
    genre: str = ""
    artist: str = ""
    split: str = ""
    needed: bool = True

    def column(self, name: str, needed: bool = False) -> Column:
        """A column of a table by the program's name."""
        given = "" if name == "track_id" else getattr(self, name)
        flag = name in ("path", "genre")
        option = f"--{name}-column NAME" if flag else f"the setting {name}_column"
        return Column(name, needed, _USUAL[name], option, given, self.needed)


USUAL_NAMES = ColumnNames()


def read_tracks(
    source: str | Path,
    labelled: bool = True,
    names: ColumnNames = USUAL_NAMES,
    option: str = "--tracks",
) -> TrackTable:
    """Read a folder with one subfolder per genre, or a table `path,genre[,track_id,artist,split]`.

    See layouts.py for other folders. Paths of a table are relative to it. Files are not opened
    here. Not `labelled`: the folder's files at any depth, or a table `path[,track_id,artist]`;
    genres and splits are ignored, and rows with the same track_id are parts of one recording, so
    one group. `option`: what the source was given by, for messages. Raises RequestError for a
    source that cannot be a track table: missing, no genre, a path with two genres, an unknown
    split.
    """
    source = _local(source, option)
    if not is_utf8(whole := os.path.abspath(source)):
        raise RequestError(
            f"{option} must have a UTF-8 name, but it is {as_text(whole)}: rename it"
        )
    # absolute, so that a table is the same whatever the working folder is
    if source.is_dir():
        if names.needed and names != USUAL_NAMES:
            raise RequestError(
                f"--path-column, --genre-column and the like name columns of a table, but {source} "
                "is a folder: leave them out"
            )
        table = _read_folder(Path(os.path.abspath(source)), labelled)
    elif source.is_file():
        table = _read_rows(Path(os.path.abspath(source)), labelled, names)
    else:
        raise RequestError(
            f"{option} must be a folder with one subfolder per genre, or a CSV file, but {source} "
            f"{'is neither' if source.exists() else 'does not exist'}"
        )
    if not table.tracks:
        first = (
            f"; {len(table.skipped)} left out, the first: {table.skipped[0].path}: "
            f"{table.skipped[0].reason}"
            if table.skipped
            else ""
        )
        others = no_audio_in_words(table.no_audio)
        raise RequestError(
            f"{source} holds no track{f' ({others})' if others else ''}: expected "
            f"FOLDER/{'GENRE/' if labelled else ''}FILE, or a CSV with the columns "
            f"{'path,genre' if labelled else 'path'}{first}"
        )
    return with_one_spelling(_without_strays(table))


def with_one_spelling(table: TrackTable, genres: Sequence[str] = ()) -> TrackTable:
    """The table with each genre spelt in one way: as in `genres`, else as most tracks have it."""
    spelt = one_spelling(Counter(track.genre for track in table.tracks), genres)
    others: dict[str, list[str]] = {}
    for genre, chosen in spelt.items():
        if composed(genre) != chosen:
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


def read_artists(
    source: str | Path, names: ColumnNames = USUAL_NAMES
) -> tuple[list[str], tuple[str, ...]]:
    """The artists in a table's column `artist`, and what was assumed to read it.

    RequestError where there are none.
    """
    file = read_table_file(
        _local(source, "--exclude-artists"), [names.column("artist", needed=True)]
    )
    artists = {_value(row.cells["artist"]) for row in file.rows}
    if not artists - {""}:
        raise RequestError(f"{source} has no artist in its column artist: give another table")
    return sorted(artists - {""}), _notes(file)


def _local(source: str | Path, option: str) -> Path:
    try:
        return Path(local_path(str(source)))
    except RequestError as error:
        raise RequestError(f"{option}: {error}") from None


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


# ---- the rows of a table ----


class _Row(NamedTuple):
    """A row with its number in the table, its cells by column, its file, why it is left out."""

    number: int
    cells: dict[str, str]
    path: str
    reason: str = ""


def _read_rows(source: Path, labelled: bool, names: ColumnNames) -> TrackTable:
    """Each row as a track, or as skipped with the reason."""
    optional = ("track_id", "artist", "split") if labelled else ("track_id", "artist")
    columns = [names.column("path", needed=True)]
    columns += [names.column("genre", needed=True)] if labelled else []
    file = read_table_file(source, [*columns, *map(names.column, optional)])
    finder = PathFinder(source.parent)
    cells = _checked_cells(file, finder)
    rows = _fma_rows(file, cells) if file.kind == FMA else _rows(file, cells, finder)
    parts = _part_words(file, rows)
    numbered = file.kind == FMA or is_gtzan_features(file.header)
    tracks: dict[str, Track] = {}
    skipped: list[Skipped] = []
    for row in rows:
        genre = row.cells.get("genre", "")
        reason = row.reason or ("the table has no genre for it" if labelled and not genre else "")
        if reason:
            skipped.append(Skipped(row.path, reason))
            continue
        track_id = row.cells["track_id"] or (Path(row.path).stem if numbered else row.cells["path"])
        track = Track(
            row.path,
            genre,
            track_id,
            row.cells["artist"],
            split=parts.get(_split_word(row.cells), ""),
        )
        if row.path in tracks and spelling_key(tracks[row.path].genre) != spelling_key(genre):
            raise RequestError(
                f"{file.where(row.number)}: a path has one genre, but {row.cells['path']} is "
                f"listed as {tracks[row.path].genre!r} and as {track.genre!r}; remove one of the "
                "rows"
            )
        if row.path in tracks:
            reason = f"repeated in {file.unit} {row.number}; the first row is used"
            skipped.append(Skipped(row.path, reason))
            continue
        tracks[row.path] = track
    repeated = [i for i, n in Counter(t.track_id for t in tracks.values()).items() if n > 1]
    if repeated and labelled:
        raise RequestError(
            f"{source}: track_id must be unique, but {repeated[0]!r} has several paths"
            f"{f' (and {len(repeated) - 1} more ids)' if len(repeated) > 1 else ''}"
        )
    named = _with_unique_ids(tracks.values(), set(repeated))
    return TrackTable(source, named, skipped, notes=_notes(file, finder.assumed()))


def _notes(file: TableFile, more: Sequence[str] = ()) -> tuple[str, ...]:
    return tuple(f"{file.source}: {sentence}" for sentence in (*file.assumed, *more))


def _checked_cells(file: TableFile, finder: PathFinder) -> list[dict[str, str]]:
    """The cells of each row; RequestError for one without a path, and for cells that do not fit."""
    genres = {row.cells.get("genre", "") for row in file.rows if not row.joined}

    def fits(cells: dict[str, str]) -> bool:
        word = _split_word(cells)
        known = cells.get("genre", "") in genres and word in ("", *WORDS, *_NO_VALUE)
        return known and finder.exists(cells["path"])

    has_split = any(row.cells.get("split") for row in file.rows)
    checked = []
    for row in file.rows:
        cells = {n: cell if n == "path" else _value(cell) for n, cell in row.cells.items()}
        if not cells["path"]:
            raise RequestError(
                f"{file.where(row.number)}: each row needs a path, but this one has none"
            )
        if row.joined and not fits(cells):
            raise too_many_cells(file.where(row.number))
        if row.other and row.other != row.cells and fits(row.other):
            one = next(cell for name, cell in row.other.items() if cell != row.cells[name])
            raise one_cell_or_two(file.where(row.number), one)
        if has_split and not _split_word(cells) and cells["artist"].casefold() in WORDS:
            raise RequestError(
                f"{file.where(row.number)}: the artist is {cells['artist']!r}, which is a part of "
                "the split, so a cell before it seems to be missing: write ,, where one is empty"
            )
        checked.append(cells)
    return checked


def _value(cell: str) -> str:
    """A cell, "" where it is what exports write for no value."""
    return "" if cell.casefold() in _NO_VALUE else cell


def _rows(file: TableFile, cells: Sequence[dict[str, str]], finder: PathFinder) -> list[_Row]:
    """The rows with their files."""
    numbers = [row.number for row in file.rows]
    paths = finder.find(
        [(row["path"], row.get("genre", "")) for row in cells], lambda i: file.where(numbers[i])
    )
    if is_gtzan_features(file.header) and not any(map(os.path.exists, paths)):
        refuse_gtzan_parts(file.source, [row["path"] for row in cells])
    if is_gtzan_features(file.header):
        file.assumed.append(
            "is GTZAN's table of features, of which only the songs and genres are used; --protocol "
            "fault-filtered has their published artists"
        )
    return [_Row(*row) for row in zip(numbers, cells, paths, strict=True)]


def _fma_rows(file: TableFile, cells: Sequence[dict[str, str]]) -> list[_Row]:
    """The rows with their files; of most there is none where a smaller subset is at hand."""
    folder, files = find_fma_audio(file.source)
    rows = []
    for number, row in zip([row.number for row in file.rows], cells, strict=True):
        if not row["path"].isdecimal():
            raise RequestError(
                f"{file.where(number)}: FMA's tracks have numbers, but this is {row['path']!r}"
            )
        six = f"{int(row['path']):06d}"
        path = files.get(row["path"], str(folder / six[:3] / f"{six}.mp3"))
        reason = "" if row["path"] in files else f"is not in {folder.name}"
        rows.append(_Row(number, row, path, reason))
    there = sum(not row.reason for row in rows)
    file.assumed.append(f"is FMA's table: {there} of its {len(rows)} tracks are in {folder}")
    return rows


def _split_word(cells: dict[str, str]) -> str:
    return cells.get("split", "").casefold()


def _part_words(file: TableFile, rows: Sequence[_Row]) -> dict[str, str]:
    """The part that each word of the split means; RequestError for one that means none."""
    first: dict[str, _Row] = {}
    for row in rows:
        if not row.reason:
            first.setdefault(_split_word(row.cells), row)
    first.pop("", None)
    parts = part_words(first)
    for word, row in first.items():
        if word not in parts:
            raise RequestError(
                f"{file.where(row.number)}: split must be one of {', '.join(PARTS)} or empty, but "
                f"it is {row.cells['split']!r}; write one of these, or rename the column where it "
                "is no split"
            )
    other = [f"{word!r} as {parts[word]}" for word in first if word not in PARTS]
    if other:
        file.assumed.append(f"takes the split {', '.join(other)}")
    return parts


def _with_unique_ids(tracks: Iterable[Track], repeated: set[str]) -> list[Track]:
    """Parts of one recording get their path as id, and the id that they share as group."""
    return [
        replace(track, track_id=track.path, group=track.track_id)
        if track.track_id in repeated
        else track
        for track in tracks
    ]
