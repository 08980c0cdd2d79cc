"""Intervals and differences, against enumeration of all resamples and numbers by hand."""

from collections.abc import Sequence
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc_ray.evaluation.intervals import (
    Evaluated,
    bootstrap_interval,
    interval_over_runs,
    mean_and_deviation,
    paired_difference,
    pooled,
    resampled,
)
from tests.evaluation.made_runs import evaluated

THREE = (
    evaluated("1110", "0", "101"),
    evaluated("1000", "1", "100"),
    evaluated("1111", "0", "110"),
)


def drawn(runs: Sequence[Evaluated], groups: Sequence[str], seeds: Sequence[int]) -> float:
    """Mean accuracy where these groups and runs were drawn, as it is defined."""
    accuracies = []
    for seed in seeds:
        rights = [runs[seed].right[runs[seed].group == group] for group in groups]
        accuracies.append(np.mean(np.concatenate(rights)))
    return float(np.mean(accuracies))


# --- one run ---


def test_the_interval_of_independent_tracks_is_the_binomial_one() -> None:
    right = np.repeat([1, 0], [60, 40])
    interval = bootstrap_interval(right, np.arange(100))
    spread = 1.96 * np.sqrt(0.6 * 0.4 / 100)
    assert interval.low == pytest.approx(0.6 - spread, abs=0.015)
    assert interval.high == pytest.approx(0.6 + spread, abs=0.015)


def test_the_interval_is_wider_where_tracks_of_an_artist_are_right_or_wrong_together() -> None:
    right = np.repeat([1, 0], [60, 40])
    alone = bootstrap_interval(right, np.arange(100))
    artists = bootstrap_interval(right, np.arange(100) // 10)
    # ten artists instead of a hundred: sqrt(10) times as wide
    assert (artists.high - artists.low) / (alone.high - alone.low) == pytest.approx(3.16, abs=0.25)


@pytest.mark.parametrize(("right", "expected"), [(1, (0.7225, 1)), (0, (0, 0.2775))])
def test_the_interval_of_all_right_or_all_wrong_is_wilsons(
    right: int, expected: tuple[float, float]
) -> None:
    interval = bootstrap_interval(np.full(10, right), np.arange(10))
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-4)
    assert interval.method == "Wilson over 10 groups"


# --- several runs ---


def test_resamples_of_two_groups_are_as_often_as_they_are_likely() -> None:
    # one track that is right and three that are wrong: drawn twice each or once both
    accuracies = resampled([evaluated("1", "000")], np.array(["a", "b"]))[:, 0]
    for value, likely in ((1.0, 0.25), (0.25, 0.5), (0.0, 0.25)):
        assert np.mean(accuracies == value) == pytest.approx(likely, abs=0.02)


def test_the_interval_of_one_run_is_that_of_its_own_search() -> None:
    interval = interval_over_runs([THREE[0]])
    assert interval == bootstrap_interval(THREE[0].right, THREE[0].group)
    assert interval.method == "bootstrap over 3 groups"


def test_the_interval_over_runs_is_that_of_all_possible_resamples() -> None:
    every = [
        drawn(THREE, groups, seeds)
        for groups in product("abc", repeat=3)
        for seeds in product(range(3), repeat=3)
    ]
    interval = interval_over_runs(THREE)
    assert [interval.low, interval.high] == pytest.approx(
        np.percentile(every, [2.5, 97.5]), abs=0.02
    )
    assert interval.method == "bootstrap over 3 groups and 3 runs"


def test_the_interval_is_wider_for_runs_that_differ_than_for_equal_ones() -> None:
    # over groups alone both would be 0.25 to 0.75: twice the group a, or twice b
    differing = interval_over_runs([evaluated("11", "00"), evaluated("10", "10")])
    assert (differing.low, differing.high) == (0, 1)
    equal = interval_over_runs([evaluated("1110", "1000")] * 2)
    assert (equal.low, equal.high) == (0.25, 0.75)


def test_groups_are_the_same_for_all_runs_of_a_resample() -> None:
    # what one has right the other has wrong: as long as both are drawn, half is right
    runs = [evaluated("1" * 5, "0" * 5, "1" * 5), evaluated("0" * 5, "1" * 5, "0" * 5)]
    accuracies = resampled(runs, np.array(["a", "b", "c"]))
    assert np.allclose(accuracies.sum(1), 1)


def test_the_interval_of_runs_that_are_all_right_is_wilsons() -> None:
    interval = interval_over_runs([evaluated("11", "1", "1")] * 2)
    assert interval.method == "Wilson over 3 groups"
    assert interval.low == pytest.approx(0.4385, abs=1e-3)  # 3 of 3


def test_a_run_of_another_split_counts_where_its_groups_are_drawn() -> None:
    runs = [evaluated("1", "0"), evaluated("1", "0", first="c")]
    accuracies = resampled(runs, np.array(["a", "b", "c", "d"]))
    # none of a, b in four draws: 1/16; else a as often as b on average
    assert np.isnan(accuracies[:, 0]).mean() == pytest.approx(1 / 16, abs=0.01)
    assert np.nanmean(accuracies[:, 0]) == pytest.approx(0.5, abs=0.02)
    interval = interval_over_runs(runs)
    assert (interval.low, interval.high) == (0, 1)


# --- differences ---


def test_a_difference_over_several_splits_by_hand() -> None:
    """One group per split; only that of the first is ever right, and only by the first row."""
    a, b = ([evaluated(right), evaluated("0", first="b")] for right in ("1", "0"))
    found = paired_difference(a, b, same_runs=True)
    # groups aa, ab or ba, bb and runs 00, 01 or 10, 11; - where no run drawn has a group drawn:
    #             runs 00  01   11    likely 1 2 1
    # groups aa         1   1    -           1
    #        ab         1  .5    0           2
    #        bb         -   0    0           1
    assert found.p == pytest.approx(2 * (2 + 2 + 1) / 14, abs=0.03)
    assert (found.value, found.low, found.high) == (0.5, 0, 1)


def test_accuracies_that_are_equal_except_for_rounding_do_not_differ() -> None:
    # 0.1 + 0.2 + 0.3 > 0.3 + 0.2 + 0.1 as floats; for each other resample there is its opposite
    runs = [evaluated("1" * n + "0" * (10 - n)) for n in (1, 2, 3)]
    assert paired_difference(runs, runs[::-1], same_runs=True).p == 1


def test_identical_predictions_differ_by_nothing_with_certainty() -> None:
    found = paired_difference(THREE, THREE, same_runs=True)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_difference_of_two_groups_by_hand() -> None:
    # right on all of a (2 tracks) against right on all of b (1): twice a +1, both +1/3, twice b -1
    found = paired_difference([evaluated("11", "0")], [evaluated("00", "1")], same_runs=True)
    assert found.value == pytest.approx(1 / 3)
    assert (found.low, found.high) == (-1, 1)
    assert found.p == pytest.approx(2 * 0.25, abs=0.03)


@pytest.mark.parametrize("same_runs", [True, False])
def test_a_difference_is_that_of_all_possible_resamples(same_runs: bool) -> None:
    others = (
        evaluated("1110", "0", "000"),
        evaluated("0000", "1", "100"),
        evaluated("1011", "0", "010"),
    )
    every = []
    for groups in product("abc", repeat=3):
        for seeds in product(range(3), repeat=3):
            for other_seeds in [seeds] if same_runs else product(range(3), repeat=3):
                every.append(drawn(THREE, groups, seeds) - drawn(others, groups, other_seeds))
    found = paired_difference(THREE, others, same_runs)
    assert found.value == pytest.approx(
        np.mean([one.accuracy for one in THREE]) - np.mean([one.accuracy for one in others])
    )
    assert [found.low, found.high] == pytest.approx(np.percentile(every, [2.5, 97.5]), abs=0.02)
    not_above = np.mean(np.array(every) < 1e-9)
    assert found.p == pytest.approx(2 * not_above, abs=0.02)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.text("01", min_size=1, max_size=4), min_size=2, max_size=6),
    st.randoms(use_true_random=False),
)
def test_a_difference_the_other_way_round_is_its_negative(
    groups: list[str], random: Random
) -> None:
    shuffled = ["".join(random.choice("01") for _ in group) for group in groups]
    a, b = [evaluated(*groups)], [evaluated(*shuffled)]
    forward, backward = paired_difference(a, b, True), paired_difference(b, a, True)
    assert (forward.value, forward.low, forward.high) == pytest.approx(
        (-backward.value, -backward.high, -backward.low)
    )
    assert forward.p == pytest.approx(backward.p)
    assert 0 <= forward.p <= 1


# --- parts and means ---


def test_chunks_of_pooled_parts_count_by_their_number() -> None:
    one, other = evaluated("1"), evaluated("0", first="b")
    parts = [
        Evaluated(one.track_id, one.group, one.true, one.predicted, 0.5, 10),
        Evaluated(other.track_id, other.group, other.true, other.predicted, 0.2, 30),
    ]
    together = pooled(parts)
    assert together.chunk_accuracy == pytest.approx((5 + 6) / 40)
    assert together.chunks == 40
    assert together.accuracy == 0.5
    assert together.track_id.tolist() == ["a0", "b0"]


def test_mean_and_deviation_of_three_and_of_one() -> None:
    assert mean_and_deviation([0.5, 0.6, 0.7]) == pytest.approx((0.6, 0.1))
    assert mean_and_deviation([0.5]) == (0.5, None)
