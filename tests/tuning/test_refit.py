"""Refitting a search's best configurations on folds, on a real Ray cluster."""

import subprocess
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from mgc_ray.config import EnsembleConfig, SearchConfig, TuneConfig
from mgc_ray.data.chunks import Chunks
from mgc_ray.data.split.folds import draw_folds
from mgc_ray.data.storage import SharedFolder
from mgc_ray.ensembling.refit import configurations, plan_refit, read_refitted
from mgc_ray.results import COMPLETED, FAILED, TrialRecord, TrialResources
from mgc_ray.settings import Params
from mgc_ray.tuning import refit as refits
from mgc_ray.tuning.cluster import Cluster
from mgc_ray.tuning.refit import refit
from tests.conftest import make_chunks
from tests.places import DAMAGE

SMALL: Params = {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8}
RESOURCES = TrialResources(1.0, 0.0, 2)


def _config(folds: int, top_k: int = 2, **train: object) -> SearchConfig:
    return SearchConfig(
        family=("gru", "cnn"),
        train=train,
        tuning=TuneConfig(max_epochs=3),
        ensemble=EnsembleConfig(top_k=top_k, refit_folds=folds),
    )


def _record(number: int, family: str, accuracy: float, **params: object) -> TrialRecord:
    best = {"val_track_accuracy": accuracy, "val_loss": 1.0}
    return TrialRecord(
        trial=f"{family}-{number:04d}",
        family=family,
        params=SMALL | params,
        status=COMPLETED,
        best_epoch=2,
        curve=[best | {"val_track_accuracy": 0.0}, best, best | {"val_track_accuracy": 0.1}],
    )


def test_the_best_of_each_family_come_first_then_the_best_of_all() -> None:
    records = [
        _record(0, "gru", 0.9),
        _record(1, "gru", 0.8),
        _record(2, "cnn", 0.5),
        _record(3, "gru", 0.7),
        _record(4, "lstm", 0.6),
    ]
    records[4].status = FAILED
    chosen = [record.trial for record in configurations(records, 3)]
    assert chosen == ["gru-0000", "cnn-0002", "gru-0001"]
    assert [record.trial for record in configurations(records, 1)] == ["gru-0000", "cnn-0002"]


def test_a_constant_rate_ends_at_the_trials_best_epoch_and_a_cosine_runs_out() -> None:
    record = _record(0, "gru", 0.9)
    assert plan_refit(record, {"schedule": "constant", "max_epochs": 30}, 5).epochs == 2
    assert plan_refit(record, {"schedule": "cosine", "max_epochs": 30}, 5).epochs == 30


def test_refit_covers_all_tracks_and_continues_where_it_stopped(
    tmp_path: Path, chunks: Chunks, ray_cluster: Cluster
) -> None:
    records = [_record(0, "gru", 0.9), _record(1, "cnn", 0.8)]
    search = SharedFolder(tmp_path, None)
    refit(search, _config(3, batch_size=4), records, chunks, RESOURCES)
    refitted = read_refitted(tmp_path / "refit")
    assert [one.name for one in refitted] == ["gru-0000", "cnn-0001"]
    assert all(one.complete for one in refitted)
    assert refitted[0].rows.tolist() == list(range(len(chunks.track)))
    # the trial's own settings win over those that all trials share
    assert refitted[0].plan.params["batch_size"] == 8
    assert refitted[0].plan.params["max_epochs"] == 3
    files = sorted((tmp_path / "refit").glob("*/*/held.npz"))
    assert len(files) == 6
    before = {path: path.stat().st_mtime_ns for path in files}
    files[2].unlink()
    for number, name in enumerate(("held.npz", "model.safetensors", "config.json"), start=3):
        DAMAGE["zeros"](files[number].with_name(name))
    DAMAGE["empty"](tmp_path / "refit/gru-0000/refit.json")
    before |= {path: path.stat().st_mtime_ns for path in files[3:]}
    refit(search, _config(3, batch_size=4), records, chunks, RESOURCES)
    after = {path: path.stat().st_mtime_ns for path in files}
    assert [path for path in files if after[path] != before[path]] == files[2:]
    assert all(one.complete for one in read_refitted(tmp_path / "refit"))


def test_no_group_is_in_two_folds(chunks: Chunks) -> None:
    folds = draw_folds(chunks.tracks, 3, 0)
    folds_of_group: dict[str, set[int]] = {}
    for track, fold in zip(chunks.tracks, folds, strict=True):
        folds_of_group.setdefault(track.group, set()).add(fold)
    assert all(len(folds) == 1 for folds in folds_of_group.values())


def test_a_configuration_that_diverges_is_left_out_with_a_reason(
    tmp_path: Path,
    chunks: Chunks,
    ray_cluster: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = [_record(0, "gru", 0.9, lr=1e30), _record(1, "cnn", 0.8)]
    refit(SharedFolder(tmp_path, None), _config(2), records, chunks, RESOURCES)
    complete = {one.name: one.complete for one in read_refitted(tmp_path / "refit")}
    assert complete == {"gru-0000": False, "cnn-0001": True}
    assert "gru-0000 is left out of the refit" in capsys.readouterr().err


@dataclass(frozen=True)
class HangingChunks(Chunks):
    """Chunks with which folds hang before they train, so often."""

    folder: Path
    often: int

    @property
    def band_statistics(self) -> Any:  # type: ignore[override]
        hung = len(list(self.folder.iterdir()))
        if hung < self.often and "default_worker" in sys.argv[0]:
            (self.folder / f"{hung}").touch()
            time.sleep(600)
        return make_chunks().band_statistics


@pytest.mark.parametrize("often", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_fold_that_hangs_runs_again_in_another_process_then_is_left_out(
    tmp_path: Path,
    ray_cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    often: int,
) -> None:
    monkeypatch.setattr(refits, "_SHORTEST", 12.0)
    monkeypatch.setattr(refits, "_LOOK", 1.0)
    (tmp_path / "hung").mkdir()
    sound = make_chunks()
    values = [getattr(sound, field.name) for field in fields(Chunks)]
    hanging = HangingChunks(*values, tmp_path / "hung", often)
    one = TrialResources(1, 0, 1)  # fold after fold
    search = SharedFolder(tmp_path, None)
    (config, record) = (_config(2, top_k=1), _record(0, "gru", 0.9))
    config = replace(config, tuning=replace(config.tuning, concurrent=1))
    refit(search, config, [record], hanging, one)
    (refitted,) = read_refitted(tmp_path / "refit")
    printed = " ".join(capsys.readouterr().err.split())
    assert "no end after a multiple of its trial's time, so it runs again in another" in printed
    assert refitted.complete == (often == 1)
    assert ("it took longer than 12 s, twice: its process or node hangs" in printed) == (often == 3)
    assert not (tmp_path / "attempts").exists()


TOO_LARGE = '''
import sys
from pathlib import Path

from mgc_ray.terminal.process import prepare_process

prepare_process()
log = sys.argv[1]


def limit_memory():
    """In each of Ray's processes: a network of `hidden` units needs hidden / 256 of a GPU."""
    import os

    import ray
    import torch

    from mgc_ray.data import device
    from mgc_ray.models import gru

    device.check_gpu = lambda: None

    def build(self, config, bands, genres):
        share = ray.get_runtime_context().get_assigned_resources()["GPU"]
        with open(log, "a") as file:
            file.write(f"{config.hidden} {share} {os.getpid()}\\n")
        if config.hidden / 256 > share:
            raise torch.AcceleratorError("CUDA error: out of memory\\nCUDA kernel errors might")
        if config.hidden == 8:
            raise RuntimeError("CUDA error: device-side assert triggered")
        original(self, config, bands, genres)

    original = gru.Model.__init__
    gru.Model.__init__ = build


import ray

from mgc_ray.data.storage import SharedFolder
from mgc_ray.results import TrialResources
from mgc_ray.tuning.refit import refit
from tests.conftest import make_chunks
from tests.tuning.test_refit import _config, _record

ray.init(
    "local",
    num_cpus=4,
    num_gpus=1,
    include_dashboard=False,
    log_to_driver=False,
    logging_level="ERROR",
    runtime_env={"worker_process_setup_hook": limit_memory},
)
sizes = (16, 128, 512, 8)
records = [_record(i, "gru", 0.9 - i / 10, hidden=hidden) for i, hidden in enumerate(sizes)]
config = _config(2, top_k=4)
search = SharedFolder(Path(sys.argv[2]), None)
refit(search, config, records, make_chunks(), TrialResources(1, 0.25, 4))
ray.shutdown()
'''


@pytest.mark.slow
def test_folds_that_run_out_of_memory_run_again_alone_or_are_left_out(tmp_path: Path) -> None:
    """On a GPU in name only, so in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", TOO_LARGE, str(tmp_path / "built"), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    complete = {one.name: one.complete for one in read_refitted(tmp_path / "refit")}
    assert complete == {"gru-0000": True, "gru-0001": True, "gru-0002": False, "gru-0003": False}
    built = [line.split() for line in (tmp_path / "built").read_text().splitlines()]
    tries = {(hidden, share) for hidden, share, _ in built}
    assert tries == {
        *(("16", "0.25"), ("128", "0.25"), ("128", "1.0")),
        *(("512", "0.25"), ("512", "1.0"), ("8", "0.25")),
    }
    assert len({process for _, _, process in built}) == len(built)  # as CUDA may be broken
    assert "gru-0001, fold 1: out of memory on a shared GPU: run again alone on one" in done.stderr
    assert (
        "gru-0002 is left out of the refit, fold 1: out of GPU memory, alone on it: CUDA error: out"
        in done.stderr
    ) or ("gru-0002 is left out of the refit, fold 2: out of GPU memory, alone" in done.stderr)
    assert "gru-0003 is left out of the refit, fold" in done.stderr
    assert "RuntimeError: CUDA error: device-side assert triggered" in done.stderr
