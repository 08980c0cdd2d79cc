"""Rows of a comparison: what belongs into one, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.evaluation.intervals import interval_over_runs, paired_difference
from mgc_ray.evaluation.rows import ModelRun, rows_of
from tests.evaluation.made_runs import evaluated, model_run, row


def test_a_row_is_the_mean_of_its_runs() -> None:
    made = row(evaluated("1", "1"), evaluated("1", "0"), evaluated("0", "0"))
    assert made.seeds == [0, 1, 2]
    assert made.track_accuracy == pytest.approx((0.5, 0.5))
    assert made.parameters == 200
    assert made.seconds == 10
    # all right: 1; genre 0 right, 1 taken for 2: (1 + 0 + 0) / 3; none right: 0
    assert made.macro_f1 == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_what_differs_in_more_than_seeds_is_another_row() -> None:
    rows = rows_of(
        [
            model_run(evaluated("1")),
            model_run(evaluated("1"), refitted=True),
            model_run(evaluated("1"), trained_on=("other (tags)",)),
            model_run(evaluated("1"), 1),
        ],
        3,
    )
    assert [made.seeds for made in rows] == [[0, 1], [0], [0]]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.text("01", min_size=1, max_size=4), min_size=3, max_size=8),
    st.integers(2, 3),
)
def test_folds_together_are_one_big_test(groups: list[str], folds: int) -> None:
    whole = evaluated(*groups)
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
    (one,) = rows_of([model_run(whole)], 3)
    (together,) = rows_of([model_run(p, 0, k + 1, folds=folds) for k, p in enumerate(parts)], 3)
    assert len(together.runs) == 1
    assert together.track_accuracy == one.track_accuracy
    assert together.macro_f1 == pytest.approx(one.macro_f1)
    assert together.chunk_accuracy[0] == pytest.approx(one.chunk_accuracy[0])
    assert interval_over_runs(together.evaluated) == interval_over_runs(one.evaluated)
    assert together.on_tracks_of(one)
    found = paired_difference(together.evaluated, one.evaluated, together.has_runs_of(one))
    assert found.p == 1


def test_rows_are_paired_only_on_the_same_tracks() -> None:
    one = row(evaluated("11", "0"))
    assert one.on_tracks_of(row(evaluated("00", "1")))
    assert one.on_tracks_of(row(evaluated("00", "1"), seed=3))
    assert not one.on_tracks_of(row(evaluated("11", "01")))
    (validation,) = rows_of([model_run(evaluated("11", "0"), part="valid")], 3)
    assert not one.on_tracks_of(validation)
    # of one seed all tracks, of the other not, and other seeds: no common tracks
    parts = [evaluated("1"), evaluated("0", first="b")]
    whole, incomplete = (
        rows_of([model_run(one, seed, i + 1, folds=2) for seed, i, one in made], 3)[0]
        for made in (
            [(seed, i, parts[i]) for seed in (0, 1) for i in (0, 1)],
            [(0, 0, parts[0]), (0, 1, parts[1]), (2, 0, parts[0])],
        )
    )
    assert not whole.on_tracks_of(incomplete)


def test_rows_that_predict_the_same_are_known() -> None:
    one = row(evaluated("11", "0"))
    assert one.predicts_as(row(evaluated("11", "0")))
    assert not one.predicts_as(row(evaluated("11", "1")))
    assert not one.predicts_as(row(evaluated("11", "0"), seed=1))


def test_two_models_of_the_same_seeds_are_refused() -> None:
    def another(made: ModelRun) -> ModelRun:
        return replace(made, search="another")

    one = model_run(evaluated("1"))
    with pytest.raises(RequestError, match="but s0 is given twice"):
        rows_of([one, replace(one)], 3)
    with pytest.raises(RequestError, match="s0 and another are both gru of seed 0, split seed 0:"):
        rows_of([one, another(one)], 3)
    fold = model_run(evaluated("1"), 0, 2, folds=3)
    with pytest.raises(RequestError, match="split seed 0, fold 2/3: leave one of them out"):
        rows_of([fold, another(fold)], 3)


def test_one_split_with_other_tracks_is_refused() -> None:
    with pytest.raises(RequestError, match=r"but s0 and s1 were not \(2 and 3 tracks\): their"):
        rows_of([model_run(evaluated("11")), model_run(evaluated("110"), 1)], 3)


def test_one_split_with_other_training_tracks_is_refused() -> None:
    """A search that was made after a song of the training part had been deleted."""
    runs = [replace(model_run(evaluated("11"), seed), split_id=f"{seed:016}") for seed in (0, 1)]
    with pytest.raises(RequestError, match="trained on the same tracks, but s0 and s1 were not"):
        rows_of(runs, 3)
    assert len(rows_of([runs[0], replace(runs[1], split_id="")], 3)) == 1  # it recorded none
    another_split = replace(runs[1], split_seed=1)
    assert len(rows_of([runs[0], another_split], 3)) == 1


def test_a_track_in_two_folds_is_refused() -> None:
    folds = [model_run(evaluated("1"), 0, fold, folds=2) for fold in (1, 2)]
    with pytest.raises(RequestError, match="but a0 is in those of s0f1 and s0f2: they are of"):
        rows_of(folds, 3)
