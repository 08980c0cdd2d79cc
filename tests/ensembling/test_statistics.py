"""Figures over seeds and folds, against enumeration of all resamples and numbers made by hand."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.ensembling.statistics import (
    Judged,
    Kind,
    Outcome,
    Row,
    interval_over_runs,
    mean_and_deviation,
    paired_difference,
    pooled,
    resampled,
    rows_of,
)
from mgc_ray.training.metrics import bootstrap_interval

KIND = Kind(
    model="gru",
    families=("gru",),
    protocol="grouped",
    leaky=False,
    folds=None,
    refitted=False,
    trained_on=(),
    part="test",
    tracks="music",
    settings=(),
)


def judged(*groups: str, first: str = "a") -> Judged:
    """Tracks of the groups a, b, ...: `110` is a group of three, of which two are right."""
    right = np.array([int(digit) for group in groups for digit in group])
    names = [chr(ord(first) + i) for i, group in enumerate(groups) for _ in group]
    ids = [f"{name}{i}" for i, name in enumerate(names)]
    true = np.arange(len(right)) % 3
    predicted = np.where(right == 1, true, (true + 1) % 3)
    return Judged(np.array(ids), np.array(names), true, predicted, float(right.mean()), len(right))


def outcome(judged: Judged, seed: int = 0, fold: int | None = None, **kind: object) -> Outcome:
    """One search's outcome, which is named by its seed and fold."""
    return Outcome(
        search=f"s{seed}" + (f"f{fold}" if fold else ""),
        kind=replace(KIND, **kind),  # type: ignore[arg-type]
        seed=seed,
        split_seed=0,
        fold=fold,
        parameters=100 * (seed + 1),
        seconds=10.0,
        judged=judged,
    )


def row(*runs: Judged, seed: int = 0) -> Row:
    """One row of runs with seeds from `seed` on."""
    (made,) = rows_of([outcome(one, seed + i) for i, one in enumerate(runs)], 3)
    return made


def drawn(runs: Sequence[Judged], groups: Sequence[str], seeds: Sequence[int]) -> float:
    """Mean accuracy where these groups and runs were drawn, as the definition has it."""
    accuracies = []
    for seed in seeds:
        rights = [runs[seed].right[runs[seed].group == group] for group in groups]
        accuracies.append(np.mean(np.concatenate(rights)))
    return float(np.mean(accuracies))


THREE = (
    judged("1110", "0", "101"),
    judged("1000", "1", "100"),
    judged("1111", "0", "110"),
)


def test_resamples_of_two_groups_are_as_often_as_they_are_likely() -> None:
    # one track that is right and three that are wrong: drawn twice each or once both
    accuracies = resampled([judged("1", "000")], np.array(["a", "b"]))[:, 0]
    for value, likely in ((1.0, 0.25), (0.25, 0.5), (0.0, 0.25)):
        assert np.mean(accuracies == value) == pytest.approx(likely, abs=0.02)


def test_the_interval_of_one_run_is_that_of_its_own_search() -> None:
    interval = interval_over_runs([THREE[0]])
    assert interval == bootstrap_interval(THREE[0].right, THREE[0].group)
    assert interval.method == "bootstrap over 3 groups"


def test_the_interval_over_runs_is_that_of_all_resamples_there_are() -> None:
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
    differing = interval_over_runs([judged("11", "00"), judged("10", "10")])
    assert (differing.low, differing.high) == (0, 1)
    equal = interval_over_runs([judged("1110", "1000")] * 2)
    assert (equal.low, equal.high) == (0.25, 0.75)


def test_groups_are_the_same_for_all_runs_of_a_resample() -> None:
    # what one has right the other has wrong: as long as both are drawn, half is right
    runs = [judged("1" * 5, "0" * 5, "1" * 5), judged("0" * 5, "1" * 5, "0" * 5)]
    accuracies = resampled(runs, np.array(["a", "b", "c"]))
    assert np.allclose(accuracies.sum(1), 1)


def test_all_right_in_all_runs_is_no_point() -> None:
    interval = interval_over_runs([judged("11", "1", "1")] * 2)
    assert interval.method == "Wilson over 3 groups"
    assert interval.low == pytest.approx(0.4385, abs=1e-3)  # 3 of 3


def test_a_run_of_another_split_counts_where_its_groups_are_drawn() -> None:
    runs = [judged("1", "0"), judged("1", "0", first="c")]
    accuracies = resampled(runs, np.array(["a", "b", "c", "d"]))
    # none of a, b in four draws: 1/16; else a as often as b in the mean
    assert np.isnan(accuracies[:, 0]).mean() == pytest.approx(1 / 16, abs=0.01)
    assert np.nanmean(accuracies[:, 0]) == pytest.approx(0.5, abs=0.02)
    interval = interval_over_runs(runs)
    assert (interval.low, interval.high) == (0, 1)


def test_a_difference_over_several_splits_by_hand() -> None:
    """One group a split, and only that of the first is ever right, by the first row alone."""
    a, b = (
        rows_of(
            [
                outcome(judged(right)),
                replace(outcome(judged("0", first="b"), 1), split_seed=1),
            ],
            3,
        )[0]
        for right in ("1", "0")
    )
    found = paired_difference(a, b)
    assert found is not None
    # groups aa, ab or ba, bb and runs 00, 01 or 10, 11; - where no run drawn has a group drawn:
    #             runs 00  01   11    likely 1 2 1
    # groups aa         1   1    -           1
    #        ab         1  .5    0           2
    #        bb         -   0    0           1
    assert found.p == pytest.approx(2 * (2 + 2 + 1) / 14, abs=0.03)
    assert (found.value, found.low, found.high) == (0.5, 0, 1)


def test_figures_that_are_equal_but_for_rounding_do_not_differ() -> None:
    # 0.1 + 0.2 + 0.3 > 0.3 + 0.2 + 0.1 as floats; for each other resample there is its opposite
    runs = [judged("1" * n + "0" * (10 - n)) for n in (1, 2, 3)]
    found = paired_difference(row(*runs), row(*runs[::-1]))
    assert found is not None
    assert found.p == 1


def test_identical_predictions_differ_by_nothing_with_certainty() -> None:
    found = paired_difference(row(*THREE), row(*THREE))
    assert found is not None
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_difference_of_two_groups_by_hand() -> None:
    # right on all of a (2 tracks) against right on all of b (1): twice a +1, both +1/3, twice b -1
    found = paired_difference(row(judged("11", "0")), row(judged("00", "1")))
    assert found is not None
    assert found.value == pytest.approx(1 / 3)
    assert (found.low, found.high) == (-1, 1)
    assert found.p == pytest.approx(2 * 0.25, abs=0.03)


@pytest.mark.parametrize("same_seeds", [True, False])
def test_a_difference_is_that_of_all_resamples_there_are(same_seeds: bool) -> None:
    others = (judged("1110", "0", "000"), judged("0000", "1", "100"), judged("1011", "0", "010"))
    every = []
    for groups in product("abc", repeat=3):
        for seeds in product(range(3), repeat=3):
            for other_seeds in [seeds] if same_seeds else product(range(3), repeat=3):
                every.append(drawn(THREE, groups, seeds) - drawn(others, groups, other_seeds))
    found = paired_difference(row(*THREE), row(*others, seed=0 if same_seeds else 7))
    assert found is not None
    assert found.value == pytest.approx(
        np.mean([one.accuracy for one in THREE]) - np.mean([one.accuracy for one in others])
    )
    assert [found.low, found.high] == pytest.approx(np.percentile(every, [2.5, 97.5]), abs=0.02)
    not_above = np.mean(np.array(every) < 1e-9)
    assert found.p == pytest.approx(2 * not_above, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("01", min_size=1, max_size=4), min_size=2, max_size=6), st.randoms())
def test_a_difference_turned_round_is_its_negative(groups: list[str], random: object) -> None:
    shuffled = ["".join(random.choice("01") for _ in group) for group in groups]  # type: ignore[attr-defined]
    a, b = row(judged(*groups)), row(judged(*shuffled))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there is not None
    assert back is not None
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )
    assert there.p == pytest.approx(back.p)
    assert 0 <= there.p <= 1


def test_rows_on_other_tracks_are_not_paired() -> None:
    one = row(judged("11", "0"))
    assert paired_difference(one, row(judged("11", "01"))) is None
    validation = rows_of([outcome(judged("11", "0"), part="validation")], 3)[0]
    assert paired_difference(one, validation) is None
    # of one seed all tracks, of the other not, and other seeds: no common tracks
    parts = [judged("1"), judged("0", first="b")]
    whole, incomplete = (
        rows_of([outcome(one, seed, i + 1, folds=2) for seed, i, one in made], 3)[0]
        for made in (
            [(seed, i, parts[i]) for seed in (0, 1) for i in (0, 1)],
            [(0, 0, parts[0]), (0, 1, parts[1]), (2, 0, parts[0])],
        )
    )
    assert paired_difference(whole, incomplete) is None


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text("01", min_size=1, max_size=4), min_size=3, max_size=8),
    st.integers(2, 3),
)
def test_folds_together_are_one_big_test(groups: list[str], folds: int) -> None:
    whole = judged(*groups)
    group = np.array([ord(name) for name in whole.group])
    parts = []
    for fold in range(folds):
        rows = np.flatnonzero(group % folds == fold)
        parts.append(
            replace(
                whole,
                **{n: getattr(whole, n)[rows] for n in ("track_id", "group", "true", "predicted")},
                chunk_accuracy=float(whole.right[rows].mean()),
                chunks=len(rows),
            )
        )
    (one,) = rows_of([outcome(whole)], 3)
    (together,) = rows_of([outcome(p, 0, k + 1, folds=folds) for k, p in enumerate(parts)], 3)
    assert len(together.runs) == 1
    assert together.track_accuracy == one.track_accuracy
    assert together.macro_f1 == pytest.approx(one.macro_f1)
    assert together.chunk_accuracy[0] == pytest.approx(one.chunk_accuracy[0])
    assert interval_over_runs(together.judged) == interval_over_runs(one.judged)
    found = paired_difference(together, one)
    assert found is not None
    assert found.p == 1


def test_chunks_of_pooled_parts_count_by_their_number() -> None:
    parts = [
        replace(judged("1"), chunk_accuracy=0.5, chunks=10),
        replace(judged("0", first="b"), chunk_accuracy=0.2, chunks=30),
    ]
    together = pooled(parts)
    assert together.chunk_accuracy == pytest.approx((5 + 6) / 40)
    assert together.chunks == 40
    assert together.accuracy == 0.5


def test_mean_and_deviation_of_three_and_of_one() -> None:
    assert mean_and_deviation([0.5, 0.6, 0.7]) == pytest.approx((0.6, 0.1))
    assert mean_and_deviation([0.5]) == (0.5, None)


def test_a_row_is_the_mean_of_its_runs() -> None:
    made = row(judged("1", "1"), judged("1", "0"), judged("0", "0"))
    assert made.seeds == [0, 1, 2]
    assert made.track_accuracy == pytest.approx((0.5, 0.5))
    assert made.parameters == 200
    assert made.seconds == 10
    # all right: 1; genre 0 right, 1 taken for 2: (1 + 0 + 0) / 3; none right: 0
    assert made.macro_f1 == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_what_differs_in_more_than_seeds_is_another_row() -> None:
    rows = rows_of(
        [
            outcome(judged("1")),
            outcome(judged("1"), refitted=True),
            outcome(judged("1"), trained_on=("other (tags)",)),
            outcome(judged("1"), 1),
        ],
        3,
    )
    assert [made.seeds for made in rows] == [[0, 1], [0], [0]]


def test_two_outcomes_of_the_same_seeds_are_refused() -> None:
    def another(made: Outcome) -> Outcome:
        return replace(made, search="another")

    one = outcome(judged("1"))
    with pytest.raises(RequestError, match="but s0 is there twice"):
        rows_of([one, replace(one)], 3)
    with pytest.raises(RequestError, match="s0 and another are both gru of seed 0, split seed 0:"):
        rows_of([one, another(one)], 3)
    fold = outcome(judged("1"), 0, 2, folds=3)
    with pytest.raises(RequestError, match="split seed 0, fold 2/3: leave one of them out"):
        rows_of([fold, another(fold)], 3)


def test_one_split_with_other_tracks_is_refused() -> None:
    with pytest.raises(RequestError, match=r"but s0 and s1 were not \(2 and 3 tracks\): their"):
        rows_of([outcome(judged("11")), outcome(judged("110"), 1)], 3)


def test_a_track_in_two_folds_is_refused() -> None:
    with pytest.raises(RequestError, match="but a0 is in those of s0f1 and s0f2: they are of"):
        rows_of([outcome(judged("1"), 0, 1, folds=2), outcome(judged("1"), 0, 2, folds=2)], 3)
