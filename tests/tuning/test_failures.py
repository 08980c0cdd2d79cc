"""Trials that are killed, hang or raise, in real processes: the search ends with the others."""

import os
import signal
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from ray import tune

from mgc_ray.data.chunks import Chunks
from mgc_ray.data.storage import Exchange
from mgc_ray.tuning import run
from mgc_ray.tuning.records import COMPLETED, FAILED, TrialRecord
from mgc_ray.tuning.run import run_trials
from mgc_ray.tuning.settings import TuneSettings
from tests.conftest import make_chunks


@dataclass(frozen=True)
class Faulty(Chunks):
    """Chunks with which one trial comes to grief when it asks for genres the `at`-th time.

    Once before training and once at the end of each epoch. `what`: kill, kill once, hang, raise.
    Its folder holds who the victim is and how often it has asked.
    """

    folder: Path
    what: str
    at: int

    @property
    def genre(self) -> np.ndarray:  # type: ignore[override]
        trial = tune.get_context().get_trial_id()
        try:
            (self.folder / "victim").mkdir()
            (self.folder / "its name").write_text(trial)
        except FileExistsError:
            while not (self.folder / "its name").exists():
                time.sleep(0.01)
        if (self.folder / "its name").read_text() == trial:
            with (self.folder / "asked").open("a") as file:
                file.write(".")
            asked = (self.folder / "asked").stat().st_size
            if asked == self.at or (asked > self.at and self.what != "kill once"):
                self._fail()
        genre: np.ndarray = self.track_genre[self.track]
        return genre

    def _fail(self) -> None:
        if self.what == "hang":
            time.sleep(600)
        elif self.what == "raise":
            raise ValueError("this one does not like music")
        else:
            os.kill(os.getpid(), signal.SIGKILL)


def _space(trial: optuna.Trial) -> dict[str, Any]:
    dropout = trial.suggest_float("dropout", 0.0, 0.6)
    return {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8, "dropout": dropout}


def _search(
    folder: Path, patch: pytest.MonkeyPatch, cluster: dict[str, float], **settings: Any
) -> dict[str, TrialRecord]:
    patch.setattr(run, "load_space", lambda family: _space)
    what, at = settings.pop("what"), settings.pop("at")
    (folder / "faults").mkdir()
    whole = make_chunks()
    faulty = Faulty(
        *(getattr(whole, field.name) for field in fields(Chunks)), folder / "faults", what, at
    )
    given = TuneSettings(trials=4, max_epochs=4, reduction_factor=100, **settings)
    records = run_trials(Exchange(folder / "search", None), ["gru"], faulty, given, cluster)
    return {record.trial: record for record in records}


def _failed(records: dict[str, TrialRecord]) -> TrialRecord:
    """The one that failed, where all others came to their end."""
    assert len(records) == 4
    (failed,) = [record for record in records.values() if record.status != COMPLETED]
    assert failed.status == FAILED
    assert all(record.epochs == 4 for record in records.values() if record is not failed)
    return failed


def test_a_trial_whose_process_is_killed_goes_on_from_its_last_epoch(
    tmp_path: Path, ray_cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = _search(tmp_path, monkeypatch, ray_cluster, what="kill once", at=4)
    assert {record.status for record in records.values()} == {COMPLETED}
    assert {record.epochs for record in records.values()} == {4}
    # It asked 4 times until it was killed in the third epoch. Anew it would ask 5 times again; from
    # its last state, which is not written after each epoch where these are so short, less often.
    assert 4 + 3 <= (tmp_path / "faults" / "asked").stat().st_size <= 4 + 4
    assert not list((tmp_path / "search").rglob("state.safetensors"))


def test_a_trial_that_is_killed_each_time_fails_and_the_others_go_on(
    tmp_path: Path, ray_cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = _failed(_search(tmp_path, monkeypatch, ray_cluster, what="kill", at=2))
    assert "its process or node died" in failed.reason


def test_a_trial_that_raises_fails_at_once_with_its_reason(
    tmp_path: Path, ray_cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = _failed(_search(tmp_path, monkeypatch, ray_cluster, what="raise", at=3))
    assert failed.reason == "ValueError: this one does not like music"
    assert failed.epochs == 1


def test_a_trial_that_hangs_is_ended_after_its_time(
    tmp_path: Path, ray_cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    records = _search(tmp_path, monkeypatch, ray_cluster, what="hang", at=2, trial_timeout=20.0)
    failed = _failed(records)
    assert failed.reason == "it took longer than --trial-timeout 20 s"
    assert time.monotonic() - started < 120
