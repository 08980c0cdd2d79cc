"""The split: what may never be separated, and which part each track is in.

A *group* is what may never be on both sides of a split: the artist where known, else the track;
tracks with identical audio are in one group whatever the table says. The split is drawn in this
file and nowhere else, from whole tracks, before any is cut into chunks (the protocol
`random-chunks`, which does the contrary on purpose, is marked leaky).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.gtzan import fault_filtered
from mgc_ray.data.tracks import ADDED, SPLITS, Skipped, Track, TrackTable

P = TypeVar("P")

PROTOCOLS = (
    "grouped",
    "given",
    "fault-filtered",
    "random-chunks",
    "cross-validation",
    "unlabelled",
)
LEAKY_PROTOCOLS = ("random-chunks",)
GROUPED_SHARES = {"train": 0.64, "valid": 0.16, "test": 0.20}  # 20 % test, then 20 % of the rest
REST_SHARES = {"train": 0.80, "valid": 0.20}  # of what a fold under `cross-validation` leaves
UNLABELLED_VALID = 0.10  # of the groups; the rest is train
LEAST_FOLDS = 3  # with two, half of the tracks would be left to learn from
RANDOM_CHUNKS_SHARES = {"train": 0.80, "valid": 0.20}  # the published baseline's, see chunk_splits
_ORDERS = 100  # tried before a split is called impossible


def parse_fold(text: str) -> tuple[int, int]:
    """K and N of "K/N": under `cross-validation`, part K (from 1) of N is the test part."""
    number, _, folds = text.partition("/")
    if number.isdecimal() and folds.isdecimal() and LEAST_FOLDS <= int(folds) >= int(number) > 0:
        return int(number), int(folds)
    raise RequestError(
        f"--protocol cross-validation needs --fold K/N with 1 <= K <= N and N >= {LEAST_FOLDS} "
        "(two folds would leave half of the tracks to learn from), but "
        f"{f'it is {text!r}' if text else 'there is none'}: give e.g. --fold 1/5"
    )


def check_table(table: TrackTable, protocol: str, fold: str = "") -> None:
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
    if protocol == "cross-validation":
        parse_fold(fold)
    tracks = table.tracks
    if protocol == "fault-filtered":
        tracks, _ = with_published_facts(tracks)
    _check_counts(tracks, table.genres, protocol)


def draw_split(
    tracks: Sequence[Track],
    content_hashes: dict[str, str],
    protocol: str,
    seed: int,
    fold: str = "",
) -> tuple[list[Track], list[Skipped]]:
    """Give each usable track its group and its split; return them and those left out by protocol.

    `content_hashes` maps paths to what `Inspection.content_hash` says. Under `random-chunks` the
    split stays "": `chunk_splits` draws it. Under `cross-validation` the seed alone decides the
    folds, so the test parts of folds 1/N ... N/N are disjoint and together all tracks. Raises
    RequestError where a genre has too few groups.
    """
    genres = sorted({track.genre for track in tracks})
    skipped: list[Skipped] = []
    if protocol == "fault-filtered":
        tracks, skipped = with_published_facts(tracks)
    elif protocol == "given":
        skipped = [Skipped(t.path, "the table gives it no split") for t in tracks if not t.split]
        tracks = [track for track in tracks if track.split]
    tracks = assign_groups(tracks, content_hashes)
    _check_counts(tracks, genres, protocol)
    if protocol == "grouped":
        tracks = _grouped(tracks, GROUPED_SHARES, seed)
    elif protocol == "cross-validation":
        tracks = _cross_validation(tracks, seed, *parse_fold(fold))
    elif protocol == "unlabelled":
        tracks = _unlabelled(tracks, seed)
    elif protocol == "random-chunks":
        tracks = [replace(track, split="") for track in tracks]
    return _mixed(tracks, seed), skipped


def add_to_train(tracks: Sequence[Track], more: Sequence[Track], seed: int) -> list[Track]:
    """Strew further tracks among the training part, whatever the protocol; each is its own group.

    `tracks` as `draw_split` gives them; they keep their order and with it, under `random-chunks`,
    which of their chunks are held out. Raises RequestError where a track_id is in both.
    """
    both = {track.track_id for track in tracks} & {track.track_id for track in more}
    if both:
        raise RequestError(
            f"track_id must be unique, but {min(both)!r} is in the table and also among the tracks "
            "that are added to it: rename it in the table"
        )
    train = sum(track.split in ("", "train") for track in tracks)
    places = np.random.default_rng(seed).integers(0, train, len(more), endpoint=True)
    order = np.argsort([*np.arange(len(tracks)), *(places - 0.5)], kind="stable")
    marked = [replace(track, group=ADDED + track.track_id, split="train") for track in more]
    together = [*tracks, *marked]
    return [together[i] for i in order]


def _mixed(tracks: Sequence[Track], seed: int) -> list[Track]:
    """Part after part, and in random order within: as they will lie in the dataset's shards.

    A shard is then of one part, so that another part is read without it, and a sample of all
    genres, so that what is streamed shard by shard is well mixed.
    """
    order = np.random.default_rng(seed).permutation(len(tracks))
    return sorted((tracks[i] for i in order), key=lambda t: SPLITS.index(t.split or "train"))


def with_published_facts(tracks: Iterable[Track]) -> tuple[list[Track], list[Skipped]]:
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
    """Join tracks of one artist, of identical content, or of one group already.

    Joining is transitive: two artists who share one recording are one group. A group is named by
    its first track's artist, where that is not known by its earlier group or track_id.
    """
    parent = list(range(len(tracks)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first_with: dict[tuple[str, str], int] = {}
    for i, track in enumerate(tracks):
        content = content_hashes.get(track.path, "")
        for key in (
            ("artist", _artist_key(track)),
            ("content", content),
            ("group", track.group),
        ):
            if key[1]:
                earlier, later = sorted((root(i), root(first_with.setdefault(key, i))))
                parent[later] = earlier
    named = []
    for i, track in enumerate(tracks):
        first = tracks[root(i)]
        named.append(replace(track, group=first.artist or first.group or first.track_id))
    return named


def _artist_key(track: Track) -> str:
    return " ".join(track.artist.casefold().split())


def _check_counts(tracks: Sequence[Track], genres: Sequence[str], protocol: str) -> None:
    """Every genre must be able to stand on each side of the split."""
    if protocol == "unlabelled":
        return
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
        if protocol in ("grouped", "cross-validation") and len(groups[genre]) < len(SPLITS):
            raise RequestError(
                f"--protocol {protocol} needs {len(SPLITS)} groups (artists, or tracks of unknown "
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


def _cross_validation(tracks: Sequence[Track], seed: int, number: int, folds: int) -> list[Track]:
    """Fold `number` of `folds` is the test part; the rest is split as under `grouped`."""
    fold_of = draw_folds(tracks, folds, seed)
    test = [
        replace(t, split="test") for t, f in zip(tracks, fold_of, strict=True) if f == number - 1
    ]
    rest = [t for t, f in zip(tracks, fold_of, strict=True) if f != number - 1]
    return test + _grouped(rest, REST_SHARES, seed)


def _unlabelled(tracks: Sequence[Track], seed: int) -> list[Track]:
    """A tenth of the groups is valid, to see when learning ends; there is no test part."""
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


def draw_folds(tracks: Sequence[Track], folds: int, seed: int) -> list[int]:
    """The fold of each track, 0 to `folds` - 1: whole groups, each genre as even as these allow.

    The tracks must have their groups. Synthetic ones are in no fold (-1), so always among what is
    learnt from. A genre of fewer groups than folds is in as many folds as it has groups, one in
    each, so that some folds lack it. Raises RequestError for fewer than two folds, for fewer groups
    than folds and for a genre of one group, which could not be learnt outside of its own fold.
    """
    genres, counts = _genre_counts([track for track in tracks if not track.is_added])
    if folds < 2 or folds > len(counts):
        raise RequestError(
            f"`2 <= folds <= groups` must hold, but there are {folds} folds and {len(counts)} "
            "groups (artists, or tracks of unknown artist): take another number of folds"
        )
    groups = np.count_nonzero(list(counts.values()), axis=0)
    if groups.min() < 2:
        raise RequestError(
            f"folds need 2 groups (artists, or tracks of unknown artist) a genre, one to learn it "
            f"from while the other is held out, but {genres[groups.argmin()]!r} has 1: add tracks "
            "of other artists, or take the genre out"
        )
    for order in _orders(counts, seed):
        fold_of = _nearest_folds(order, counts, folds)
        left_out = _spread(fold_of, counts, genres, range(folds))
        if left_out is None:
            return [-1 if track.is_added else fold_of[track.group] for track in tracks]
    raise RequestError(
        f"no {folds} folds hold genre {left_out!r} as evenly as it has groups: its artists also "
        "play other genres; take fewer folds, or add tracks of other artists"
    )


def _nearest_folds(
    order: Sequence[str], counts: dict[str, np.ndarray], folds: int
) -> dict[str, int]:
    """Each group to the fold that is emptiest of its genres, where several are, of all tracks."""
    total = sum(counts.values(), np.zeros(1))
    held = np.zeros((folds, len(total)))
    fold_of: dict[str, int] = {}
    for group in order:
        fold = int(np.lexsort((held.sum(1), held @ (counts[group] / total)))[0])
        fold_of[group] = fold
        held[fold] += counts[group]
    return fold_of


def _grouped(tracks: Sequence[Track], shares: dict[str, float], seed: int) -> list[Track]:
    """Split whole groups by `shares`, each genre as near to them as its groups allow.

    Groups are taken largest first, ties in random order, each to the part that lacks most of its
    genres' tracks; afterwards a part without any group of some genre is given one. Where artists
    who play several genres leave none to give, other orders are tried.
    """
    genres, counts = _genre_counts(tracks)
    for order in _orders(counts, seed):
        side = _nearest_sides(order, counts, shares)
        left_out = _spread(side, counts, genres, list(shares))
        if left_out is None:
            return [replace(track, split=side[track.group]) for track in tracks]
    *first, last = shares
    raise RequestError(
        f"no split puts genre {left_out!r} into {', '.join(first)} and {last}: its artists also "
        "play other genres; add tracks of other artists, or use --protocol given"
    )


def _genre_counts(tracks: Sequence[Track]) -> tuple[list[str], dict[str, np.ndarray]]:
    """The genres, and how many tracks of each of them every group has, float64 [genres]."""
    genres = sorted({track.genre for track in tracks})
    index = {genre: i for i, genre in enumerate(genres)}
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(genres)))
    for track in tracks:
        counts[track.group][index[track.genre]] += 1
    return genres, dict(counts)


def _orders(counts: dict[str, np.ndarray], seed: int) -> Iterator[list[str]]:
    """Orders in which to place groups: the largest first, ties at random; then all at random."""
    names = sorted(counts)
    random = np.random.default_rng(seed)
    for attempt in range(_ORDERS):
        order = [names[i] for i in random.permutation(len(names))]
        if attempt == 0:  # stable: the random order within a size
            order.sort(key=lambda group: -counts[group].sum())
        yield order


def _nearest_sides(
    order: Sequence[str], counts: dict[str, np.ndarray], shares: dict[str, float]
) -> dict[str, str]:
    total = sum(counts.values(), np.zeros(1))
    lacking = {split: total * share for split, share in shares.items()}
    side: dict[str, str] = {}
    for group in order:
        share = counts[group]
        # relative need, so that the small parts get their groups as early as the large one
        need = {s: float(share @ (lacking[s] / (total * shares[s]))) for s in shares}
        side[group] = max(shares, key=lambda split: need[split])
        lacking[side[group]] = lacking[side[group]] - share
    return side


def _spread(
    part_of: dict[str, P],
    counts: dict[str, np.ndarray],
    genres: Sequence[str],
    parts: Sequence[P],
) -> str | None:
    """Give each part a group of every genre, in place; the first genre that leaves none to give.

    A genre of fewer groups than parts only comes into as many parts.
    """
    for g, genre in enumerate(genres):
        own = {group: count for group, count in counts.items() if count[g]}
        for part in parts:
            _give_a_group(part_of, own, part)
        if len({part_of[group] for group in own}) < min(len(own), len(parts)):
            return genre
    return None


def _give_a_group(part_of: dict[str, P], counts: dict[str, np.ndarray], part: P) -> None:
    """Move the smallest of a genre's groups from the part with most to `part` if it has none.

    A group of several genres stays: moving it could take another genre's last group away.
    """
    holders = Counter(part_of[group] for group in counts)
    if holders[part]:
        return
    movable = [
        group
        for group, count in counts.items()
        if holders[part_of[group]] > 1 and np.count_nonzero(count) == 1
    ]
    if movable:
        giver = max(movable, key=lambda g: (holders[part_of[g]], -counts[g].sum()))
        part_of[giver] = part


def chunk_splits(tracks: Sequence[Track], counts: Sequence[int], seed: int) -> list[list[str]]:
    """The split of each of the tracks' chunks, of which they have as many as `counts` says.

    It is the track's, but where that is "" (under `random-chunks`) 80 % of all such chunks are
    train and 20 % valid. As in the published baseline a song's chunks come on both sides, and the
    held-out fifth is also what configurations are chosen by; so it is called valid, and there is no
    test part to report.
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


def groups_on_several_sides(tracks: Iterable[Track]) -> list[str]:
    """Groups whose tracks are in more than one part; empty unless the table's own split leaks."""
    sides: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        sides[track.group].add(track.split)
    return sorted(group for group, splits in sides.items() if len(splits) > 1)
