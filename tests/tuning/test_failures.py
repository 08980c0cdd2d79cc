"""Trials that are killed, hang or raise, in real processes: the search ends with the others."""

import os
import re
import signal
import time
import weakref
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray import tune

from mgc_ray.data.chunks import Chunks
from mgc_ray.data.device import check_gpu
from mgc_ray.data.storage import SharedFolder
from mgc_ray.results import COMPLETED, FAILED, TrialRecord
from mgc_ray.tuning import callbacks
from mgc_ray.tuning.callbacks import TrialLog
from mgc_ray.tuning.cluster import Cluster
from mgc_ray.tuning.trial import free_last_trial
from tests.conftest import make_chunks
from tests.tuning.searching import search, small_space


@dataclass(frozen=True)
class FaultyChunks(Chunks):
    """Chunks with which one trial fails when it reads genres for the `at`-th time.

    A trial reads them once before training and once at the end of each epoch. `fault`: kill,
    kill once, hang, hang once, raise, break CUDA once, no GPU. The folder holds which trial it is,
    how often it has read, and in which processes.
    """

    folder: Path
    fault: str
    at: int

    @property
    def track_genre(self) -> np.ndarray:  # type: ignore[override]
        genres = np.array([self.info.genres.index(t.genre) for t in self.tracks], np.int64)
        trial = tune.get_context().get_trial_id()
        if trial is None:  # in the driver
            return genres
        try:
            (self.folder / "victim").mkdir()
            (self.folder / "its name").write_text(trial)
        except FileExistsError:
            while not (self.folder / "its name").exists():
                time.sleep(0.01)
        if (self.folder / "its name").read_text() == trial:
            with (self.folder / "reads").open("a") as file:
                file.write(".")
            (self.folder / "last process").write_text(str(os.getpid()))
            reads = (self.folder / "reads").stat().st_size
            if reads == self.at or (reads > self.at and not self.fault.endswith("once")):
                self._fail()
        return genres

    def _fail(self) -> None:
        if self.fault.startswith("hang"):
            time.sleep(600)
        elif self.fault == "raise":
            raise ValueError("this trial does not like music")
        elif self.fault == "break CUDA once":
            (self.folder / "broken").write_text(str(os.getpid()))
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        elif self.fault == "no GPU":
            check_gpu()
        else:
            os.kill(os.getpid(), signal.SIGKILL)


def _search(
    folder: Path, cluster: Cluster, fault: str, at: int, **settings: Any
) -> dict[str, TrialRecord]:
    (folder / "faults").mkdir()
    sound = make_chunks()
    values = [getattr(sound, field.name) for field in fields(Chunks)]
    faulty = FaultyChunks(*values, folder / "faults", fault, at)
    settings = {"trials": 4, "max_epochs": 4, "reduction_factor": 100} | settings
    records = search(folder / "search", cluster, small_space, faulty, **settings)
    return {record.trial: record for record in records}


def _failed(records: dict[str, TrialRecord]) -> TrialRecord:
    """The one that failed, where all others were completed."""
    assert len(records) == 4
    (failed,) = [record for record in records.values() if record.status != COMPLETED]
    assert failed.status == FAILED
    assert all(record.epochs == 4 for record in records.values() if record is not failed)
    return failed


def test_a_trial_whose_process_is_killed_continues_from_its_last_epoch(
    tmp_path: Path, ray_cluster: Cluster
) -> None:
    records = _search(tmp_path, ray_cluster, "kill once", at=4)
    assert {record.status for record in records.values()} == {COMPLETED}
    assert {record.epochs for record in records.values()} == {4}
    # It read 4 times until it was killed in the third epoch. From scratch it would read 5 times
    # again; from its last state, which is not written after each of such short epochs, less often.
    assert 4 + 3 <= (tmp_path / "faults" / "reads").stat().st_size <= 4 + 4
    assert not list((tmp_path / "search").rglob("state.safetensors"))


@pytest.mark.slow  # it is started four times
def test_a_trial_that_is_killed_each_time_fails_and_the_others_continue(
    tmp_path: Path, ray_cluster: Cluster
) -> None:
    failed = _failed(_search(tmp_path, ray_cluster, "kill", at=2))
    assert "its process or node died" in failed.reason


def test_a_trial_that_raises_fails_at_once_with_its_reason(
    tmp_path: Path, ray_cluster: Cluster
) -> None:
    failed = _failed(_search(tmp_path, ray_cluster, "raise", at=3))
    assert failed.reason == "ValueError: this trial does not like music"
    assert failed.epochs == 1


def test_a_trial_whose_cuda_is_broken_continues_in_a_new_process(
    tmp_path: Path, ray_cluster: Cluster
) -> None:
    records = _search(tmp_path, ray_cluster, "break CUDA once", at=3)
    assert {record.status for record in records.values()} == {COMPLETED}
    assert {record.epochs for record in records.values()} == {4}
    (reason,) = {record.reason for record in records.values()} - {""}
    assert reason == "AcceleratorError: CUDA error: an illegal memory access was encountered"
    faults = tmp_path / "faults"
    assert (faults / "broken").read_text() != (faults / "last process").read_text()


def test_a_gpu_that_cannot_be_used_ends_the_search(tmp_path: Path, ray_cluster: Cluster) -> None:
    if torch.cuda.is_available():
        pytest.skip("PyTorch sees a GPU here")
    with pytest.raises(OSError, match="must be able to use it, but PyTorch sees none"):
        _search(tmp_path, ray_cluster, "no GPU", at=1)


def test_the_last_trial_of_a_process_is_freed_on_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trial:
        """A part of a cycle, as networks and generators are."""

        def __init__(self) -> None:
            self.itself = self

    last = weakref.ref(Trial())
    assert last() is not None
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: done.append("live" if last() else "freed")
    )
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: done.append("counted"))
    free_last_trial()
    assert done == ["freed", "counted"]


def test_a_trial_that_hangs_is_ended_after_its_timeout(
    tmp_path: Path,
    ray_cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In its first epoch, of which nobody knows how long it may take."""
    monkeypatch.setattr(callbacks, "_SILENCE", 2.0)
    started = time.monotonic()
    failed = _failed(_search(tmp_path, ray_cluster, "hang", at=2, trial_timeout=8.0))
    assert failed.reason == "it took longer than tuning.trial_timeout, 8 s"
    assert time.monotonic() - started < 100
    printed = " ".join(capsys.readouterr().err.split())
    assert f"{failed.trial} has reported nothing for 0 min: where it hangs, end the" in printed


def test_a_trial_that_is_silent_for_longer_than_its_epochs_took_continues_in_a_new_process(
    tmp_path: Path, ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "_SILENCE", 6.0)
    monkeypatch.setattr(callbacks, "_SLOWER", 1)
    records = _search(tmp_path, ray_cluster, "hang once", at=4)
    assert {record.status for record in records.values()} == {COMPLETED}
    assert {record.epochs for record in records.values()} == {4}
    (reason,) = {record.reason for record in records.values()} - {""}
    assert re.fullmatch(r"it reported nothing for \d+ s", reason)


@pytest.mark.parametrize(("nodes", "most"), [((), 4), (("10.0.0.1", "10.0.0.2"), 3)])
def test_a_node_that_dies_is_no_failure_of_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: tuple[str, ...], most: int
) -> None:
    """`nodes`: those that are left."""
    log = TrialLog(SharedFolder(tmp_path, None), "track_accuracy", "", 1, (), ())
    config = {"trial": "gru-0000", "family": "gru", "params": {}}
    trial = SimpleNamespace(config=config, max_failures=3)
    log.on_trial_start(0, [], trial)
    log.on_trial_result(0, [], trial, {"node_ip": "10.0.0.1"})
    alive = [{"NodeManagerAddress": node, "Alive": True} for node in nodes]
    monkeypatch.setattr(callbacks.ray, "nodes", lambda: alive)
    log.on_trial_recover(0, [], trial)
    assert trial.max_failures == most
    for _ in range(20):  # it may be what kills them
        log.on_trial_recover(0, [], trial)
    assert trial.max_failures == (3 if nodes else 10)
