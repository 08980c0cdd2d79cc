"""The protocols: how a split is drawn, and what a table needs for each."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mgc_ray import RequestError
from mgc_ray.config import Protocol
from mgc_ray.data.split.folds import draw_folds, parse_fold, split_groups
from mgc_ray.data.split.groups import assign_groups
from mgc_ray.data.split.gtzan import fault_filtered
from mgc_ray.data.split.words import PARTS
from mgc_ray.data.tracks import Skipped, Track, TrackTable

LEAKY_PROTOCOLS = ("random-chunks",)
BY_ARTIST = ("grouped", "cross-validation")
GROUPED_SHARES = {"train": 0.64, "valid": 0.16, "test": 0.20}  # 20 % test, then 20 % of the rest
REST_SHARES = {"train": 0.80, "valid": 0.20}  # of what a fold under `cross-validation` leaves
_DROP = "leave out all that are too small by --drop-small-genres"
UNLABELLED_VALID = 0.10  # of the groups; the rest is train
RANDOM_CHUNKS_SHARES = {"train": 0.80, "valid": 0.20}  # the published baseline's, see chunk_splits


def check_table(table: TrackTable, protocol: Protocol, fold: str = "") -> None:
    """Refuse, before any file is opened, a table that cannot be split whatever its files contain.

    Raises RequestError for: one genre only; arrays and audio mixed; a protocol that the table lacks
    the columns or ids for; fewer groups in a genre than the split needs.
    """
    arrays = [track for track in table.tracks if track.is_array]
    others = [track for track in table.tracks if not track.is_array]
    if arrays and others:
        raise RequestError(
            f"a track table holds audio or .npy arrays, not both, but {table.source} has "
            f"{len(arrays)} array{'s' * (len(arrays) > 1)} (e.g. {arrays[0].path}) and "
            f"{len(others)} other file{'s' * (len(others) > 1)} (e.g. {others[0].path}): put one "
            "kind elsewhere, or make two tables"
        )
    if protocol == "given" and not any(track.split for track in table.tracks):
        raise RequestError(
            f"--protocol given takes the split from the table, but {table.source} has no column "
            "split with train and valid in it (a folder: no subfolders that are called so): add "
            "one, or use --protocol grouped"
        )
    if protocol == "cross-validation":
        parse_fold(fold)
    tracks = table.tracks
    if protocol == "fault-filtered":
        tracks, _ = with_published_facts(tracks)
    _check_counts(tracks, table.genres, protocol)


def drop_small_genres(table: TrackTable, protocol: Protocol) -> TrackTable:
    """The table without genres that cannot be split by the protocol; their tracks as skipped."""
    tracks: Sequence[Track] = table.tracks
    if protocol == "fault-filtered":
        tracks, _ = with_published_facts(tracks)
    small = _dropped(tracks, table.genres, protocol)
    return replace(
        table,
        tracks=[track for track in table.tracks if track.genre not in small],
        skipped=[
            *table.skipped,
            *(Skipped(t.path, small[t.genre]) for t in table.tracks if t.genre in small),
        ],
    )


def draw_split(
    tracks: Sequence[Track],
    recordings: dict[str, str],
    protocol: Protocol,
    seed: int,
    fold: str = "",
    drop_small: bool = False,
) -> tuple[list[Track], list[Skipped]]:
    """Give each usable track its group and its split; return them and those left out by protocol.

    `drop_small`: leave out genres with too few groups too, instead of raising RequestError.
    `recordings` are by path. Under `random-chunks` the split stays "": `chunk_splits` draws it.
    Under `cross-validation` the folds depend on the seed alone, so the test parts of folds 1/N ...
    N/N are disjoint and together all tracks. Raises RequestError where a genre has too few groups.
    """
    genres = sorted({track.genre for track in tracks})
    skipped: list[Skipped] = []
    if protocol == "fault-filtered":
        tracks, skipped = with_published_facts(tracks)
    elif protocol == "given":
        skipped = [Skipped(t.path, "the table has no split for it") for t in tracks if not t.split]
        tracks = [track for track in tracks if track.split]
    tracks = assign_groups(tracks, recordings)
    if drop_small:
        small = _dropped(tracks, genres, protocol)
        skipped += [Skipped(t.path, small[t.genre]) for t in tracks if t.genre in small]
        tracks = [track for track in tracks if track.genre not in small]
        genres = [genre for genre in genres if genre not in small]
    _check_counts(tracks, genres, protocol)
    if protocol == "grouped":
        tracks = split_groups(tracks, GROUPED_SHARES, seed)
    elif protocol == "cross-validation":
        tracks = _cross_validation(tracks, seed, *parse_fold(fold))
    elif protocol == "unlabelled":
        tracks = _unlabelled(tracks, seed)
    elif protocol == "random-chunks":
        tracks = [replace(track, split="") for track in tracks]
    return list(tracks), skipped


def add_to_train(tracks: Sequence[Track], more: Sequence[Track]) -> list[Track]:
    """Add further tracks to the training part, each a group of its own.

    Raises RequestError where a track_id is in both.
    """
    both = {track.track_id for track in tracks} & {track.track_id for track in more}
    if both:
        raise RequestError(
            f"track_id must be unique, but {min(both)!r} is in the table and also among the tracks "
            "that are added to it: rename it in the table"
        )
    return [*tracks, *(replace(t, group=t.track_id, split="train", added=True) for t in more)]


def with_published_facts(tracks: Iterable[Track]) -> tuple[list[Track], list[Skipped]]:
    """GTZAN tracks with the published artist and split (see gtzan.py), and all others."""
    known, skipped = [], []
    for track in tracks:
        fact = fault_filtered().get(track.track_id)
        if fact is None:
            skipped.append(Skipped(track.path, f"{track.track_id} is not an id of GTZAN"))
        elif not fact.split:
            skipped.append(Skipped(track.path, "left out by the published lists"))
        else:
            known.append(replace(track, artist=fact.artist, split=fact.split))
    return known, skipped


def _check_counts(tracks: Sequence[Track], genres: Sequence[str], protocol: str) -> None:
    """Every genre must be able to be on each side of the split."""
    if protocol == "unlabelled":
        return
    if len(genres) < 2:
        raise RequestError(
            f"a classifier needs at least two genres, but there is "
            f"{f'only {genres[0]!r}' if genres else 'none'}: add a folder (or rows) of another"
        )
    for refusal, _ in _small_genres(tracks, genres, protocol).values():
        raise RequestError(refusal)
    if protocol in ("given", "fault-filtered") and not any(t.split == "valid" for t in tracks):
        raise RequestError(
            f"--protocol {protocol} needs tracks of the part valid to choose configurations by, "
            "but there are none: mark some in the column split (in a folder with train, valid and "
            "test: move some artists from train to valid), or use --protocol grouped"
        )


def _small_genres(
    tracks: Sequence[Track], genres: Sequence[str], protocol: str
) -> dict[str, tuple[str, str]]:
    """The genres that cannot be on each side of the split, with the refusal and what they lack.

    Where artists are not known yet, each track counts as a group of its own.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    by_split: dict[str, set[str]] = defaultdict(set)
    for track in assign_groups(tracks, {}):  # before the split is drawn, some have no group
        groups[track.genre].add(track.group)
        by_split[track.split].add(track.genre)
    small = {}
    for genre in genres:
        count, in_train = len(groups[genre]), genre in by_split["train"]
        if protocol == "fault-filtered" and not in_train:
            small[genre] = (
                "--protocol fault-filtered takes GTZAN's tracks by their track_id (blues.00000 ... "
                f"rock.00099) and needs published train tracks of every genre, but {genre!r} has "
                f"none: use --protocol grouped, remove the genre, or {_DROP}",
                "has no train track in the published lists",
            )
        elif not count:
            small[genre] = (
                f"genre {genre!r} has no usable track: see the reasons above or in skipped.csv; "
                f"add tracks, remove the genre, or {_DROP}",
                "has no usable track",
            )
        elif protocol in BY_ARTIST and count < len(PARTS):
            needs = f"{len(PARTS)} groups (artists, or tracks of unknown artist)"
            small[genre] = (
                f"--protocol {protocol} needs {needs} per genre for train, valid and test, but "
                f"{genre!r} has {count}: add tracks of other artists, remove the genre, or {_DROP}",
                f"has {count} of the {needs} that --protocol {protocol} needs",
            )
        elif protocol == "given" and not in_train:
            small[genre] = (
                f"--protocol given needs train rows of every genre, but {genre!r} has none: mark "
                f"some, remove the genre, or {_DROP}",
                "has no train row",
            )
    return small


def _dropped(tracks: Sequence[Track], genres: Sequence[str], protocol: str) -> dict[str, str]:
    """The genres that are left out, and why; RequestError where fewer than two would be left."""
    if protocol == "unlabelled":
        return {}
    lacks = {g: lack for g, (_, lack) in _small_genres(tracks, genres, protocol).items()}
    if lacks and len(genres) - len(lacks) < 2:
        genre, lack = next(iter(lacks.items()))
        raise RequestError(
            f"--drop-small-genres would leave {len(genres) - len(lacks)} of {len(genres)} genres, "
            f"but a classifier needs at least two; the first that is too small: {genre!r} {lack}: "
            "add tracks of other artists"
        )
    return {
        genre: f"its genre {genre!r} {lack}: left out by --drop-small-genres"
        for genre, lack in lacks.items()
    }


def _cross_validation(tracks: Sequence[Track], seed: int, number: int, folds: int) -> list[Track]:
    """Fold `number` of `folds` is the test part; the rest is split as under `grouped`."""
    fold_of = draw_folds(tracks, folds, seed)
    test = [
        replace(t, split="test") for t, f in zip(tracks, fold_of, strict=True) if f == number - 1
    ]
    rest = [t for t, f in zip(tracks, fold_of, strict=True) if f != number - 1]
    return test + split_groups(rest, REST_SHARES, seed)


def _unlabelled(tracks: Sequence[Track], seed: int) -> list[Track]:
    """A tenth of the groups is valid, to see when training ends; there is no test part."""
    groups = sorted({track.group for track in tracks})
    if len(groups) < 2:
        raise RequestError(
            "--protocol unlabelled needs 2 groups (artists, or tracks of unknown artist), for train"
            f" and valid, but the {len(tracks)} usable tracks are of {len(groups)}: add tracks of "
            "other artists"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    valid = {groups[i] for i in order[: max(1, round(len(groups) * UNLABELLED_VALID))]}
    return [replace(t, split="valid" if t.group in valid else "train") for t in tracks]


def chunk_splits(tracks: Sequence[Track], counts: Sequence[int], seed: int) -> list[list[str]]:
    """The split of each chunk of each track; `counts` are the tracks' numbers of chunks.

    It is the track's, except where that is "" (under `random-chunks`): 80 % of all such chunks are
    train and 20 % valid. As in the published baseline, both contain chunks of each song, and
    configurations are chosen on the held-out fifth. So that is the validation part, and there is no
    test part.
    """
    undrawn = [
        count if track.split == "" else 0 for track, count in zip(tracks, counts, strict=True)
    ]
    sides = np.full(sum(undrawn), "train", dtype=object)
    held_out = np.random.default_rng(seed).permutation(len(sides))
    sides[held_out[: round(len(sides) * RANDOM_CHUNKS_SHARES["valid"])]] = "valid"
    bounds = np.cumsum([0, *undrawn])
    return [
        list(sides[a:b]) if track.split == "" else [track.split] * count
        for track, count, (a, b) in zip(tracks, counts, pairwise(bounds), strict=True)
    ]
