"""The track table: which tracks there are, what may never be separated, and the split.

A *track* is a song or excerpt. A *group* is what may never be on both sides of a split: the artist
where known, else the track; tracks with identical audio are in one group whatever the table says.
The split is drawn in this file and nowhere else, from whole tracks, before any is cut into chunks
(the protocol `random-chunks`, which does the contrary on purpose, is marked leaky).
"""

import csv
import os.path
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.gtzan import fault_filtered

SPLITS = ("train", "valid", "test")
PROTOCOLS = ("grouped", "given", "fault-filtered", "random-chunks")
LEAKY_PROTOCOLS = ("random-chunks",)
GROUPED_SHARES = {"train": 0.64, "valid": 0.16, "test": 0.20}  # 20 % test, then 20 % of the rest
RANDOM_CHUNKS_SHARES = {"train": 0.80, "valid": 0.20}  # the published baseline's, see chunk_splits
_ORDERS = 100  # tried before a split is called impossible

_REQUIRED_COLUMNS = ("path", "genre")
_OPTIONAL_COLUMNS = ("track_id", "artist", "split")


@dataclass(frozen=True)
class Track:
    """One row of a track table; `artist`, `group`, `split` are "" where not known or drawn."""

    path: str
    genre: str
    track_id: str
    artist: str = ""
    group: str = ""
    split: str = ""

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
    """The usable-looking rows of a folder or CSV, and those that could not even be a track."""

    source: Path
    tracks: list[Track]
    skipped: list[Skipped]

    @property
    def genres(self) -> list[str]:
        return sorted({track.genre for track in self.tracks})


def read_tracks(source: str | Path) -> TrackTable:
    """Read a folder with a subfolder a genre, or a CSV `path,genre[,track_id,artist,split]`.

    Paths of a CSV are relative to it. Files are not opened here. Raises RequestError for a source
    that cannot be a track table: missing, no genre, a path under two genres, an unknown split.
    """
    source = Path(source)
    if not _is_utf8(source):
        raise RequestError(f"--tracks must be named in UTF-8, but it is {str(source)!r}: rename it")
    # absolute, so that a table is the same from whatever folder it is named
    if source.is_dir():
        table = _read_folder(Path(os.path.abspath(source)))
    elif source.is_file():
        table = _read_csv(Path(os.path.abspath(source)))
    else:
        raise RequestError(
            f"--tracks must be a folder with a subfolder a genre, or a CSV file, but {source} "
            f"{'is neither' if source.exists() else 'does not exist'}"
        )
    if not table.tracks:
        raise RequestError(
            f"{source} holds no track: expected FOLDER/GENRE/FILE, or a CSV with the columns "
            f"{','.join(_REQUIRED_COLUMNS)}"
        )
    return table


def _read_folder(source: Path) -> TrackTable:
    tracks, skipped = [], []
    try:
        entries = sorted(source.iterdir())
    except PermissionError:
        raise RequestError(f"{source} may not be read: no permission") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            skipped.append(Skipped(str(entry), "lies outside of the genre folders"))
            continue
        # does not follow links to folders, so a link in a circle does no harm
        for path in sorted(entry.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
            if hidden or path.is_dir():
                continue
            if not _is_utf8(path):  # could stand neither in Parquet nor in skipped.csv
                readable = str(path).encode("utf-8", "backslashreplace").decode()
                skipped.append(Skipped(readable, "its name is not UTF-8"))
            else:
                tracks.append(Track(str(path), entry.name, track_id=""))
    stems = Counter(Path(track.path).stem for track in tracks)
    named = []
    for track in tracks:
        path = Path(track.path)
        unique = stems[path.stem] == 1
        named.append(
            replace(track, track_id=path.stem if unique else path.relative_to(source).as_posix())
        )
    return TrackTable(source, named, skipped)


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_csv(source: Path) -> TrackTable:
    rows = _csv_rows(source)
    tracks: dict[str, Track] = {}
    skipped: list[Skipped] = []
    for number, row in rows:
        where = f"{source}, line {number}"
        if not row["path"]:
            raise RequestError(f"{where}: each row needs a path, but this one has none")
        path = os.path.normpath(source.parent / row["path"])
        if not row["genre"]:
            skipped.append(Skipped(path, "the table names no genre for it"))
            continue
        if row["split"] not in ("", *SPLITS):
            raise RequestError(
                f"{where}: split must be one of {', '.join(SPLITS)} or empty, "
                f"but it is {row['split']!r}"
            )
        track_id = row["track_id"] or row["path"]
        track = Track(path, row["genre"], track_id, row["artist"], split=row["split"])
        if path in tracks and tracks[path].genre != track.genre:
            raise RequestError(
                f"{where}: a path has one genre, but {row['path']} stands there as "
                f"{tracks[path].genre!r} and as {track.genre!r}; take one of the rows out"
            )
        if path in tracks:
            skipped.append(Skipped(path, f"repeated in line {number}; the first row counts"))
            continue
        tracks[path] = track
    repeated = [i for i, n in Counter(t.track_id for t in tracks.values()).items() if n > 1]
    if repeated:
        raise RequestError(
            f"{source}: track_id must be unique, but {repeated[0]!r} stands at several paths"
            f"{f' (and {len(repeated) - 1} more ids)' if len(repeated) > 1 else ''}"
        )
    return TrackTable(source, list(tracks.values()), skipped)


def _csv_rows(source: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells, stripped, "" where a column is missing or a row is short."""
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or []]
            missing = [name for name in _REQUIRED_COLUMNS if name not in header]
            if missing:
                raise RequestError(
                    f"{source}: a track table needs the columns path and genre (and may have "
                    f"{', '.join(_OPTIONAL_COLUMNS)}), but {' and '.join(missing)} "
                    f"is missing from its first line: {','.join(header)[:200]!r}"
                )
            reader.fieldnames = header
            columns = _REQUIRED_COLUMNS + _OPTIONAL_COLUMNS
            return [
                (reader.line_num, {name: (row.get(name) or "").strip() for name in columns})
                for row in reader
            ]
    except UnicodeDecodeError as error:
        raise RequestError(f"{source}: a track table is UTF-8 text, but {error}") from None
    except csv.Error as error:
        raise RequestError(f"{source}: no readable CSV: {error}") from None
    except OSError as error:
        raise RequestError(f"{source} cannot be read: {error.strerror}") from None


def check_table(table: TrackTable, protocol: str) -> None:
    """Refuse, before any file is opened, what no content of the files could make right.

    Raises RequestError: one genre only; arrays and audio mixed; a protocol that the table lacks
    the columns or ids for; fewer groups in a genre than the split needs.
    """
    if protocol not in PROTOCOLS:
        raise RequestError(f"--protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
    arrays = sum(track.is_array for track in table.tracks)
    if 0 < arrays < len(table.tracks):
        raise RequestError(
            f"a track table holds audio or .npy arrays, not both, but {table.source} lists "
            f"{arrays} arrays and {len(table.tracks) - arrays} other files: make two tables"
        )
    if protocol == "given" and not any(track.split for track in table.tracks):
        raise RequestError(
            f"--protocol given takes the split from the table, but {table.source} has no column "
            "split with train and valid in it: add one, or use --protocol grouped"
        )
    tracks = table.tracks
    if protocol == "fault-filtered":
        tracks, _ = _with_published_facts(tracks)
    _check_counts(tracks, table.genres, protocol)


def draw_split(
    tracks: Sequence[Track], content_hashes: dict[str, str], protocol: str, seed: int
) -> tuple[list[Track], list[Skipped]]:
    """Give each usable track its group and its split; return them and those left out by protocol.

    `content_hashes` maps paths to what `Inspection.content_hash` says. Under `random-chunks` the
    split stays "": `chunk_splits` draws it. Raises RequestError where a genre has too few groups.
    """
    genres = sorted({track.genre for track in tracks})
    skipped: list[Skipped] = []
    if protocol == "fault-filtered":
        tracks, skipped = _with_published_facts(tracks)
    elif protocol == "given":
        skipped = [Skipped(t.path, "the table gives it no split") for t in tracks if not t.split]
        tracks = [track for track in tracks if track.split]
    tracks = assign_groups(tracks, content_hashes)
    _check_counts(tracks, genres, protocol)
    if protocol == "grouped":
        tracks = _grouped(tracks, seed)
    elif protocol == "random-chunks":
        tracks = [replace(track, split="") for track in tracks]
    return _mixed(tracks, seed), skipped


def _mixed(tracks: Sequence[Track], seed: int) -> list[Track]:
    """Part after part, and in random order within: as they will lie in the dataset's shards.

    A shard is then of one part, so that another part is read without it, and a sample of all
    genres, so that what is streamed shard by shard is well mixed.
    """
    order = np.random.default_rng(seed).permutation(len(tracks))
    return sorted((tracks[i] for i in order), key=lambda t: SPLITS.index(t.split or "train"))


def _with_published_facts(tracks: Iterable[Track]) -> tuple[list[Track], list[Skipped]]:
    """GTZAN tracks with the published artist and split (see gtzan.py), and all others."""
    known, skipped = [], []
    for track in tracks:
        fact = fault_filtered().get(track.track_id)
        if fact is None:
            skipped.append(Skipped(track.path, f"{track.track_id} is no id of GTZAN"))
        elif not fact.split:
            skipped.append(Skipped(track.path, "filtered out by the published lists"))
        else:
            known.append(replace(track, artist=fact.artist, split=fact.split))
    return known, skipped


def assign_groups(tracks: Sequence[Track], content_hashes: dict[str, str]) -> list[Track]:
    """Join tracks of one artist and tracks of identical content; a group is named by its first.

    Joining is transitive: two artists who share one recording are one group.
    """
    parent = list(range(len(tracks)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first_with: dict[tuple[str, str], int] = {}
    for i, track in enumerate(tracks):
        content = content_hashes.get(track.path, "")
        for key in (("artist", _artist_key(track)), ("content", content)):
            if key[1]:
                earlier, later = sorted((root(i), root(first_with.setdefault(key, i))))
                parent[later] = earlier
    named = []
    for i, track in enumerate(tracks):
        first = tracks[root(i)]
        named.append(replace(track, group=first.artist or first.track_id))
    return named


def _artist_key(track: Track) -> str:
    return " ".join(track.artist.casefold().split())


def _check_counts(tracks: Sequence[Track], genres: Sequence[str], protocol: str) -> None:
    """Every genre must be able to stand on each side of the split."""
    if len(genres) < 2:
        raise RequestError(
            f"a classifier needs at least two genres, but there is "
            f"{f'only {genres[0]!r}' if genres else 'none'}: add a folder (or rows) of another"
        )
    # Where nothing is known of artists yet, each track counts as a group of its own.
    groups: dict[str, set[str]] = defaultdict(set)
    by_split: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        groups[track.genre].add(track.group or _artist_key(track) or track.track_id)
        by_split[track.split].add(track.genre)
    for genre in genres:
        if protocol == "fault-filtered" and genre not in by_split["train"]:
            raise RequestError(
                "--protocol fault-filtered takes GTZAN's tracks by their track_id (blues.00000 ... "
                f"rock.00099) and needs published train tracks of every genre, but {genre!r} has "
                "none: use --protocol grouped, or take the genre out"
            )
        if not groups[genre]:
            raise RequestError(
                f"genre {genre!r} has no usable track: see the reasons above or in skipped.csv; "
                "add tracks, or take the genre out"
            )
        if protocol == "grouped" and len(groups[genre]) < len(SPLITS):
            raise RequestError(
                f"--protocol grouped needs {len(SPLITS)} groups (artists, or tracks of unknown "
                f"artist) a genre for train, valid and test, but {genre!r} has "
                f"{len(groups[genre])}: add tracks of other artists, or take the genre out"
            )
        if protocol == "given" and genre not in by_split["train"]:
            raise RequestError(
                f"--protocol given needs train rows of every genre, but {genre!r} has none"
            )
    if protocol in ("given", "fault-filtered") and not by_split["valid"]:
        raise RequestError(
            f"--protocol {protocol} needs rows with the split valid to choose configurations by, "
            "but there are none: mark some, or use --protocol grouped"
        )


def _grouped(tracks: Sequence[Track], seed: int) -> list[Track]:
    """Split whole groups 64/16/20, each genre as near to that as its groups allow.

    Groups are taken largest first, ties in random order, each to the part that lacks most of its
    genres' tracks; afterwards a part without any group of some genre is given one. Where artists
    who play several genres leave none to give, other orders are tried.
    """
    genres = sorted({track.genre for track in tracks})
    members: dict[str, list[int]] = defaultdict(list)
    for i, track in enumerate(tracks):
        members[track.group].append(i)
    counts = {
        group: np.array([sum(tracks[i].genre == g for i in indices) for g in genres], float)
        for group, indices in members.items()
    }
    names = sorted(members)
    random = np.random.default_rng(seed)
    for attempt in range(_ORDERS):
        order = [names[i] for i in random.permutation(len(names))]
        if attempt == 0:  # stable: the random order within a size
            order.sort(key=lambda group: -counts[group].sum())
        side = _nearest_sides(order, counts)
        try:
            for g, genre in enumerate(genres):
                _give_each_split_a_group(side, {k: c for k, c in counts.items() if c[g]}, genre)
            break
        except RequestError:
            if attempt == _ORDERS - 1:
                raise
    return [replace(track, split=side[track.group]) for track in tracks]


def _nearest_sides(order: Sequence[str], counts: dict[str, np.ndarray]) -> dict[str, str]:
    total = sum(counts.values(), np.zeros(1))
    lacking = {split: total * share for split, share in GROUPED_SHARES.items()}
    side: dict[str, str] = {}
    for group in order:
        share = counts[group]
        # relative need, so that the small parts get their groups as early as the large one
        need = {s: float(share @ (lacking[s] / (total * GROUPED_SHARES[s]))) for s in SPLITS}
        side[group] = max(SPLITS, key=lambda split: need[split])
        lacking[side[group]] = lacking[side[group]] - share
    return side


def _give_each_split_a_group(
    side: dict[str, str], counts: dict[str, np.ndarray], genre: str
) -> None:
    """Move the smallest group of `genre` from the part with most to a part with none, in place.

    A group of several genres stays: moving it could take another genre's last group away.
    """
    for split in SPLITS:
        if any(side[group] == split for group in counts):
            continue
        holders = Counter(side[group] for group in counts)
        movable = [
            group
            for group, count in counts.items()
            if holders[side[group]] > 1 and np.count_nonzero(count) == 1
        ]
        if not movable:
            raise RequestError(
                f"no split puts genre {genre!r} into train, valid and test: its artists also play "
                "other genres; add tracks of other artists, or use --protocol given"
            )
        giver = max(movable, key=lambda g: (holders[side[g]], -counts[g].sum()))
        side[giver] = split


def chunk_splits(counts: Sequence[int], seed: int) -> list[list[str]]:
    """Under `random-chunks`, the split of each track's chunks: 80 % train, 20 % valid, by chunk.

    As in the published baseline a song's chunks come on both sides, and the held-out fifth is also
    what configurations are chosen by; so it is called valid, and there is no test part to report.
    """
    total = sum(counts)
    sides = np.full(total, "train", dtype=object)
    held_out = np.random.default_rng(seed).permutation(total)
    sides[held_out[: round(total * RANDOM_CHUNKS_SHARES["valid"])]] = "valid"
    bounds = np.cumsum([0, *counts])
    return [list(sides[a:b]) for a, b in pairwise(bounds)]


def groups_on_several_sides(tracks: Iterable[Track]) -> list[str]:
    """Groups whose tracks are in more than one part; empty unless the table's own split leaks."""
    sides: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        sides[track.group].add(track.split)
    return sorted(group for group, splits in sides.items() if len(splits) > 1)
