"""Figures over seeds and folds: means, 95 % intervals, paired differences.

A *run* is what one seed of the search on one split gives: predictions for K tracks, where the split
has folds those of all folds together. Accuracies are shares, 0..1. R runs, G groups (artists).

A resample draws G groups with replacement, the same ones for all runs, and where there are several
runs R of these with replacement (a hierarchical bootstrap). An interval is of the 2.5 and 97.5
percentiles over the resamples. Few runs are less spread than all that there could be: intervals
from less than five are too narrow.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from mgc_ray import RequestError
from mgc_ray.training.metrics import Interval, accuracy, bootstrap_interval, macro_f1

RESAMPLES = 10_000
_ENDS = (2.5, 97.5)  # percentiles
ENOUGH_SEEDS = 5  # for a figure that is committed
INTERVAL_METHOD = (
    f"95 % interval: percentiles of {RESAMPLES} resamples, each of groups (artists) drawn with "
    "replacement, the same for all runs, and of runs (a seed on a split) drawn with replacement "
    "where there are several; Wilson's over the groups where all tracks are right or all wrong"
)
DIFFERENCE_METHOD = (
    f"difference: of mean track accuracies; interval and p from {RESAMPLES} resamples that draw "
    "the same groups for both rows, and the same runs where both rows have these; p is twice the "
    "share of resamples on the other side of 0 (or at 0), at most 1, not corrected for the number "
    "of pairs"
)


@dataclass(frozen=True)
class Judged:
    """Tracks that a model is judged on: [K] each, `true` and `predicted` are genre indices.

    `chunks` is how many there are of these tracks, `chunk_accuracy` the share that is right.
    """

    track_id: np.ndarray
    group: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    chunk_accuracy: float
    chunks: int

    @property
    def right(self) -> np.ndarray:
        """Whether each track is right, bool [K]."""
        right: np.ndarray = self.predicted == self.true
        return right

    @property
    def accuracy(self) -> float:
        return accuracy(self.predicted, self.true)

    @cached_property
    def tracks(self) -> frozenset[tuple[str, str, int]]:
        """What identifies the tracks: id, group and genre of each."""
        return frozenset(zip(self.track_id, self.group, self.true.tolist(), strict=True))

    @property
    def answers(self) -> dict[str, int]:
        """The predicted genre's index by track id."""
        return dict(zip(self.track_id, self.predicted.tolist(), strict=True))


@dataclass(frozen=True)
class Kind:
    """What tells a row of the table from another: in one, only seeds and folds differ."""

    model: str  # ensemble, or a family
    families: tuple[str, ...]  # that the search searched
    protocol: str
    leaky: bool
    folds: int | None  # of the protocol
    refitted: bool
    trained_on: tuple[str, ...]  # beside the dataset itself
    part: str  # that the model is judged on: test, validation, out_of_fold
    tracks: str  # the track table's name
    settings: tuple[tuple[str, str], ...]  # all else that was asked for


@dataclass(frozen=True)
class Outcome:
    """One model of one search. `seconds` is what training it took."""

    search: str
    kind: Kind
    seed: int
    split_seed: int
    fold: int | None  # from 1
    parameters: int
    seconds: float
    judged: Judged


@dataclass(frozen=True)
class Run:
    """The outcomes of one seed on one split: one, or one a fold."""

    seed: int
    split_seed: int
    outcomes: tuple[Outcome, ...]

    @property
    def key(self) -> tuple[int, int]:
        return self.seed, self.split_seed

    @cached_property
    def judged(self) -> Judged:
        """The tracks of all outcomes together."""
        return pooled([outcome.judged for outcome in self.outcomes])


@dataclass(frozen=True)
class Row:
    """All runs of one kind, by seed; see `rows_of`."""

    kind: Kind
    runs: tuple[Run, ...]
    genres: int

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def judged(self) -> list[Judged]:
        """What each run is judged on."""
        return [run.judged for run in self.runs]

    @property
    def track_accuracy(self) -> tuple[float, float | None]:
        """Mean and standard deviation over the runs."""
        return mean_and_deviation([one.accuracy for one in self.judged])

    @property
    def chunk_accuracy(self) -> tuple[float, float | None]:
        """Mean and standard deviation over the runs."""
        return mean_and_deviation([one.chunk_accuracy for one in self.judged])

    @property
    def macro_f1(self) -> float:
        return float(
            np.mean([macro_f1(one.predicted, one.true, self.genres) for one in self.judged])
        )

    def gives_the_answers_of(self, other: "Row") -> bool:
        """Whether it predicts the same for each track of each run."""
        return _same_runs(self, other) and all(
            one.judged.answers == another.judged.answers
            for one, another in zip(self.runs, other.runs, strict=True)
        )

    @property
    def parameters(self) -> int:
        """Mean over the searches, of which each fold is one."""
        return round(float(np.mean([o.parameters for run in self.runs for o in run.outcomes])))

    @property
    def seconds(self) -> float:
        """Mean over the searches, of which each fold is one."""
        return float(np.mean([o.seconds for run in self.runs for o in run.outcomes]))


@dataclass(frozen=True)
class Difference:
    """Mean track accuracy of one row less that of another, on the same tracks."""

    value: float
    low: float
    high: float
    p: float


def rows_of(outcomes: Iterable[Outcome], genres: int) -> list[Row]:
    """A row for each kind, in the order of their first outcomes.

    Raises RequestError where two outcomes of one kind have the same seeds and fold, or the same
    split but other tracks to be judged on, and where folds share tracks.
    """
    of_kind: dict[Kind, dict[tuple[int, int], list[Outcome]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for outcome in outcomes:
        of_kind[outcome.kind][outcome.seed, outcome.split_seed].append(outcome)
    rows = []
    for kind, of_run in of_kind.items():
        for same_seeds in of_run.values():
            _check_run(same_seeds)
        every = [outcome for same_seeds in of_run.values() for outcome in same_seeds]
        _check_splits(every)
        runs = [
            Run(*key, tuple(sorted(same_seeds, key=lambda outcome: outcome.fold or 0)))
            for key, same_seeds in sorted(of_run.items())
        ]
        rows.append(Row(kind, tuple(runs), genres))
    return rows


def _check_run(outcomes: Sequence[Outcome]) -> None:
    """RequestError where outcomes of one seed and split are no different folds."""
    by_fold: dict[int | None, Outcome] = {}
    for one in outcomes:
        other = by_fold.setdefault(one.fold, one)
        if other is not one:
            if other.search == one.search:
                raise RequestError(
                    f"each search may be there once, but {one.search} is there twice (a saved "
                    "comparison holds all that it was made of): leave it out"
                )
            fold = f", fold {one.fold}/{one.kind.folds}" if one.fold else ""
            raise RequestError(
                f"each search must be of another --seed, --split-seed or --fold, or ask for other "
                f"settings, but {other.search} and {one.search} are both {one.kind.model} of seed "
                f"{one.seed}, split seed {one.split_seed}{fold}: leave one of them out"
            )
    seen: dict[str, Outcome] = {}
    for one in outcomes:
        for track in one.judged.track_id:
            other = seen.setdefault(track, one)
            if other is not one:
                raise RequestError(
                    f"no track may be tested in two folds, but {track} is in those of "
                    f"{other.search} and {one.search}: they are of different track tables, so "
                    "compare them in two calls"
                )


def _check_splits(outcomes: Sequence[Outcome]) -> None:
    """RequestError where outcomes of one kind, split and fold were judged on other tracks."""
    first: dict[tuple[int, int | None], Outcome] = {}
    for one in outcomes:
        other = first.setdefault((one.split_seed, one.fold), one)
        if one.judged.tracks != other.judged.tracks:
            raise RequestError(
                f"searches of one split must have been judged on the same tracks, but "
                f"{other.search} and {one.search} were not ({len(other.judged.track_id)} and "
                f"{len(one.judged.track_id)} tracks): their tables differ, so compare them in two "
                "calls"
            )


def pooled(parts: Sequence[Judged]) -> Judged:
    """Disjoint parts as one."""
    chunks = sum(part.chunks for part in parts)
    return Judged(
        track_id=np.concatenate([part.track_id for part in parts]),
        group=np.concatenate([part.group for part in parts]),
        true=np.concatenate([part.true for part in parts]),
        predicted=np.concatenate([part.predicted for part in parts]),
        chunk_accuracy=sum(part.chunk_accuracy * part.chunks for part in parts) / chunks,
        chunks=chunks,
    )


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and the standard deviation of a sample, which one value alone does not have."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def interval_over_runs(runs: Sequence[Judged]) -> Interval:
    """95 % interval of the runs' mean accuracy; of one run it is `bootstrap_interval`'s."""
    right = np.concatenate([run.right for run in runs])
    group = np.concatenate([run.group for run in runs])
    if len(runs) == 1 or right.min() == right.max():
        return bootstrap_interval(right, group, RESAMPLES)
    names = _groups(runs)
    low, high = np.nanpercentile(_mean_over(resampled(runs, names), _drawn(len(runs), 1)), _ENDS)
    return Interval(
        float(low), float(high), f"bootstrap over {len(names)} groups and {len(runs)} runs"
    )


def resampled(runs: Sequence[Judged], groups: np.ndarray) -> np.ndarray:
    """Accuracies [RESAMPLES, R] of the runs, for resamples of these groups [G], sorted.

    NaN where none of the groups drawn has a track of that run, as runs of other splits may have.
    """
    hits, sizes = np.zeros((2, len(groups), len(runs)), np.float32)
    for number, run in enumerate(runs):
        position = np.searchsorted(groups, run.group)
        hits[:, number] = np.bincount(position, run.right, len(groups))
        sizes[:, number] = np.bincount(position, minlength=len(groups))
    drawn = _drawn(len(groups), 0)
    with np.errstate(invalid="ignore"):
        accuracies: np.ndarray = (drawn @ hits).astype(float) / (drawn @ sizes)
    return accuracies


def paired_difference(a: Row, b: Row) -> Difference | None:
    """How much more accurate `a` is than `b`; None where they cannot be paired.

    They can where protocol, part and tracks are the same in each run of the same split. Where both
    have the same runs a resample draws the same ones for both, else it draws for each by itself.
    """
    if not _on_same_tracks(a, b):
        return None
    names = _groups([*a.judged, *b.judged])
    differences = _mean_over(resampled(a.judged, names), _drawn(len(a.runs), 1)) - _mean_over(
        resampled(b.judged, names), _drawn(len(b.runs), 1 if _same_runs(a, b) else 2)
    )
    differences = differences[np.isfinite(differences)]
    # a difference of 0 that floats make of equal figures is none
    differences = np.where(np.abs(differences) < 1e-9, 0, differences)
    low, high = np.percentile(differences, _ENDS)
    other_side = min(float(np.mean(differences <= 0)), float(np.mean(differences >= 0)))
    return Difference(
        a.track_accuracy[0] - b.track_accuracy[0],
        float(low),
        float(high),
        min(1.0, 2 * other_side),
    )


def _on_same_tracks(a: Row, b: Row) -> bool:
    if (a.kind.protocol, a.kind.part) != (b.kind.protocol, b.kind.part):
        return False
    if _same_runs(a, b):
        return all(
            one.judged.tracks == other.judged.tracks
            for one, other in zip(a.runs, b.runs, strict=True)
        )
    tracks_a, tracks_b = (
        {(run.split_seed, run.judged.tracks) for run in row.runs} for row in (a, b)
    )
    splits = {split for split, _ in tracks_a}
    return tracks_a == tracks_b and len(tracks_a) == len(splits)


def _same_runs(a: Row, b: Row) -> bool:
    return [run.key for run in a.runs] == [run.key for run in b.runs]


def _groups(runs: Sequence[Judged]) -> np.ndarray:
    return np.unique(np.concatenate([run.group for run in runs]))


@lru_cache(maxsize=4)  # for all pairs of a table; 40 kB a group
def _drawn(number: int, seed: int) -> np.ndarray:
    """How often each of so many is drawn, float32 [RESAMPLES, number]; as `bootstrap_interval`."""
    random = np.random.default_rng(seed)
    return random.multinomial(number, np.full(number, 1 / number), RESAMPLES).astype(np.float32)


def _mean_over(accuracies: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Mean [RESAMPLES] of the runs' accuracies as often as they were drawn, without NaN."""
    there = np.isfinite(accuracies)
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (np.where(there, accuracies, 0) * drawn).sum(1) / (there * drawn).sum(1)
    return means
