"""Whole searches on a real Ray cluster, over a dataset small enough for seconds."""

import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks
from mgc_ray.data.storage import Exchange
from mgc_ray.tuning import run
from mgc_ray.tuning.records import LEADERBOARD_COLUMNS, TrialRecord
from mgc_ray.tuning.run import run_trials, share_resources
from mgc_ray.tuning.searcher import load_studies
from mgc_ray.tuning.settings import TuneSettings
from tests.conftest import make_chunks


def _small_space(trial: optuna.Trial) -> dict[str, Any]:
    """A network of no size, so that a trial is a matter of milliseconds."""
    trial.suggest_float("dropout", 0.0, 0.6)
    return {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8, "dropout": 0.1}


def _with_hopeless_ones(trial: optuna.Trial) -> dict[str, Any]:
    lr = trial.suggest_categorical("lr", [1e-3, 1e-2, 1e-9])
    return _small_space(trial) | {"lr": lr}


def _with_diverging_ones(trial: optuna.Trial) -> dict[str, Any]:
    lr = trial.suggest_categorical("lr", [1e-3, 1e30])
    return _small_space(trial) | {"lr": lr, "warmup_epochs": 0}


def _search(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    resources: dict[str, float],
    space: Any,
    chunks: Chunks,
    families: tuple[str, ...] = ("gru",),
    **settings: Any,
) -> list[TrialRecord]:
    monkeypatch.setattr(run, "load_space", lambda family: space)
    return run_trials(Exchange(folder, None), families, chunks, TuneSettings(**settings), resources)


@pytest.fixture(scope="module")
def finished(
    ray_cluster: dict[str, float], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[TrialRecord]]:
    """One search that most tests below look at: two families, 16 trials, 6 keep their weights."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        records = _search(
            folder,
            patch,
            ray_cluster,
            _with_hopeless_ones,
            make_chunks(tracks_per_genre=18, noise=1.5),
            families=("cnn", "gru"),
            trials=16,
            max_epochs=9,
            grace_period=1,
            reduction_factor=3,
            keep=6,
        )
    return folder, records


def test_every_trial_ends_and_is_recorded_once(finished: tuple[Path, list[TrialRecord]]) -> None:
    folder, records = finished
    assert len(records) == 16
    assert all(record.ended for record in records)
    assert Counter(record.family for record in records) == {"cnn": 8, "gru": 8}
    with open(folder / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0])[: len(LEADERBOARD_COLUMNS)] == LEADERBOARD_COLUMNS
    assert sorted(row["trial"] for row in rows) == sorted(record.trial for record in records)
    accuracies = [float(row["val_track_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)


def test_asha_stops_trials_and_lets_others_finish(
    finished: tuple[Path, list[TrialRecord]],
) -> None:
    _, records = finished
    stopped = [record for record in records if record.status == "stopped_early"]
    completed = [record for record in records if record.status == "completed"]
    assert len(stopped) >= 3
    assert completed
    assert all(record.epochs in (1, 3) for record in stopped)  # the rungs
    assert max(record.accuracy for record in completed) >= max(r.accuracy for r in stopped)


def test_optuna_knows_each_outcome_as_what_it_was(
    finished: tuple[Path, list[TrialRecord]],
) -> None:
    folder, records = finished
    states = {"completed": TrialState.COMPLETE, "stopped_early": TrialState.PRUNED}
    told = {
        trial.user_attrs["trial"]: trial
        for study in load_studies(folder / "study.journal").values()
        for trial in study.get_trials()
    }
    assert len(told) == 16
    for record in records:
        trial = told[record.trial]
        assert trial.state == states[record.status]
        assert list(trial.intermediate_values) == list(range(1, record.epochs + 1))
        assert trial.value == pytest.approx(record.accuracy)


def test_the_first_trial_of_each_family_is_its_defaults(
    finished: tuple[Path, list[TrialRecord]],
) -> None:
    _, records = finished
    firsts = [record for record in records if record.trial in ("cnn-0000", "gru-0001")]
    assert [record.params["lr"] for record in firsts] == [1e-3, 1e-3]


def test_only_the_best_keep_their_weights(finished: tuple[Path, list[TrialRecord]]) -> None:
    folder, _ = finished
    kept = {path.parent.parent.name for path in folder.glob("trials/*/checkpoint/*.safetensors")}
    with open(folder / "leaderboard.csv", newline="") as file:
        best = [row["trial"] for row in csv.DictReader(file)][:6]
    assert kept == set(best)


def test_each_trial_is_a_tensorboard_run_with_scalars_and_hparams(
    finished: tuple[Path, list[TrialRecord]],
) -> None:
    folder, records = finished
    for record in records:
        events = EventAccumulator(str(folder / "trials" / record.trial)).Reload()
        losses = events.Scalars("loss/train")
        assert [event.step for event in losses] == list(range(1, record.epochs + 1))
        figures = [event.value for event in events.Scalars("accuracy/validation_tracks")]
        assert figures == pytest.approx([m["val_track_accuracy"] for m in record.curve])
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        chosen = hparams_metadata.parse_session_start_info_plugin_data(content).hparams
        assert chosen["family"].string_value == record.family
        assert chosen["lr"].number_value == pytest.approx(record.params["lr"])
        best = events.Scalars("best/val_track_accuracy")[0]
        assert (best.step, best.value) == (record.best_epoch, pytest.approx(record.accuracy))


def test_tensorboards_hparams_tab_shows_every_trial_and_parameter(
    finished: tuple[Path, list[TrialRecord]],
) -> None:
    """Asked of a real TensorBoard, the way its page asks."""
    folder, records = finished
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "trials")),
            *("--host", "127.0.0.1", "--port", str(port), "--load_fast=false"),
        ],
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}/data/plugin/hparams/"

    def ask(what: str, **question: Any) -> dict[str, Any]:
        body = json.dumps({"experimentName": "", **question}).encode()
        request = urllib.request.Request(address + what, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            content: dict[str, Any] = json.load(answer)
            return content

    try:
        deadline = time.monotonic() + 60
        experiment: dict[str, Any] = {}
        while not experiment.get("hparamInfos") and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                experiment = ask("experiment")
            time.sleep(0.5)
        shown = {info["name"] for info in experiment["hparamInfos"]}
        parameters = {name for record in records for name in record.params}
        assert shown == parameters | {"family", "status"}
        metrics = {info["name"]["tag"] for info in experiment["metricInfos"]}
        assert "best/val_track_accuracy" in metrics
        groups = ask(
            "session_groups",
            startIndex=0,
            sliceSize=100,
            allowedStatuses=["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_RUNNING"],
            colParams=[{"hparam": name} for name in sorted(shown)],
        )
        names = {session["name"] for g in groups["sessionGroups"] for session in g["sessions"]}
        assert names == {record.trial for record in records}
    finally:
        server.terminate()
        server.wait(20)


def test_the_results_hold_no_pickle(finished: tuple[Path, list[TrialRecord]]) -> None:
    folder, _ = finished
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    kinds = {n for n in names if not n.startswith("events.out.tfevents")}
    assert kinds == {
        "leaderboard.csv",
        "study.journal",
        "trial.json",
        "config.json",
        "model.safetensors",
    }


def test_a_diverging_trial_fails_with_epoch_and_step_and_the_others_go_on(
    tmp_path: Path, ray_cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = _search(
        tmp_path,
        monkeypatch,
        ray_cluster,
        _with_diverging_ones,
        make_chunks(),
        trials=8,
        max_epochs=2,
    )
    failed = [record for record in records if record.params["lr"] == 1e30]
    assert failed
    assert len(failed) < len(records)
    for record in failed:
        assert record.status == "failed"
        assert "loss is nan in epoch 1, step " in record.reason
    study = load_studies(tmp_path / "study.journal")["gru"]
    by_name = {trial.user_attrs["trial"]: trial for trial in study.get_trials()}
    for record in records:
        state = by_name[record.trial].state
        assert (state == TrialState.FAIL) == (record.status == "failed")
        assert state != TrialState.RUNNING


def test_resuming_runs_only_what_is_missing(
    tmp_path: Path, ray_cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(trials: int) -> list[TrialRecord]:
        return _search(
            tmp_path,
            monkeypatch,
            ray_cluster,
            _small_space,
            make_chunks(),
            trials=trials,
            max_epochs=2,
        )

    first = search(3)
    written = {r.trial: (tmp_path / "trials" / r.trial / "trial.json").stat() for r in first}
    second = search(5)
    assert sorted(r.trial for r in second) == [f"gru-{i:04d}" for i in range(5)]
    for name, status in written.items():
        again = (tmp_path / "trials" / name / "trial.json").stat()
        assert again.st_mtime_ns == status.st_mtime_ns
    assert search(5) == sorted(second, key=lambda r: r.trial)


def test_what_a_killed_driver_left_beside_the_last_record_is_put_in_order(
    tmp_path: Path, ray_cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died after the record of the last trial, before Optuna was told and its state deleted."""
    settings: dict[str, Any] = {"trials": 1, "max_epochs": 2}
    searched = (monkeypatch, ray_cluster, _small_space, make_chunks())
    first = _search(tmp_path, *searched, **settings)
    journal = tmp_path / "study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))  # the last one says how the trial ended
    assert load_studies(journal)["gru"].get_trials()[0].state == TrialState.RUNNING
    state = tmp_path / "trials/gru-0000/state.safetensors"
    state.write_bytes(b"left")
    assert _search(tmp_path, *searched, **settings) == first
    assert load_studies(journal)["gru"].get_trials()[0].state == TrialState.COMPLETE
    assert not state.exists()


def test_the_time_limit_ends_a_search(
    tmp_path: Path, ray_cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = _search(
        tmp_path,
        monkeypatch,
        ray_cluster,
        _small_space,
        make_chunks(),
        trials=1000,
        max_epochs=2,
        time_limit=12.0,
    )
    assert 1 <= len(records) < 1000
    assert all(record.ended for record in records)


def test_a_nodes_trials_read_the_same_memory(ray_cluster: dict[str, float]) -> None:
    @ray.remote
    def look(chunks: Chunks) -> tuple[int, bool, float]:
        x = chunks.spectrograms
        private = 0
        with open("/proc/self/smaps") as file:
            address = x.__array_interface__["data"][0]
            inside = False
            for line in file:
                head = line.split(" ", 1)[0]
                if "-" in head and not head.endswith(":"):
                    low, high = (int(part, 16) for part in head.split("-"))
                    inside = low <= address < high
                elif inside and line.startswith(("Private_Dirty", "Anonymous")):
                    private += int(line.split()[1])
        return os.getpid(), x.flags.writeable, private

    big = make_chunks(tracks_per_genre=60, bands=128, frames=128)
    reference = ray.put(big)
    for _, writeable, private_kib in ray.get([look.remote(reference) for _ in range(4)]):
        assert not writeable
        assert private_kib < 1024 < big.spectrograms.nbytes / 1024


@pytest.mark.parametrize(
    ("settings", "resources", "expected"),
    [
        ({}, {"CPU": 2}, (1, 0, 2)),
        ({"concurrent": 1}, {"CPU": 8}, (8, 0, 1)),
        ({"concurrent": 3}, {"CPU": 8}, (2, 0, 3)),
        ({}, {"CPU": 16, "GPU": 2}, (1, 1, 2)),
        ({"gpus_per_trial": 0.25}, {"CPU": 16, "GPU": 2}, (1, 0.25, 8)),
        ({"gpus_per_trial": 0.125}, {"CPU": 4, "GPU": 1}, (1, 0.125, 4)),
        ({"gpus_per_trial": 0}, {"CPU": 4, "GPU": 1}, (1, 0, 4)),
    ],
)
def test_a_trials_share_of_the_cluster(
    settings: dict[str, Any], resources: dict[str, float], expected: tuple[float, float, int]
) -> None:
    assert share_resources(TuneSettings(**settings), resources) == expected


def test_more_than_the_cluster_has_is_refused() -> None:
    with pytest.raises(RequestError, match=r"at most the cluster's GPUs \(0\), but it is 0.5"):
        share_resources(TuneSettings(gpus_per_trial=0.5), {"CPU": 2})
    with pytest.raises(RequestError, match=r"at most the cluster's CPUs \(2\).*it is 3"):
        share_resources(TuneSettings(concurrent=3), {"CPU": 2})


def test_one_trial_at_a_time_gives_the_same_search_again(
    tmp_path: Path, ray_cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(name: str, seed: int) -> list[tuple[Any, ...]]:
        records = _search(
            tmp_path / name,
            monkeypatch,
            ray_cluster,
            _with_hopeless_ones,
            make_chunks(),
            trials=8,
            max_epochs=3,
            grace_period=1,
            concurrent=1,
            seed=seed,
        )
        timeless = [
            [m["train_loss"] for m in r.curve] + [m["val_loss"] for m in r.curve] for r in records
        ]
        return [(r.trial, r.status, r.params, c) for r, c in zip(records, timeless, strict=True)]

    first = search("a", 0)
    assert search("b", 0) == first
    assert search("c", 1) != first
