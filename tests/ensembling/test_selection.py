"""Greedy selection with replacement, on cases small enough to follow by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc_ray.ensembling.selection import select


def _probs(*rights: list[float]) -> np.ndarray:
    """Members' probabilities of the true genre 0 of each track, the rest on genre 1."""
    return np.array([[[p, 1 - p] for p in right] for right in rights])


def test_the_only_member_has_all_the_weight() -> None:
    assert select(_probs([0.9, 0.1]), np.zeros(2, int)).tolist() == [1.0]


def test_two_that_complement_each_other_beat_the_best_alone() -> None:
    # alone: 2/3, 2/3, 2/3 right; the first two together: all three
    probs = _probs([0.9, 0.9, 0.2], [0.4, 0.4, 0.9], [0.6, 0.6, 0.45])
    weights = select(probs, np.zeros(3, int))
    mean = np.tensordot(weights, probs, 1)
    assert (mean.argmax(1) == 0).all()
    assert weights[0] > 0
    assert weights[1] > 0


def test_replacement_lets_the_better_count_double() -> None:
    # (a+b)/2 fails on track 2: (.7+.25)/2 < .5, but (2a+b)/3 is right on all: (1.4+.25)/3 > .5
    probs = _probs([0.4, 0.7], [0.9, 0.05])
    weights = select(probs, np.zeros(2, int))
    mean = np.tensordot(weights, probs, 1)
    assert (mean.argmax(1) == 0).all()
    assert weights[0] > weights[1] > 0


def test_the_best_round_counts_and_not_the_last() -> None:
    # half and half is right on both tracks (.51); any odd number of picks is wrong on one of them
    weights = select(_probs([0.95, 0.07], [0.07, 0.95]), np.zeros(2, int))
    assert weights.tolist() == [0.5, 0.5]


def test_a_member_that_only_harms_has_no_weight() -> None:
    weights = select(_probs([0.9, 0.8], [0.1, 0.2]), np.zeros(2, int))
    assert weights.tolist() == [1.0, 0.0]


def test_equal_members_tie_to_the_earlier() -> None:
    assert select(_probs([0.8, 0.8], [0.8, 0.8]), np.zeros(2, int)).tolist() == [1.0, 0.0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 20), st.integers(2, 5), st.integers(0, 2**31))
def test_never_worse_on_what_it_was_selected_on_than_the_best_member(
    members: int, tracks: int, genres: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    probs = random.dirichlet(np.ones(genres), (members, tracks))
    true = random.integers(0, genres, tracks)
    weights = select(probs, true)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    best = max(np.mean(p.argmax(1) == true) for p in probs)
    assert np.mean(np.tensordot(weights, probs, 1).argmax(1) == true) >= best - 1e-9


def test_probabilities_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"for 3 tracks, not \(2, 4, 5\)"):
        select(np.zeros((2, 4, 5)), np.zeros(3, int))
