"""Whole searches on a real Ray cluster, over a dataset small enough for seconds."""

import csv
import os
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import ray
from optuna.trial import TrialState

from mgc_ray import RequestError
from mgc_ray.config import TuneConfig
from mgc_ray.data.chunks import Chunks
from mgc_ray.results import (
    OUT_OF_TIME,
    TrialRecord,
    TrialResources,
    leaderboard,
    read_records,
)
from mgc_ray.settings import Params
from mgc_ray.tuning.cluster import Cluster
from mgc_ray.tuning.searcher import load_studies
from tests.conftest import make_chunks
from tests.tuning.searching import (
    search,
    small_space,
    with_diverging_rates,
    with_useless_rates,
)


def test_every_trial_ends_and_is_recorded_once(finished: tuple[Path, list[TrialRecord]]) -> None:
    folder, records = finished
    assert len(records) == 16
    assert all(record.ended for record in records)
    assert Counter(record.family for record in records) == {"cnn": 8, "gru": 8}
    with open(folder / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == leaderboard(records)[0]
    assert sorted(row["trial"] for row in rows) == sorted(record.trial for record in records)
    accuracies = [float(row["val_track_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)


def _accuracy(record: TrialRecord) -> float:
    return record.best["val_track_accuracy"]


def test_asha_stops_trials_and_lets_others_finish(
    finished: tuple[Path, list[TrialRecord]],
) -> None:
    _, records = finished
    stopped = [record for record in records if record.status == "stopped_early"]
    completed = [record for record in records if record.status == "completed"]
    assert len(stopped) >= 3
    assert completed
    assert all(record.epochs in (1, 3) for record in stopped)  # the rungs
    assert max(map(_accuracy, completed)) >= max(map(_accuracy, stopped))


def test_optuna_knows_how_each_trial_ended(finished: tuple[Path, list[TrialRecord]]) -> None:
    folder, records = finished
    states = {"completed": TrialState.COMPLETE, "stopped_early": TrialState.PRUNED}
    by_name = {
        trial.user_attrs["trial"]: trial
        for study in load_studies(folder / "study.journal").values()
        for trial in study.get_trials()
    }
    assert len(by_name) == 16
    for record in records:
        trial = by_name[record.trial]
        assert trial.state == states[record.status]
        assert list(trial.intermediate_values) == list(range(1, record.epochs + 1))
        assert trial.value == pytest.approx(_accuracy(record))


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


def test_the_results_hold_no_pickle(finished: tuple[Path, list[TrialRecord]]) -> None:
    folder, _ = finished
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {n for n in names if not n.startswith("events.out.tfevents")} == {
        "leaderboard.csv",
        "study.journal",
        "trial.json",
        "validation.npz",
        "config.json",
        "model.safetensors",
    }


def test_a_diverging_trial_fails_with_epoch_and_step_and_the_others_continue(
    tmp_path: Path, ray_cluster: Cluster
) -> None:
    settings: dict[str, Any] = {"trials": 8, "max_epochs": 2, "concurrent": 1}
    records = search(tmp_path, ray_cluster, with_diverging_rates, make_chunks(), **settings)
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


def test_a_resumed_search_runs_only_the_missing_trials(
    tmp_path: Path, ray_cluster: Cluster
) -> None:
    def search_of(trials: int) -> list[TrialRecord]:
        settings: dict[str, Any] = {"trials": trials, "max_epochs": 2, "concurrent": 1}
        return search(tmp_path, ray_cluster, small_space, make_chunks(), **settings)

    first = search_of(3)
    written = {r.trial: (tmp_path / "trials" / r.trial / "trial.json").stat() for r in first}
    second = search_of(5)
    assert sorted(r.trial for r in second) == [f"gru-{i:04d}" for i in range(5)]
    for name, status in written.items():
        again = (tmp_path / "trials" / name / "trial.json").stat()
        assert again.st_mtime_ns == status.st_mtime_ns
    assert search_of(5) == sorted(second, key=lambda r: r.trial)


def test_a_trial_whose_end_optuna_was_not_told_is_not_run_again(
    tmp_path: Path, ray_cluster: Cluster
) -> None:
    """The driver died after the record of the last trial, before Optuna knew of its end."""
    settings: dict[str, Any] = {"trials": 1, "max_epochs": 2}
    first = search(tmp_path, ray_cluster, small_space, make_chunks(), **settings)
    journal = tmp_path / "study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))  # the last one records how the trial ended
    assert load_studies(journal)["gru"].get_trials()[0].state == TrialState.RUNNING
    state = tmp_path / "trials/gru-0000/state.safetensors"
    state.write_bytes(b"left")
    assert search(tmp_path, ray_cluster, small_space, make_chunks(), **settings) == first
    assert load_studies(journal)["gru"].get_trials()[0].state == TrialState.COMPLETE
    assert not state.exists()


def test_the_time_limit_ends_a_search(tmp_path: Path, ray_cluster: Cluster) -> None:
    settings: dict[str, Any] = {"trials": 1000, "max_epochs": 100_000, "time_limit": 12.0}
    settings["concurrent"] = 1

    def endless(trial: optuna.Trial) -> Params:
        return small_space(trial) | {"patience": 100_000}

    (record,) = search(tmp_path, ray_cluster, endless, make_chunks(), **settings)
    assert record.status == OUT_OF_TIME  # neither stopped by ASHA nor complete
    assert read_records(tmp_path / "trials") == [record]
    leaderboard = pd.read_csv(tmp_path / "leaderboard.csv")
    assert leaderboard["status"].tolist() == ["out_of_time"]
    (trial,) = load_studies(tmp_path / "study.journal")["gru"].get_trials(deepcopy=False)[:1]
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["status"] == "out_of_time"
    assert len(trial.intermediate_values) == record.epochs


def test_the_trials_of_a_node_read_the_same_memory(ray_cluster: Cluster) -> None:
    @ray.remote
    def look(chunks: Chunks) -> tuple[int, bool, float]:
        x = chunks.features["array"]
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
        assert private_kib < 1024 < big.features["array"].nbytes / 1024


@pytest.mark.parametrize(
    ("settings", "cluster", "expected"),
    [
        ({}, Cluster(2, 0), (1, 0, 2)),
        ({"concurrent": 1}, Cluster(8, 0), (8, 0, 1)),
        ({"concurrent": 3}, Cluster(8, 0), (2, 0, 3)),
        ({}, Cluster(16, 2), (2, 0.25, 8)),
        ({}, Cluster(2, 1), (1, 0.25, 2)),
        ({"gpus_per_trial": 0.25}, Cluster(16, 2), (2, 0.25, 8)),
        ({"gpus_per_trial": 0.125}, Cluster(4, 1), (1, 0.125, 4)),
        ({"gpus_per_trial": 0}, Cluster(4, 1), (1, 0, 4)),
        ({"gpus_per_trial": 1}, Cluster(16, 1), (16, 1, 1)),
        # what is left of several GPUs is none
        ({"gpus_per_trial": 0.3}, Cluster(128, 32), (1, 0.3, 96)),
        ({"gpus_per_trial": 0.6}, Cluster(8, 4, ((4, 2), (4, 2))), (2, 0.6, 4)),
        ({"gpus_per_trial": 0.1}, Cluster(20, 2), (1, 0.1, 20)),
        ({"gpus_per_trial": 0.3333}, Cluster(3, 1), (1, 0.3333, 3)),
        # the share follows from how many run
        ({"concurrent": 8}, Cluster(16, 1), (2, 0.125, 8)),
        ({"concurrent": 3}, Cluster(16, 1), (5, 0.3333, 3)),
        ({"concurrent": 1}, Cluster(16, 1), (16, 1, 1)),
        ({"concurrent": 5}, Cluster(64, 4, ((32, 2), (32, 2))), (10, 0.5, 5)),
        ({"concurrent": 2, "gpus_per_trial": 0.25}, Cluster(16, 1), (8, 0.25, 2)),
        ({"concurrent": 20}, Cluster(4, 1), (1, 0.05, 4)),
        # a trial runs on one node, whatever the others have
        ({"concurrent": 1}, Cluster(3, 0, ((1, 0), (1, 0), (1, 0))), (1, 0, 1)),
        ({"concurrent": 1}, Cluster(6, 0, ((0, 0), (4, 0), (2, 0))), (4, 0, 1)),
        ({"concurrent": 2}, Cluster(6, 0, ((4, 0), (2, 0))), (2, 0, 2)),
        ({"gpus_per_trial": 0.5}, Cluster(9, 2, ((8, 1), (1, 1))), (1, 0.5, 3)),
    ],
)
def test_a_trials_share_of_the_cluster(
    settings: dict[str, Any], cluster: Cluster, expected: tuple[float, float, int]
) -> None:
    assert cluster.share(TuneConfig(**settings)) == TrialResources(*expected)


def test_more_than_the_cluster_has_is_refused() -> None:
    with pytest.raises(RequestError, match=r"at most the cluster's GPUs \(0\), but it is 0.5"):
        Cluster(2, 0).share(TuneConfig(gpus_per_trial=0.5))
    with pytest.raises(RequestError, match="on a node that has a CPU too, but none is: start"):
        Cluster(2, 1, ((2, 0), (0, 1))).share(TuneConfig(gpus_per_trial=0.5))
    with pytest.raises(RequestError, match="--gpus-per-trial must be a number from 0 to 1"):
        TuneConfig(gpus_per_trial=2)
    with pytest.raises(RequestError, match=r"at most the cluster's CPUs \(2\).*it is 3"):
        Cluster(2, 0).share(TuneConfig(concurrent=3))
    with pytest.raises(RequestError, match=r"must have a CPU for trials, but it has 0: start a"):
        Cluster(0, 1).share(TuneConfig())


def test_one_trial_at_a_time_gives_the_same_search_again(
    tmp_path: Path, ray_cluster: Cluster
) -> None:
    def outcomes(name: str) -> list[tuple[Any, ...]]:
        """Of each trial all that does not depend on time."""
        records = search(
            tmp_path / name,
            ray_cluster,
            with_useless_rates,
            make_chunks(),
            seed=3,
            trials=4,
            max_epochs=3,
            grace_period=1,
            concurrent=1,
        )
        losses = [[(m["train_loss"], m["val_loss"]) for m in r.curve] for r in records]
        return [(r.trial, r.status, r.params, c) for r, c in zip(records, losses, strict=True)]

    first = outcomes("a")  # that another seed gives other trials: test_searcher.py
    assert len({str(params) for _, _, params, _ in first}) == 4
    assert outcomes("b") == first
