"""What a search leaves behind comes back as it was written, or is refused in one line."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig, SearchConfig, TuneConfig
from mgc_ray.results import (
    COMPLETED,
    FAILED,
    OUT_OF_FOLD,
    STOPPED_EARLY,
    TEST,
    VALID,
    EnsembleInfo,
    Interval,
    Member,
    Metrics,
    ModelResult,
    Predictions,
    PredictionTable,
    SearchResult,
    TrainedOn,
    TrialRecord,
    TrialResources,
    leaderboard,
    load_search,
    model_folder,
    ranked,
    read_ensemble_info,
    read_predictions,
    read_records,
    search_folder,
    search_names,
    write_leaderboard,
    write_predictions,
)
from mgc_ray.settings import as_json, validated


def _record(name: str, accuracies: list[float], status: str = COMPLETED) -> TrialRecord:
    curve = [
        {
            "val_track_accuracy": a,
            "val_chunk_accuracy": a / 2,
            "val_macro_f1": a / 4,
            "val_log_loss": 2 - a,
            "val_loss": 1 - a,
        }
        for a in accuracies
    ]
    best = accuracies.index(max(accuracies)) + 1 if accuracies else 0
    family = name.split("-")[0]
    return TrialRecord(
        name, family, {"lr": 0.01}, "track_accuracy", status, "", 1.5, "", best, curve
    )


def _metrics(accuracy: float = 0.75) -> Metrics:
    return Metrics(
        track_accuracy=accuracy,
        interval_95=Interval(0.5, 0.9, "bootstrap over 4 groups"),
        chunk_accuracy=0.625,
        macro_f1=0.7,
        log_loss=0.8,
        calibration_error=0.1,
        tracks=8,
        chunks=16,
        genres=("blues", "rock"),
        confusion_matrix=[[3, 1], [1, 3]],
    )


OWN = TrainedOn("music/tracks.csv", "grouped", "genres")


def _info(**changed: Any) -> EnsembleInfo:
    fields: dict[str, Any] = {
        "version": "1",
        "members": (Member("gru-0000", 0.75, 1.5), Member("cnn-0001", 0.25)),
        "genres": ("blues", "rock"),
        "protocol": "grouped",
        "leaky": False,
        "fold": "",
        "split_seed": 3,
        "source": OWN.source,
        "temperature": 0.9,
        "selected_on": VALID,
        "candidates": ("gru-0000", "cnn-0001", "gru-0002"),
        "trained_on": (OWN,),
        "models": {
            "ensemble": ModelResult(1000, 12.5, _metrics(0.875), _metrics()),
            "gru": ModelResult(700, 8.5, _metrics(), None),
        },
    }
    return EnsembleInfo(**(fields | changed))


def _result(folder: Path, **changed: Any) -> SearchResult:
    config = SearchConfig(
        family=("gru", "cnn"),
        name=folder.name,
        results=str(folder.parent),
        metric="macro_f1",
        dataset=DatasetConfig(tracks="music/tracks.csv", features=("log_mel", "chroma")),
        train={"lr": 0.01, "bidirectional": False},
        tuning=TuneConfig(trials=7, time_limit=3.5),
    )
    fields: dict[str, Any] = {
        "name": folder.name,
        "config": config,
        "command": "python -m mgc_ray.search --family gru cnn",
        "tracks": "music/tracks.csv",
        "versions": {"torch": "2"},
        "commit": "abc+",
        "family_files": ("/x/mine.py",),
        "finished": True,
        "dataset": str(folder.parent / "datasets" / "music-1"),
        "protocol": "grouped",
        "resources": TrialResources(1.0, 0.5, 2),
        "trial_counts": {COMPLETED: 2},
        "epochs": 5,
        "best_trial": _record("gru-0000", [0.5, 0.75]),
        "ensemble": _info(),
        "seconds": 61.5,
    }
    return SearchResult(**(fields | changed))


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """A finished search of three trials."""
    folder = tmp_path / "results" / "first"
    (folder / "ensemble").mkdir(parents=True)
    for name, accuracies, status in (
        ("gru-0000", [0.5, 0.75], COMPLETED),
        ("cnn-0001", [0.25, 0.5, 0.4], STOPPED_EARLY),
        ("gru-0002", [], FAILED),
    ):
        _record(name, accuracies, status).write(folder / "trials" / name)
    _result(folder).write()
    _info().write(folder / "ensemble")
    write_predictions(folder / "predictions.parquet", _table())
    return folder


# --- trials ---


def test_the_best_trial_is_first_and_failed_ones_are_last() -> None:
    records = [
        _record("gru-0000", [0.5, 0.4]),
        _record("gru-0001", [0.9], FAILED),
        _record("gru-0002", []),
        _record("cnn-0003", [0.6], STOPPED_EARLY),
    ]
    names = [record.trial for record in ranked(records)]
    assert names == ["cnn-0003", "gru-0000", "gru-0002", "gru-0001"]
    assert [record.usable for record in records] == [True, False, False, True]


def test_a_tie_goes_to_the_lower_loss_and_then_to_the_earlier_trial() -> None:
    a, b, c = (_record(f"gru-000{i}", [0.5]) for i in range(3))
    c.curve[0]["val_loss"] = 0.1
    assert [record.trial for record in ranked([b, a, c])] == ["gru-0002", "gru-0000", "gru-0001"]


def test_trials_are_ranked_by_their_metric() -> None:
    accurate, calibrated = _record("gru-0000", [0.9]), _record("gru-0001", [0.5])
    accurate.curve[0] |= {"val_log_loss": 3.0, "val_macro_f1": 0.2}
    calibrated.curve[0] |= {"val_log_loss": 1.0, "val_macro_f1": 0.3}
    for metric, best in (
        ("track_accuracy", "gru-0000"),
        ("macro_f1", "gru-0001"),
        ("log_loss", "gru-0001"),
    ):
        records = [replace(one, metric=metric) for one in (accurate, calibrated)]
        assert ranked(records)[0].trial == best


def test_the_leaderboard_has_one_row_per_trial_with_the_metrics_of_its_best_epoch(
    tmp_path: Path,
) -> None:
    other = replace(_record("cnn-0001", [], FAILED), params={"dropout": 0.3}, reason="killed")
    write_leaderboard(tmp_path / "l.csv", [other, _record("gru-0000", [0.4, 0.8, 0.6])])
    with open(tmp_path / "l.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "trial": "gru-0000",
        "family": "gru",
        "status": "completed",
        "epochs": "3",
        "val_track_accuracy": "0.800000",
        "val_chunk_accuracy": "0.400000",
        "val_macro_f1": "0.200000",
        "val_log_loss": "1.200000",
        "seconds": "1.5",
        "reason": "",
        "dropout": "",
        "lr": "0.01",
    }
    assert rows[1]["val_track_accuracy"] == ""
    assert (rows[1]["status"], rows[1]["reason"]) == ("failed", "killed")


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    records = [_record("gru-0010", [0.1]), _record("cnn-0002", [0.2], STOPPED_EARLY)]
    records[0].params = {"layers": 2, "schedule": "cosine", "backbone_config": {"a": [1]}}
    for record in records:
        record.write(tmp_path / record.trial)
    assert read_records(tmp_path) == [records[1], records[0]]  # by number
    assert read_records(tmp_path / "nowhere") == []


def _change(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("params"),
        lambda c: c.update(curve=3),
        lambda c: c["curve"][0].update(val_loss="much"),
        lambda c: c.update(metric="accuracy"),
        lambda c: c.update(best_epoch=9),
        lambda c: c.update(best_epoch=-1),
        lambda c: c["curve"][1].pop("val_log_loss"),
        lambda c: c["curve"][0].pop("val_track_accuracy"),
        lambda c: c["curve"][0].clear(),
        lambda c: c.update(trial="gru"),
        lambda c: c.update(trial="gru-0003"),
    ],
)
def test_a_damaged_record_is_refused_with_its_file_and_the_remedy(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    _record("gru-0002", [0.1, 0.2]).write(tmp_path / "gru-0002")
    path = tmp_path / "gru-0002" / "trial.json"
    _change(path, change)
    with pytest.raises(RequestError, match=f"^{path} is damaged, or .*: delete the trial's folder"):
        read_records(tmp_path)


# --- searches ---


def test_a_search_comes_back_as_it_was_written(search: Path) -> None:
    assert load_search(search) == _result(search)
    assert validated(SearchResult, as_json(_result(search))) == _result(search)


def test_an_unfinished_search_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    started = SearchResult("s", _result(tmp_path / "s").config, "", "music", {})
    started.write()
    found = load_search(tmp_path / "s")
    assert found == started
    assert not found.finished
    assert (found.ensemble, found.test, found.best) == (None, None, None)
    assert list(found.trials.columns) == leaderboard([])[0]
    assert found.trials.empty


def test_a_search_that_has_no_dataset_yet_is_refused_with_how_to_continue_it(
    tmp_path: Path,
) -> None:
    started = SearchResult("s", _result(tmp_path / "s").config, "", "music", {})
    with pytest.raises(RequestError, match=rf"search --resume s --results {tmp_path}$"):
        started.check_has_dataset()
    replace(started, dataset="results/datasets/music-1").check_has_dataset()


def test_trials_are_a_data_frame_best_first(search: Path) -> None:
    trials = load_search(search).trials
    assert isinstance(trials, pd.DataFrame)
    assert trials["trial"].tolist() == ["gru-0000", "cnn-0001", "gru-0002"]
    assert trials["status"].tolist() == [COMPLETED, STOPPED_EARLY, FAILED]
    assert trials["epochs"].tolist() == [2, 3, 0]
    assert trials["val_track_accuracy"].tolist()[:2] == [0.75, 0.5]
    assert trials["lr"].tolist() == [0.01] * 3


def test_the_results_of_a_search(search: Path) -> None:
    result = load_search(search)
    assert result.best == _record("gru-0000", [0.5, 0.75])
    assert result.test == _metrics()
    assert result.ensemble == _info()
    assert result.ensemble is not None
    assert result.ensemble.held_out.track_accuracy == 0.875
    assert result.predictions.genres == ("blues", "rock")
    counted = result.with_trials(result.records)
    assert counted.trial_counts == {COMPLETED: 1, STOPPED_EARLY: 1, FAILED: 1}
    assert counted.epochs == 5


def test_a_search_can_be_moved_with_its_dataset(search: Path, tmp_path: Path) -> None:
    (search.parent / "datasets" / "music-1").mkdir(parents=True)
    assert load_search(search).dataset_folder == search.parent / "datasets" / "music-1"
    moved = tmp_path / "elsewhere"
    search.parent.rename(moved)
    result = load_search(moved / "first")
    assert result.folder == moved / "first"
    assert result.dataset_folder == moved / "datasets" / "music-1"
    assert len(result.records) == 3
    assert len(result.predictions.predictions) == 3
    (moved / "first").rename(moved / "second")
    assert load_search(str(moved / "second")).folder == moved / "second"


def test_the_names_of_all_searches(search: Path) -> None:
    shutil.copytree(search, search.parent / "other")
    (search.parent / "datasets").mkdir()
    assert sorted(search_names(search.parent)) == ["first", "other"]
    assert list(search_names(search.parent / "nowhere")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("config"), "config"),
        (lambda c: c["config"].update(trials=3), "no setting 'config.trials'"),
        (lambda c: c["config"]["tuning"].update(trials=0), "config.tuning.trials|--trials must be"),
        (lambda c: c["config"].update(metric="accuracy"), "--metric must be one of"),
        (lambda c: c["ensemble"]["models"]["gru"].pop("seconds"), "seconds"),
        (lambda c: c["ensemble"].update(members="gru"), "ensemble.members"),
        (lambda c: c["best_trial"].update(curve=[[1]]), "best_trial.curve"),
        (lambda c: c.update(finished="perhaps"), "finished must be true or false"),
    ],
)
def test_a_damaged_search_is_refused_with_its_file_the_reason_and_the_remedy(
    search: Path, change: Callable[[Any], None], message: str
) -> None:
    _change(search / "search.json", change)
    with pytest.raises(
        RequestError, match=f"^{search}/search.json is damaged, or .*{message}"
    ) as e:
        load_search(search)
    assert str(e.value).endswith("): give a search, by its name or folder (results/NAME)")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("content", [None, "", "[1]", "{", "\0\0", '{"name": "x"}'])
def test_what_is_no_search_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "search.json").write_text(content)
    with pytest.raises(RequestError, match="give a search, by its name or folder") as error:
        load_search(tmp_path)
    assert "\n" not in str(error.value)


# --- ensembles ---


def test_an_ensembles_description_comes_back_as_it_was_written(search: Path) -> None:
    assert read_ensemble_info(search / "ensemble", "") == _info()


def test_what_members_were_also_trained_on_is_in_words() -> None:
    assert _info().also_trained_on == ""
    tags = TrainedOn("other/songs", "given", "tags")
    assert _info(trained_on=(tags, OWN)).also_trained_on == "other/songs (tags)"
    again = TrainedOn(OWN.source, "random-chunks", "genres")
    assert _info(trained_on=(again, OWN)).also_trained_on == (
        "music/tracks.csv (genres) - THE SAME TRACKS, so its weights may have seen those that it "
        "is tested on"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("genres"),
        lambda c: c.update(members=[{"weight": 1.0}]),
        lambda c: c["models"]["gru"]["held_out"].update(tracks="many"),
        lambda c: c["models"]["gru"]["held_out"]["interval_95"].pop("low"),
    ],
)
def test_a_damaged_description_is_refused(search: Path, change: Callable[[Any], None]) -> None:
    path = search / "ensemble" / "ensemble.json"
    _change(path, change)
    with pytest.raises(RequestError, match=f"^{path} is damaged, or it was written by another ver"):
        read_ensemble_info(search / "ensemble", "give another")


# --- predictions ---


def _table() -> PredictionTable:
    track_id, group = np.array(["b1", "b2", "r1"]), np.array(["Ella", "Ella", "Kim"])
    true = np.array([0, 0, 1])
    of_all = np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])
    return PredictionTable(
        ("blues", "rock"),
        seed=7,
        split_seed=3,
        fold="2/5",
        split_id="0123456789abcdef",
        predictions=(
            Predictions("ensemble", VALID, track_id, group, true, of_all),
            Predictions("gru", VALID, track_id, group, true, 1 - of_all),
            Predictions("ensemble", TEST, track_id[:1], group[:1], true[:1], of_all[:1]),
        ),
    )


def test_predictions_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", _table())
    found = read_predictions(tmp_path / "p.parquet")
    expected = _table()
    for name in ("genres", "seed", "split_seed", "fold"):
        assert getattr(found, name) == getattr(expected, name)
    assert len(found.predictions) == 3
    for one, other in zip(found.predictions, expected.predictions, strict=True):
        assert (one.model, one.part) == (other.model, other.part)
        for name in ("track_id", "group", "true", "probs", "predicted"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    gru = found.of("gru", VALID)
    assert gru is not None
    assert gru.predicted.tolist() == [1, 0, 0]
    assert found.of("gru", TEST) is None
    assert found.of("gru", OUT_OF_FOLD) is None


def test_the_file_has_one_row_per_model_part_and_track(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", _table())
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert table.columns.tolist() == [
        *("model", "part", "fold", "seed", "split_seed", "split_id"),
        *("track_id", "group", "genre"),
        *("prob_blues", "prob_rock"),
    ]
    assert len(table) == 3 + 3 + 1
    assert not table.duplicated(["model", "part", "track_id"]).any()
    row = table.iloc[2].to_dict()
    assert row == {
        "model": "ensemble",
        "part": "valid",
        "fold": "2/5",
        "seed": 7,
        "split_seed": 3,
        "split_id": "0123456789abcdef",
        "track_id": "r1",
        "group": "Kim",
        "genre": "rock",
        "prob_blues": 0.125,
        "prob_rock": 0.875,
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.slice(0, 0), "cannot be read"),
        (lambda t: t.drop_columns(["model"]), "cannot be read"),
        (lambda t: t.drop_columns(["prob_blues"]), "cannot be read"),  # a true genre without one
        (lambda t: t.drop_columns(["prob_blues", "prob_rock"]), "cannot be read"),
        (lambda t: _with(t, "genre", ["polka"] * 7), "cannot be read"),
        (lambda t: _with(t, "track_id", [None] * 7), "track_id has empty cells"),
        (lambda t: _with(t, "prob_rock", ["x"] * 7), "cannot be read"),
        (lambda t: _with(t, "prob_rock", [None] * 7), "prob_rock has empty cells"),
        (lambda t: _with(t, "prob_rock", [float("inf")] * 7), "probabilities that are no numbers"),
        (lambda t: _with(t, "prob_rock", [float("nan")] * 7), "probabilities that are no numbers"),
        (lambda t: _with(t, "seed", ["x"] * 7), "cannot be read"),
        (lambda t: pa.table({"a": [1]}), "cannot be read"),
    ],
)
def test_a_damaged_or_foreign_table_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], reason: str
) -> None:
    path = tmp_path / "p.parquet"
    write_predictions(path, _table())
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(RequestError, match=f"^{path} .*{reason}.*: do this instead") as error:
        read_predictions(path, "do this instead")
    assert "\n" not in str(error.value)


def _with(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, share: float) -> None:
    path = tmp_path / "p.parquet"
    write_predictions(path, _table())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RequestError, match=f"^{path} cannot be read .*: run the search") as error:
        read_predictions(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"p\.parquet is missing: run the search again"):
        read_predictions(tmp_path / "p.parquet")


# --- warnings ---


@pytest.mark.parametrize(
    ("test", "accuracy", "warned"),
    [
        # without music nearly as well as with it: 0.9 of it or more
        (0.8, 0.73, True),
        (0.8, 0.71, False),
        (None, 0.8, True),  # 0.9 of the held-out 0.875 is 0.7875
        (None, 0.78, False),
        (0.8, None, False),
    ],
)
def test_a_model_that_is_hardly_better_than_none_of_the_music_is_warned_of(
    test: float | None, accuracy: float | None, warned: bool
) -> None:
    measured = None if test is None else _metrics(test)
    models = {"ensemble": ModelResult(1000, 12.5, _metrics(0.875), measured)}
    info = _info(models=models, warnings=("no artist",), accuracy_without_music=accuracy)
    first, *others = info.all_warnings
    assert first == "no artist"
    assert len(others) == warned
    if warned:
        assert f"the genres of {accuracy:.1%} of the tracks can be told without" in others[0]


@pytest.fixture
def two_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """results/done, with an ensemble and a trial, and results/begun, without."""
    for file in (
        "done/search.json",
        "done/ensemble/ensemble.json",
        "done/ensemble/members/gru-0000/config.json",
        "done/trials/gru-0000/checkpoint/config.json",
        "begun/search.json",
    ):
        (tmp_path / "results" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / file).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("given", "search", "model"),
    [
        ("done", "done", "done/ensemble"),
        ("results/done", "done", "done/ensemble"),
        ("results/done/", "done", "done/ensemble"),
        ("results/done/search.json", "done", "done/ensemble"),
        ("results/done/ensemble", "done", "done/ensemble"),
        ("results/done/trials/gru-0000", "done", "done/trials/gru-0000/checkpoint"),
        ("results/done/trials/gru-0000/checkpoint", "done", "done/trials/gru-0000/checkpoint"),
        ("results/done/ensemble/members/gru-0000", "done", "done/ensemble/members/gru-0000"),
    ],
)
def test_a_name_and_any_place_in_a_search_say_which_is_meant(
    two_searches: Path, given: str, search: str, model: str
) -> None:
    assert search_folder(given).resolve() == two_searches / search
    assert model_folder(given).resolve() == two_searches / model
    assert search_folder(Path(given).absolute()) == (
        Path(given).absolute() if given == "done" else two_searches / search
    )


def test_a_search_without_an_ensemble_is_no_model_yet(two_searches: Path) -> None:
    with pytest.raises(RequestError, match="results/begun has no ensemble yet: .*--resume begun"):
        model_folder("begun")


def test_what_is_no_search_stays_as_it_is_and_the_nearest_name_is_said(two_searches: Path) -> None:
    assert search_folder("dome") == model_folder("dome") == Path("dome")
    with pytest.raises(
        RequestError, match=r"by its name or folder \(results/NAME\) \(nearest: done\)"
    ):
        load_search("dome")


def test_in_the_folder_of_a_search_a_name_is_that_of_another(
    two_searches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two_searches / "done")
    assert search_folder("begun") == Path("begun")  # not done, around it
    assert search_folder(".") == Path(".")
