"""A trial that is too large for its share of a GPU runs again with a whole one.

No GPU is needed: Ray is told of one, and the family's network runs out of memory by itself.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray

from mgc_ray.data.storage import Exchange
from mgc_ray.tuning import run
from mgc_ray.tuning.run import run_trials
from mgc_ray.tuning.searcher import load_studies
from mgc_ray.tuning.settings import TuneSettings
from tests.conftest import make_chunks


@pytest.fixture
def resources_of_one_gpu(tmp_path: Path) -> Iterator[dict[str, float]]:
    """A cluster with one GPU in name, whose workers have networks that need memory."""
    log = str(tmp_path / "built")

    def limit_memory() -> None:
        import torch

        from mgc_ray.models import gru

        def build(self: Any, config: Any, bands: int, genres: int) -> None:
            from ray import tune

            share = tune.get_context().get_trial_resources().bundles[0]["GPU"]
            with open(log, "a") as file:
                file.write(f"{config.hidden} {share} {os.getpid()}\n")
            if config.hidden / 256 > share:
                raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
            whole(self, config, bands, genres)

        whole = gru.Model.__init__
        gru.Model.__init__ = build  # type: ignore[method-assign]

    if ray.is_initialized():  # the suite's own cluster, which no later file needs
        ray.shutdown()
    ray.init(
        "local",
        num_cpus=4,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": limit_memory},
    )
    yield ray.cluster_resources()
    ray.shutdown()


def _space(trial: optuna.Trial) -> dict[str, Any]:
    hidden = trial.suggest_categorical("hidden", [128, 16, 512])
    return {"blocks": 2, "channels": 4, "batch_size": 8, "hidden": hidden}


def test_an_out_of_memory_trial_is_run_again_alone(
    resources_of_one_gpu: dict[str, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "load_space", lambda family: _space)
    settings = TuneSettings(trials=8, max_epochs=3, grace_period=3, gpus_per_trial=0.25)
    chunks = make_chunks()
    records = run_trials(
        Exchange(tmp_path / "s", None), ["gru"], chunks, settings, resources_of_one_gpu
    )
    assert len(records) == 8
    by_hidden = {
        hidden: [r for r in records if r.params["hidden"] == hidden] for hidden in (16, 128, 512)
    }
    assert all(by_hidden.values())  # the seed gives some of each
    for record in by_hidden[16]:
        assert (record.status, record.reason) == ("completed", "")
    for record in by_hidden[128]:  # half a GPU: too much for a quarter, enough alone
        assert record.status == "completed"
        assert record.epochs == 3
        assert record.reason == "out of memory on a shared GPU: run again alone on one"
    for record in by_hidden[512]:
        assert record.status == "failed"
        assert record.reason == "out of GPU memory, alone on it: CUDA out of memory."
    built = [line.split() for line in (tmp_path / "built").read_text().splitlines()]
    tries = {(hidden, share) for hidden, share, _ in built}
    expected = {("16", "0.25")} | {(h, s) for h in ("128", "512") for s in ("0.25", "1.0")}
    assert tries == expected
    assert len(built) == 8 + len(by_hidden[128]) + len(by_hidden[512])
    states = [t.state.name for t in load_studies(tmp_path / "s" / "study.journal")["gru"].trials]
    assert sorted(states) == sorted("FAIL" if r.status == "failed" else "COMPLETE" for r in records)
