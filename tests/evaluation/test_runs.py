"""The models of finished searches and of saved comparisons, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgc_ray import RequestError
from mgc_ray.evaluation.runs import (
    SAVED,
    read_runs,
    read_saved,
    short_name,
    write_saved,
)
from mgc_ray.results import TrainedOn
from tests.evaluation.made_runs import (
    OWN,
    five_seeds,
    right,
    write_search,
)

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
    with pytest.raises(RequestError, match="is no search: search.json is missing; give a search"):
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
    other = pa.array(["valid"] * len(table))
    index = table.schema.get_field_index("part")
    pq.write_table(table.set_column(index, "part", other), predictions)
    with pytest.raises(RequestError, match="but it has 0: search again"):
        read_runs([search])
    predictions.unlink()
    with pytest.raises(
        RequestError, match=r"predictions\.parquet is missing: run the search again"
    ):
        read_runs([search])


def test_predictions_of_another_split_are_refused(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"gru": right(8)}, split_id="0123456789abcdef")
    assert read_runs([search])[1][0].split_id == "0123456789abcdef"
    other = write_search(tmp_path / "b", {"gru": right(8)})
    (other / "predictions.parquet").replace(search / "predictions.parquet")
    with pytest.raises(RequestError, match="a must have the predictions of its own ensemble, but"):
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
    with pytest.raises(RequestError, match="cannot be read .*genres.*again with --out"):
        read_runs([saved.parent])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("predicted", None, "cannot be read .None"),
        ("genre", "polka", "cannot be read .'polka'"),
        ("track_id", "a1", "a track of .*s0 has two rows"),
        ("model", "{", "cannot be read .Expecting"),
        ("model", None, "cannot be read"),
        ("group", ..., "cannot be read .'group'"),
    ],
)
def test_a_saved_comparison_with_damaged_rows_is_refused(
    column: str, value: Any, message: str, tmp_path: Path
) -> None:
    genres, models = read_runs([write_search(tmp_path / "s0", {"gru": right(3)})])
    write_saved(tmp_path / SAVED, genres, models)
    table = pq.read_table(tmp_path / SAVED)
    index = table.column_names.index(column)
    changed = [value, *table[column].to_pylist()[1:]]
    damaged = (
        table.drop_columns(column)
        if value is ...
        else table.set_column(index, column, pa.array(changed, table[column].type))
    )
    pq.write_table(damaged, tmp_path / SAVED)
    with pytest.raises(RequestError, match=f"{message}.*: compare the searches again"):
        read_saved(tmp_path / SAVED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunks": 0}, "chunks"),
        ({"chunk_accuracy": 1.5}, "chunk_accuracy"),
        ({"seed": "one"}, "seed"),
    ],
)
def test_a_saved_comparison_with_damaged_models_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    genres, models = read_runs([write_search(tmp_path / "s0", {"gru": right(3)})])
    write_saved(tmp_path / SAVED, genres, models)
    table = pq.read_table(tmp_path / SAVED)
    model = json.dumps(json.loads(table["model"][0].as_py()) | change)
    damaged = table.set_column(0, "model", pa.array([model] * len(table)))
    pq.write_table(damaged, tmp_path / SAVED)
    with pytest.raises(RequestError, match=f"cannot be read .*{message}.*again"):
        read_saved(tmp_path / SAVED)
