"""Greedy selection with replacement by log-loss, on cases small enough to follow by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc_ray.ensembling.select import select
from mgc_ray.evaluation.metrics import log_loss


def _probs(*members: list[float]) -> np.ndarray:
    """Members' probabilities of the true genre 0 of each track, the rest on genre 1."""
    return np.array([[[p, 1 - p] for p in member] for member in members])


def _select(*members: list[float]) -> list[float]:
    probs = _probs(*members)
    weights: list[float] = select(probs, np.zeros(probs.shape[1], int)).tolist()
    return weights


def test_the_only_member_has_all_the_weight() -> None:
    assert _select([0.9, 0.1]) == [1.0]


def test_two_that_complement_each_other_beat_the_best_alone() -> None:
    # likelihoods alone 0.09, 0.09 and 0.2025; of the first two together 0.5 x 0.5 = 0.25. The third
    # is chosen first and cannot be taken back, so it keeps a share of the 25 rounds
    weights = _select([0.9, 0.1], [0.1, 0.9], [0.45, 0.45])
    assert weights[0] == weights[1] > 0.4
    mean = np.tensordot(weights, _probs([0.9, 0.1], [0.1, 0.9], [0.45, 0.45]), 1)[:, 0]
    assert mean.prod() > 0.24


def test_replacement_gives_the_better_member_more_weight() -> None:
    # a share w of the first gives likelihood (0.1 + 0.8 w)(0.7 - 0.4 w): best at w = 0.8125
    weights = _select([0.9, 0.3], [0.1, 0.7])
    assert weights[0] == pytest.approx(0.8125, abs=0.02)
    assert sum(weights) == 1


def test_the_first_round_has_the_lowest_loss_and_not_the_most_right() -> None:
    # the first is right on both tracks, the second on one, but the second's likelihood is higher:
    # 0.51 x 0.51 = 0.2601 < 0.99 x 0.49 = 0.4851
    assert _select([0.51, 0.51], [0.99, 0.49])[1] > 0.5


def test_the_best_round_counts_and_not_the_last() -> None:
    # half and half is best (0.51 x 0.51); every odd number of picks is worse
    assert _select([0.95, 0.07], [0.07, 0.95]) == [0.5, 0.5]


def test_a_member_that_only_harms_has_no_weight() -> None:
    assert _select([0.9, 0.8], [0.1, 0.2]) == [1.0, 0.0]


def test_equal_members_tie_to_the_earlier() -> None:
    assert _select([0.8, 0.8], [0.8, 0.8]) == [1.0, 0.0]
    assert _select([0.1, 0.2], [0.8, 0.8], [0.8, 0.8]) == [0.0, 1.0, 0.0]


def test_selection_over_three_genres_follows_the_true_one() -> None:
    # both members give track 0 alike; of track 1, genre 2, the second is surer
    probs = np.array([[[0.6, 0.2, 0.2], [0.3, 0.3, 0.4]], [[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]]])
    assert select(probs, np.array([0, 2])).tolist() == [0.0, 1.0]


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
    best = min(log_loss(member, true) for member in probs)
    assert log_loss(np.tensordot(weights, probs, 1), true) <= best + 1e-8


def test_probabilities_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"for 3 tracks, not \(2, 4, 5\)"):
        select(np.zeros((2, 4, 5)), np.zeros(3, int))
