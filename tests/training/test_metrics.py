"""Figures against numbers computed by hand and by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mgc_ray.training.metrics import (
    accuracy,
    bootstrap_interval,
    confusion_matrix,
    macro_f1,
    track_probs,
)


def test_macro_f1_of_four_items() -> None:
    # genre 0: TP 1, FP 1, FN 1 -> 1/2; genre 1: TP 1, FP 1, FN 0 -> 2/3; genre 2: FN 1 -> 0
    true, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    assert macro_f1(predicted, true, 3) == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_macro_f1_leaves_out_a_genre_that_is_neither_there_nor_predicted() -> None:
    assert macro_f1(np.array([0, 1]), np.array([0, 1]), 5) == 1.0


def test_macro_f1_equals_scikit_learns() -> None:
    random = np.random.default_rng(0)
    true, predicted = random.integers(0, 7, 300), random.integers(0, 7, 300)
    assert macro_f1(predicted, true, 7) == pytest.approx(f1_score(true, predicted, average="macro"))


def test_confusion_matrix_has_the_truth_in_rows() -> None:
    assert confusion_matrix(np.array([1, 1, 0]), np.array([0, 1, 0]), 2).tolist() == [
        [1, 1],
        [0, 1],
    ]


def test_a_tracks_probabilities_are_the_mean_of_its_chunks() -> None:
    probs = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]])
    tracks, means = track_probs(probs, np.array([7, 7, 3]))
    assert tracks.tolist() == [3, 7]
    assert means.tolist() == [[0.2, 0.8], [0.75, 0.25]]


def test_accuracy_refuses_arrays_of_different_length() -> None:
    with pytest.raises(ValueError, match="have 2, 3"):
        accuracy(np.zeros(2), np.zeros(3))


def test_interval_of_independent_tracks_is_the_binomial_one() -> None:
    right = np.repeat([1, 0], [60, 40])
    interval = bootstrap_interval(right, np.arange(100))
    spread = 1.96 * np.sqrt(0.6 * 0.4 / 100)
    assert interval.low == pytest.approx(0.6 - spread, abs=0.015)
    assert interval.high == pytest.approx(0.6 + spread, abs=0.015)


def test_interval_is_wider_where_artists_rise_and_fall_together() -> None:
    right = np.repeat([1, 0], [60, 40])
    alone = bootstrap_interval(right, np.arange(100))
    artists = bootstrap_interval(right, np.arange(100) // 10)
    # ten artists instead of a hundred: sqrt(10) times as wide
    assert (artists.high - artists.low) / (alone.high - alone.low) == pytest.approx(3.16, abs=0.25)


def test_interval_of_all_right_is_not_a_point() -> None:
    interval = bootstrap_interval(np.ones(10), np.arange(10))
    assert interval.high == pytest.approx(1)
    assert interval.low == pytest.approx(0.7225, abs=1e-3)  # Wilson, 10 of 10
    assert interval.method == "Wilson over 10 groups"
