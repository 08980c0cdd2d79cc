"""Distribute whole groups over parts or folds, so that each has a fair share of every genre."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.tracks import Track

P = TypeVar("P")

LEAST_FOLDS = 3  # with two, only half of the tracks would be left to learn from
_ORDERS = 100  # that are tried before a split is called impossible


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


def draw_folds(tracks: Sequence[Track], folds: int, seed: int) -> list[int]:
    """The fold of each track, 0 to `folds` - 1: whole groups, each genre as even as these allow.

    The tracks must have their groups. Added ones are in no fold (-1), so that all models learn from
    them. A genre with fewer groups than folds is in as many folds as it has groups, so some folds
    lack it. Raises RequestError for fewer than two folds, for fewer groups than folds and for a
    genre with one group, which could not be learnt outside its own fold.
    """
    genres, counts = _genre_counts([track for track in tracks if not track.added])
    if folds < 2 or folds > len(counts):
        raise RequestError(
            f"`2 <= folds <= groups` must hold, but there are {folds} folds and {len(counts)} "
            "groups (artists, or tracks of unknown artist): choose another number of folds"
        )
    groups = np.count_nonzero(list(counts.values()), axis=0)
    if groups.min() < 2:
        raise RequestError(
            "folds need 2 groups (artists, or tracks of unknown artist) per genre, one to learn it "
            f"from while the other is held out, but {genres[groups.argmin()]!r} has 1: add tracks "
            "of other artists, or remove the genre"
        )
    for order in _orders(counts, seed):
        fold_of = _nearest_folds(order, counts, folds)
        left_out = _spread(fold_of, counts, genres, range(folds))
        if left_out is None:
            return [-1 if track.added else fold_of[track.group] for track in tracks]
    raise RequestError(
        f"no {folds} folds hold genre {left_out!r} as evenly as it has groups: its artists also "
        "play other genres; use fewer folds, or add tracks of other artists"
    )


def _nearest_folds(
    order: Sequence[str], counts: dict[str, np.ndarray], folds: int
) -> dict[str, int]:
    """Each group to the fold with the fewest tracks of its genres, a tie to the emptiest fold."""
    total = sum(counts.values(), np.zeros(1))
    held = np.zeros((folds, len(total)))
    fold_of: dict[str, int] = {}
    for group in order:
        fold = int(np.lexsort((held.sum(1), held @ (counts[group] / total)))[0])
        fold_of[group] = fold
        held[fold] += counts[group]
    return fold_of


def split_groups(tracks: Sequence[Track], shares: dict[str, float], seed: int) -> list[Track]:
    """Split whole groups by `shares`, each genre as close to them as its groups allow.

    Groups are taken largest first, ties in random order, each to the part that lacks most of its
    genres' tracks; afterwards a part without any group of some genre is given one. Where that is
    not possible, because artists play several genres, other orders are tried.
    """
    genres, counts = _genre_counts(tracks)
    for order in _orders(counts, seed):
        side = _nearest_sides(order, counts, shares)
        left_out = _spread(side, counts, genres, list(shares))
        if left_out is None:
            return [replace(track, split=side[track.group]) for track in tracks]
    *first, last = shares
    raise RequestError(
        f"no split has genre {left_out!r} in {', '.join(first)} and {last}: its artists also "
        "play other genres; add tracks of other artists, or use --protocol given"
    )


def _genre_counts(tracks: Sequence[Track]) -> tuple[list[str], dict[str, np.ndarray]]:
    """The genres, and for every group how many tracks of each it has, float64 [genres]."""
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
    """Give each part a group of every genre, in place; the first genre for which that fails.

    A genre with fewer groups than parts comes into as many parts as it has groups.
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
