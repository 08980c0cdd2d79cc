"""95 % intervals over artists and seeds, and paired differences.

A *run* is what one seed of a search on one split gives: predictions for K tracks, where the split
has folds those of all folds together. Accuracies are shares, 0..1. R runs, G groups (artists).

A resample draws G groups with replacement, the same ones for all runs, and where there are several
runs R of these with replacement (a hierarchical bootstrap). An interval is between the 2.5 and 97.5
percentiles of the resamples. Few runs are less spread than all that there could be: intervals from
fewer than five are too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from mgc_ray.evaluation.metrics import accuracy, check_same_length
from mgc_ray.results import Interval

RESAMPLES = 10_000
ENOUGH_SEEDS = 5  # for a figure that is committed
_ENDS = (2.5, 97.5)  # percentiles
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
class Evaluated:
    """Tracks that a model is evaluated on: [K] each, `true` and `predicted` are genre indices.

    `chunks` is how many chunks these tracks have, `chunk_accuracy` the share that is right.
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
    def predictions(self) -> dict[str, int]:
        """The predicted genre's index by track id."""
        return dict(zip(self.track_id, self.predicted.tolist(), strict=True))


def pooled(parts: Sequence[Evaluated]) -> Evaluated:
    """Disjoint parts as one."""
    chunks = sum(part.chunks for part in parts)
    return Evaluated(
        track_id=np.concatenate([part.track_id for part in parts]),
        group=np.concatenate([part.group for part in parts]),
        true=np.concatenate([part.true for part in parts]),
        predicted=np.concatenate([part.predicted for part in parts]),
        chunk_accuracy=sum(part.chunk_accuracy * part.chunks for part in parts) / chunks,
        chunks=chunks,
    )


@dataclass(frozen=True)
class Difference:
    """Mean track accuracy of some runs minus that of others, on the same tracks."""

    value: float
    low: float
    high: float
    p: float


def bootstrap_interval(
    right: np.ndarray, group: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """95 % percentile interval of an accuracy, drawing whole groups with replacement.

    `right` [K] of 0/1 for each track, `group` [K] any labels. Tracks of one artist are right or
    wrong together, so drawing tracks would give an interval that is too narrow. Where all are right
    or all wrong every resample is the same, and Wilson's interval over the groups is given instead.
    """
    check_same_length(right, group)
    names, position = np.unique(group, return_inverse=True)
    hits, sizes = np.bincount(position, right), np.bincount(position)
    if right.min() == right.max():
        return _wilson(bool(right[0]), len(names))
    random = np.random.default_rng(seed)
    # how often each group is drawn, instead of the draws: [resamples, groups]
    drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    low, high = np.percentile((drawn @ hits) / (drawn @ sizes), _ENDS)
    return Interval(float(low), float(high), f"bootstrap over {len(names)} groups")


def _wilson(all_right: bool, groups: int) -> Interval:
    from scipy.stats import binomtest  # takes a second to import, and is seldom needed

    found = binomtest(groups if all_right else 0, groups).proportion_ci(method="wilson")
    return Interval(float(found.low), float(found.high), f"Wilson over {groups} groups")


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and the standard deviation of a sample, which one value alone does not have."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def interval_over_runs(runs: Sequence[Evaluated]) -> Interval:
    """95 % interval of the runs' mean accuracy; of one run it is `bootstrap_interval`'s."""
    right = np.concatenate([run.right for run in runs])
    group = np.concatenate([run.group for run in runs])
    if len(runs) == 1 or right.min() == right.max():
        return bootstrap_interval(right, group)
    names = np.unique(group)
    means = _mean_over(resampled(runs, names), _drawn(len(runs), 1))
    low, high = np.nanpercentile(means, _ENDS)
    method = f"bootstrap over {len(names)} groups and {len(runs)} runs"
    return Interval(float(low), float(high), method)


def paired_difference(
    a: Sequence[Evaluated], b: Sequence[Evaluated], same_runs: bool
) -> Difference:
    """How much more accurate the runs `a` are than `b`, which are on the same tracks.

    `same_runs`: a resample draws the same runs for both, else for each by itself.
    """
    names = np.unique(np.concatenate([run.group for run in [*a, *b]]))
    differences = _mean_over(resampled(a, names), _drawn(len(a), 1)) - _mean_over(
        resampled(b, names), _drawn(len(b), 1 if same_runs else 2)
    )
    differences = differences[np.isfinite(differences)]
    # a difference that only rounding makes of equal figures is none
    differences = np.where(np.abs(differences) < 1e-9, 0, differences)
    low, high = np.percentile(differences, _ENDS)
    other_side = min(float(np.mean(differences <= 0)), float(np.mean(differences >= 0)))
    means = [float(np.mean([run.accuracy for run in runs])) for runs in (a, b)]
    return Difference(means[0] - means[1], float(low), float(high), min(1.0, 2 * other_side))


def resampled(runs: Sequence[Evaluated], groups: np.ndarray) -> np.ndarray:
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


@lru_cache(maxsize=4)  # for all pairs of a table; 40 kB per group
def _drawn(number: int, seed: int) -> np.ndarray:
    """How often each is drawn, float32 [RESAMPLES, number]; as `bootstrap_interval` draws."""
    random = np.random.default_rng(seed)
    return random.multinomial(number, np.full(number, 1 / number), RESAMPLES).astype(np.float32)


def _mean_over(accuracies: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Mean [RESAMPLES] of the runs' accuracies as often as they were drawn, without NaN."""
    present = np.isfinite(accuracies)
    with np.errstate(invalid="ignore"):
        weighted = (np.where(present, accuracies, 0) * drawn).sum(1)
        means: np.ndarray = weighted / (present * drawn).sum(1)
    return means
