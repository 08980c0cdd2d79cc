"""Rows of a comparison: what belongs into one, what is refused, and what is saved of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.evaluation.intervals import interval_over_runs, paired_difference
from mgc_ray.evaluation.runs import (
    SAVED,
    ModelRun,
    read_runs,
    read_saved,
    rows_of,
    short_name,
    write_saved,
)
from mgc_ray.results import TrainedOn
from tests.evaluation.made_runs import (
    OWN,
    evaluated,
    five_seeds,
    model_run,
    right,
    row,
    write_search,
)

# --- rows ---


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
    (validation,) = rows_of([model_run(evaluated("11", "0"), part="validation")], 3)
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


def test_a_track_in_two_folds_is_refused() -> None:
    folds = [model_run(evaluated("1"), 0, fold, folds=2) for fold in (1, 2)]
    with pytest.raises(RequestError, match="but a0 is in those of s0f1 and s0f2: they are of"):
        rows_of(folds, 3)


# --- of finished searches ---


def _keys(folder: Path) -> dict[str, Any]:
    return {model.key.model: model.key for model in read_runs([folder])[1]}


def test_the_models_of_a_search_with_what_they_predicted(tmp_path: Path) -> None:
    models = {"ensemble": right(12), "gru": right(9), "cnn": right(8)}
    genres, found = read_runs([write_search(tmp_path / "s", models, 3, split_seed=2)])
    assert genres == ["blues", "disco", "rock"]
    assert [model.key.model for model in found] == ["ensemble", "gru", "cnn"]
    gru = found[1]
    assert (gru.search, gru.seed, gru.split_seed, gru.fold) == (str(tmp_path / "s"), 3, 2, None)
    assert (gru.parameters, gru.seconds) == (1_234_567, 61.4)
    assert "".join(map(str, gru.evaluated.right.astype(int))) == right(9)
    assert gru.evaluated.chunk_accuracy == 9 / 16 / 2
    assert gru.evaluated.chunks == 160
    key = gru.key
    assert (key.families, key.part, key.tracks) == (("cnn", "gru"), "test", "somewhere/music")
    assert (key.folds, key.refitted, key.leaky, key.trained_on) == (None, False, False, ())
    assert dict(key.settings) == {"tuning.trials": "24"}


def test_the_fold_and_the_number_of_folds(tmp_path: Path) -> None:
    _, (model,) = read_runs([write_search(tmp_path / "s", {"gru": right(8)}, fold="2/5")])
    assert (model.fold, model.key.folds, model.key.protocol) == (2, 5, "cross-validation")
    assert dict(model.key.settings) == {"tuning.trials": "24"}  # the fold makes no other row


def test_the_ensemble_of_one_family_is_that_familys_row(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"ensemble": right(8), "gru": right(8)})
    assert list(_keys(search)) == ["gru"]


def test_other_settings_make_another_row_but_not_where_and_how_fast(tmp_path: Path) -> None:
    config = {
        "metric": "log_loss",
        "dataset": {"tracks": "x.csv", "features": ["log_mel", "chroma"], "protocol": "given"},
        "train": {"lr": 0.01, "crop": 0.5},
        "tuning": {"concurrent": 2, "gpus_per_trial": 0.5, "keep": 3, "trial_timeout": 9.0},
        "ensemble": {"top_k": 7},
        "cluster": {"address": "head:6379", "storage": "s3://bucket"},
    }
    key = _keys(write_search(tmp_path / "a", {"gru": right(8)}, config=config))["gru"]
    assert dict(key.settings) == {
        "metric": "log_loss",
        "dataset.features": "log_mel, chroma",
        "ensemble.top_k": "7",
        "train.crop": "0.5",
        "train.lr": "0.01",
    }


def test_what_weights_were_trained_on_besides_the_dataset_makes_a_row(tmp_path: Path) -> None:
    tags = TrainedOn("/elsewhere/other/tracks.csv", "given", "tags")
    added = TrainedOn("more/music", "added", "genres")
    models = {"ensemble": right(12), "gru": right(9), "transfer": right(10)}
    search = write_search(tmp_path / "s", models, trained_on=(tags, OWN, added))
    both = ("other (tags)", "music (genres)")
    trained_on = {name: key.trained_on for name, key in _keys(search).items()}
    # only transfer starts from weights; added tracks are in the training part of all
    assert trained_on == {"ensemble": both, "gru": both[1:], "transfer": both}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/somewhere/music.csv", "somewhere/music"),
        ("/elsewhere/other/tracks.csv", "other"),
        ("/a/b/folder", "folder"),
        ("folder", "folder"),
        ("genres.v2/songs [live]", "songs [live]"),
    ],
)
def test_a_source_is_named_without_the_folders_of_its_machine(source: str, name: str) -> None:
    assert short_name(source) == name


def _unfinished(content: Any) -> None:
    content["finished"] = False


def _without_ensemble(content: Any) -> None:
    content["ensemble"] = None


def _damaged(content: Any) -> None:
    del content["ensemble"]["models"]["gru"]["test"]["tracks"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_unfinished, "only finished searches .* s is unfinished: continue it by .*--resume s "),
        (_without_ensemble, "only finished searches can be compared"),
        (_damaged, "search.json is damaged, or it was written by another version.*tracks"),
    ],
)
def test_a_search_that_cannot_be_compared_is_refused(
    change: Callable[[Any], None], message: str, tmp_path: Path
) -> None:
    path = write_search(tmp_path / "s", {"gru": right(8)}) / "search.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RequestError, match=message.replace(" s is", " .*s is")):
        read_runs([tmp_path / "s"])


def test_a_folder_that_is_no_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is no search: search.json is missing; give the folder"):
        read_runs([tmp_path])


def test_searches_over_other_genres_are_refused(tmp_path: Path) -> None:
    searches = [
        write_search(tmp_path / "a", {"gru": right(8)}),
        write_search(tmp_path / "b", {"gru": right(8)}, genres=("blues", "disco")),
    ]
    with pytest.raises(
        RequestError,
        match="must be over the same genres, but .*a has blues, disco, rock and .*b has "
        "blues, disco: compare them in two calls",
    ):
        read_runs(searches)


def test_predictions_that_do_not_fit_the_metrics_are_refused(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"gru": right(8)})
    predictions = search / "predictions.parquet"
    table = pq.read_table(predictions)
    pq.write_table(table.slice(1), predictions)
    with pytest.raises(
        RequestError,
        match="for the 16 tracks that the metrics of gru are of, but it has 15: search again",
    ):
        read_runs([search])
    other = pa.array(["validation"] * len(table))
    index = table.schema.get_field_index("part")
    pq.write_table(table.set_column(index, "part", other), predictions)
    with pytest.raises(RequestError, match="but it has 0: search again"):
        read_runs([search])
    predictions.unlink()
    with pytest.raises(
        RequestError, match=r"predictions\.parquet is missing: run the search again"
    ):
        read_runs([search])


# --- saved comparisons ---


def test_saved_models_come_back_as_they_were(tmp_path: Path) -> None:
    folds = [
        write_search(
            tmp_path / f"f{fold}",
            {"ensemble": right(3, fold, 4), "gru": right(2, fold, 4)},
            artists=artists,
            fold=f"{fold}/2",
            part="out_of_fold",
            config={"train": {"lr": 0.01}},
            trained_on=(OWN, TrainedOn("/x/more.csv", "added", "genres")),
        )
        for fold, artists in ((1, "ab"), (2, "cd"))
    ]
    genres, models = read_runs([*five_seeds(tmp_path), *folds])
    write_saved(tmp_path / SAVED, genres, models)
    read_genres, read_models = read_saved(tmp_path / SAVED)
    assert read_genres == genres
    assert len(read_models) == len(models) == 5 * 3 + 2
    for found, expected in zip(read_models, models, strict=True):
        assert replace(found, evaluated=expected.evaluated) == expected
        assert found.evaluated.tracks == expected.evaluated.tracks
        assert found.evaluated.predictions == expected.evaluated.predictions
        assert found.evaluated.chunks == expected.evaluated.chunks
        assert found.evaluated.chunk_accuracy == expected.evaluated.chunk_accuracy


def test_a_folder_with_both_is_the_search(tmp_path: Path) -> None:
    search = write_search(tmp_path / "s", {"gru": right(8)})
    (search / SAVED).write_bytes(b"something else")
    assert len(read_runs([search])[1]) == 1


def test_a_file_that_is_no_saved_comparison_is_refused(tmp_path: Path) -> None:
    saved = tmp_path / "saved" / SAVED
    saved.parent.mkdir()
    saved.write_bytes(b"PAR1 and no more")
    with pytest.raises(RequestError, match="parquet cannot be read .*compare the searches again"):
        read_runs([saved.parent])
    pq.write_table(pa.table({"track_id": ["a"]}), saved)
    with pytest.raises(RequestError, match="must have the columns search, .* but it has track_id"):
        read_runs([saved.parent])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("predicted", None, "model gru of .*s0, track a0: no predicted"),
        ("families", None, "no families"),
        ("genre", "polka", "track a0: genre polka is none of blues, disco, rock"),
        ("track_id", "a1", "track a1: occurs twice"),
        ("seed", 7, "track a1: seed differs from that of a0"),
        ("chunks", 0, "chunks"),
        ("chunk_accuracy", float("nan"), "chunk_accuracy"),
        (None, None, "it has no predictions"),
    ],
)
def test_a_saved_comparison_with_damaged_rows_is_refused(
    column: str | None, value: object, message: str, tmp_path: Path
) -> None:
    genres, models = read_runs([write_search(tmp_path / "s0", {"gru": right(3)})])
    write_saved(tmp_path / SAVED, genres, models)
    table = pq.read_table(tmp_path / SAVED)
    rows = table.to_pylist() if column else []
    of_model = ("chunks", "chunk_accuracy")
    for damaged in rows if column in of_model else rows[:1]:
        damaged[column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / SAVED)
    with pytest.raises(RequestError, match=f"not as it was written .*{message}.*compare .* again"):
        read_saved(tmp_path / SAVED)
