"""A trial that is too large for its share of a GPU runs again with a whole one.

No GPU is needed: Ray is given one in name only, and the family's network runs out of memory by
itself. In a process of its own, as this needs a cluster of its own.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from mgc_ray.results import COMPLETED, FAILED, read_records
from mgc_ray.tuning.searcher import load_studies

SEARCH = '''
import os, sys
from pathlib import Path

import pytest

from mgc_ray.terminal.process import prepare_process

prepare_process()
log = sys.argv[1]


def limit_memory():
    """In each of Ray's processes: a network of `hidden` units needs hidden / 256 of a GPU."""
    import torch

    from mgc_ray.data import device
    from mgc_ray.models import gru

    device.check_gpu = lambda: None

    def build(self, config, bands, genres):
        from ray import tune

        share = tune.get_context().get_trial_resources().bundles[0]["GPU"]
        with open(log, "a") as file:
            file.write(f"{config.hidden} {share} {os.getpid()}\\n")
        if config.hidden / 256 > share:
            if config.hidden == 128:
                raise torch.OutOfMemoryError("CUDA out of memory.\\nTried to allocate 2 GiB")
            raise torch.AcceleratorError("CUDA error: out of memory\\nCUDA kernel errors might")
        original(self, config, bands, genres)

    original = gru.Model.__init__
    gru.Model.__init__ = build


def space(trial):
    hidden = trial.suggest_categorical("hidden", [128, 16, 512])
    return {"blocks": 2, "channels": 4, "batch_size": 8, "hidden": hidden}


import ray

from mgc_ray.tuning.cluster import cluster_now
from tests.conftest import make_chunks
from tests.tuning.searching import search

ray.init(
    "local",
    num_cpus=4,
    num_gpus=1,
    include_dashboard=False,
    log_to_driver=False,
    logging_level="ERROR",
    runtime_env={"worker_process_setup_hook": limit_memory},
)
settings = {"trials": 8, "max_epochs": 3, "grace_period": 3, "gpus_per_trial": 0.25}
search(Path(sys.argv[2]), cluster_now(), space, make_chunks(), **settings)
ray.shutdown()
'''


@pytest.mark.slow
def test_a_trial_that_runs_out_of_memory_runs_again_alone(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(tmp_path / "built"), str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    records = read_records(folder / "trials")
    assert len(records) == 8
    by_hidden = {
        hidden: [r for r in records if r.params["hidden"] == hidden] for hidden in (16, 128, 512)
    }
    assert all(by_hidden.values())  # the seed gives some of each
    for record in by_hidden[16]:
        assert (record.status, record.reason) == (COMPLETED, "")
    for record in by_hidden[128]:  # half a GPU: too much for a quarter, enough alone
        assert record.status == COMPLETED
        assert record.epochs == 3
        assert record.reason == "out of memory on a shared GPU: run again alone on one"
    for record in by_hidden[512]:
        assert record.status == FAILED
        assert record.reason == "out of GPU memory, alone on it: CUDA error: out of memory"
    built = [line.split() for line in (tmp_path / "built").read_text().splitlines()]
    tries = {(hidden, share) for hidden, share, _ in built}
    expected = {("16", "0.25")} | {(h, s) for h in ("128", "512") for s in ("0.25", "1.0")}
    assert tries == expected
    assert len(built) == 8 + len(by_hidden[128]) + len(by_hidden[512])
    states = [t.state.name for t in load_studies(folder / "study.journal")["gru"].trials]
    assert sorted(states) == sorted("FAIL" if r.status == FAILED else "COMPLETE" for r in records)
