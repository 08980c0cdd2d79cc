"""Figures of merit, from predicted and true genre indices.

Accuracy and F1 are shares, 0..1. A track's probabilities are the mean of its chunks'.
"""

from dataclasses import dataclass

import numpy as np

METRIC = "val_track_accuracy"  # by which trials are judged


def track_probs(chunk_probs: np.ndarray, track: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the chunks' probabilities [N, C] by track index [N].

    Returns the indices of the tracks that have chunks, ascending [K], and probabilities [K, C].
    """
    present, position = np.unique(track, return_inverse=True)
    total = np.zeros((len(present), chunk_probs.shape[1]))
    np.add.at(total, position, chunk_probs)
    return present, total / np.bincount(position)[:, None]


def accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    _check(predicted, true)
    return float(np.mean(predicted == true))


def confusion_matrix(predicted: np.ndarray, true: np.ndarray, genres: int) -> np.ndarray:
    """Counts [true genre, predicted genre], int64."""
    _check(predicted, true)
    matrix = np.zeros((genres, genres), np.int64)
    np.add.at(matrix, (true, predicted), 1)
    return matrix


def macro_f1(predicted: np.ndarray, true: np.ndarray, genres: int) -> float:
    """Mean over the genres of F1 = 2 TP / (2 TP + FP + FN).

    A genre that is neither present nor predicted is left out of the mean; one that is present
    but never right counts 0.
    """
    matrix = confusion_matrix(predicted, true, genres)
    right = np.diag(matrix)
    size = matrix.sum(0) + matrix.sum(1)
    return float(np.mean(2 * right[size > 0] / size[size > 0]))


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a share, and how it was found."""

    low: float
    high: float
    method: str


def bootstrap_interval(
    right: np.ndarray, group: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """95 % percentile interval of an accuracy, drawing whole groups with replacement.

    `right` [K] of 0/1 for each track, `group` [K] any labels. Tracks of one artist rise and fall
    together, so drawing tracks would give an interval that is too narrow. Where all are right or
    all wrong every resample is the same, and Wilson's interval over the groups is given instead.
    """
    _check(right, group)
    names, position = np.unique(group, return_inverse=True)
    hits, sizes = np.bincount(position, right), np.bincount(position)
    if right.min() == right.max():
        return _wilson(float(right[0]), len(names))
    random = np.random.default_rng(seed)
    # how often each group is drawn, instead of the draws: [resamples, groups]
    drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    low, high = np.percentile((drawn @ hits) / (drawn @ sizes), [2.5, 97.5])
    return Interval(float(low), float(high), f"bootstrap over {len(names)} groups")


def _wilson(share: float, n: int) -> Interval:
    """E. B. Wilson, 1927; z = 1.96."""
    z2 = 1.959964**2
    centre, spread = share + z2 / (2 * n), np.sqrt(z2) * np.sqrt(z2 / (4 * n**2))
    low, high = (centre - spread) / (1 + z2 / n), (centre + spread) / (1 + z2 / n)
    return Interval(float(max(low, 0)), float(min(high, 1)), f"Wilson over {n} groups")


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"both need one length of at least 1, but they have {len(a)}, {len(b)}")
