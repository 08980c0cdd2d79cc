"""What a search costs besides training: between trials, per report, memory and disk per trial.

    python tests/benchmarks/search_overhead.py --parts gap report growth
    python tests/benchmarks/search_overhead.py --parts growth --trials 1000

All with a family that learns nothing and takes no time, so that only the search itself is measured,
and all on the CPU: Ray has no GPUs here.

gap      seconds from one trial's last step to the next one's first, one trial at a time: this
         program (`run_trials`) against Ray Tune as its documentation starts it
report   the driver's CPU time per report
growth   the driver's memory and the results folder between the first hundred trials and the last
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TRIVIAL_FAMILY = '''
"""Learns nothing; notes when it is built and when it computes."""
import os, time
from dataclasses import dataclass
import torch
from torch import nn

@dataclass(frozen=True)
class Config:
    width: int = 1
    slope: float = 0.5

def note(what):
    if path := os.environ.get("TRIVIAL_EVENTS"):
        with open(path, "a") as file:
            file.write(f"{what} {time.time()}\\n")

class Model(nn.Module):
    def __init__(self, config, bands, genres):
        super().__init__()
        note("first")
        self.slope = config.slope
        self.linear = nn.Linear(bands, genres)
    def forward(self, x):
        note("step")
        return self.linear(x.mean(2)) * self.slope

def suggest(trial):
    return {
        "width": trial.suggest_int("width", 1, 64),
        "slope": trial.suggest_float("slope", 0.0, 1.0),
        "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64]),
    }
'''


def register_trivial_family() -> None:
    """Make the family known to this process; Ray calls it in each worker too."""
    from mgc_ray.models import register_family

    register_family(Path(os.environ["TRIVIAL_FAMILY"]))


def write_family(folder: Path, events: Path | None) -> None:
    path = folder / "trivial.py"
    path.write_text(TRIVIAL_FAMILY)
    os.environ["TRIVIAL_FAMILY"] = str(path)
    if events:
        os.environ["TRIVIAL_EVENTS"] = str(events)


def tiny_chunks() -> Any:
    """30 chunks of 4 x 4 values."""
    from tests.conftest import make_chunks

    return make_chunks(tracks_per_genre=5, chunks_per_track=2, bands=4, frames=4)


def ours(folder: Path, trials: int, epochs: int, concurrent: int) -> int:
    """Trials through this program; the number of reports."""
    from mgc_ray.config import ClusterConfig, SearchConfig, TuneConfig
    from mgc_ray.data.storage import SharedFolder
    from mgc_ray.tuning.cluster import ray_cluster
    from mgc_ray.tuning.run import run_trials
    from mgc_ray.tuning.space import load_space

    tuning = TuneConfig(
        trials=trials, max_epochs=epochs, concurrent=concurrent, grace_period=epochs, keep=5
    )
    config = SearchConfig(family=("trivial",), tuning=tuning)
    spaces = {"trivial": load_space("trivial")}
    with ray_cluster(ClusterConfig()) as cluster:
        resources = cluster.share(tuning)
        shared = SharedFolder(folder, None)
        records = run_trials(shared, config, spaces, tiny_chunks(), resources)
    return sum(record.epochs for record in records)


def stock_space(trial: Any) -> None:
    """OptunaSearch pickles its space, so it is a function of a module."""
    from mgc_ray.models import family_module

    family_module("trivial").suggest(trial)


def stock(folder: Path, trials: int, epochs: int, concurrent: int) -> int:
    """The same through Ray Tune with OptunaSearch and ASHA, all else as it is by default."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def trainable(config: dict[str, Any], chunks: Any = None) -> None:
        import torch

        from mgc_ray.training.loop import train

        torch.set_num_threads(1)
        params = config | {"max_epochs": epochs, "patience": epochs}
        for epoch in train("trivial", params, chunks):
            tune.report(epoch.metrics)

    metric: Any = {"metric": "val_track_accuracy", "mode": "max"}
    tuner = tune.Tuner(
        tune.with_parameters(trainable, chunks=tiny_chunks()),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(stock_space, **metric),
            scheduler=ASHAScheduler(**metric, max_t=epochs, grace_period=epochs),
            num_samples=trials,
            max_concurrent_trials=concurrent,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    tuner.fit()
    return trials * epochs


def gaps(events: Path) -> list[float]:
    """Seconds from the last step of a trial to the first of the next."""
    seconds, last = [], None
    for line in events.read_text().splitlines():
        what, moment = line.split()
        if what == "first" and last is not None:
            seconds.append(float(moment) - last)
        last = float(moment)
    return seconds


def in_process(function: Callable[..., int], *args: Any, events: bool = False) -> dict[str, Any]:
    """Run in a Ray cluster of its own, in a process of its own; what it cost."""
    parent, child = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(parent)
        errors, sys.stderr = sys.stderr, open(os.devnull, "w")  # noqa: SIM115  one line per trial
        with tempfile.TemporaryDirectory() as name, os.fdopen(child, "w") as pipe:
            try:
                json.dump(_cost(Path(name), function, args, events), pipe)
            except BaseException:
                traceback.print_exc(file=errors)
        os._exit(0)
    os.close(child)
    with os.fdopen(parent) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return dict(json.loads(text))


def _cost(
    folder: Path, function: Callable[..., int], args: tuple[Any, ...], events: bool
) -> dict[str, Any]:
    noted = folder / "events"
    (folder / "family").mkdir()
    write_family(folder / "family", noted if events else None)
    from mgc_ray.terminal.process import prepare_process

    prepare_process()
    register_trivial_family()
    import ray

    ray.init(
        num_cpus=2,
        num_gpus=0,  # else trials of one side would use a GPU that is there
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": register_trivial_family},
    )
    results = folder / "results"
    samples: list[tuple[int, int]] = []  # (trials ended, resident KiB of the driver)
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(1.0):
            samples.append((len(list(results.glob("trials/*/trial.json"))), _resident()))

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    started, cpu = time.perf_counter(), time.process_time()
    reports = function(results, *args)
    cost = {
        "seconds": time.perf_counter() - started,
        "driver_cpu_seconds": time.process_time() - cpu,
        "reports": reports,
    }
    ended.set()
    watcher.join()
    ray.shutdown()
    cost |= {
        "gaps": gaps(noted) if events else [],
        "memory": samples,
        "disk": sum(p.stat().st_size for p in results.rglob("*") if p.is_file()),
        "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    return cost


def _resident() -> int:
    """KiB of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def measure_gap(trials: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, function in (("ours", ours), ("stock", stock)):
        seconds = in_process(function, trials, 3, 1, events=True)["gaps"][
            1:
        ]  # the first starts Ray
        figures[name] = {
            "median": float(np.median(seconds)),
            "90 %": float(np.quantile(seconds, 0.9)),
            "max": max(seconds),
            "n": len(seconds),
        }
        print(f"gap, {name}: {_rounded(figures[name])}", flush=True)
    figures["ratio"] = figures["stock"]["median"] / figures["ours"]["median"]
    print(f"gap, stock / ours: {figures['ratio']:.1f}", flush=True)
    return figures


def measure_report() -> dict[str, Any]:
    """A few long trials and many short ones: the CPU time per report and per trial."""
    long, short = in_process(ours, 20, 100, 2), in_process(ours, 200, 2, 2)
    a = np.array([[20, long["reports"]], [200, short["reports"]]])
    cost = np.array([long["driver_cpu_seconds"], short["driver_cpu_seconds"]])
    trial, report = np.linalg.solve(a, cost)
    figures = {
        "driver_ms_per_report": 1e3 * long["driver_cpu_seconds"] / long["reports"],
        "driver_ms_per_report_alone": 1e3 * float(report),
        "driver_ms_per_trial_alone": 1e3 * float(trial),
        "reports": [long["reports"], short["reports"]],
    }
    print(f"report: {_rounded(figures)}", flush=True)
    return figures


def measure_growth(trials: int) -> dict[str, Any]:
    cost = in_process(ours, trials, 3, 2)
    many = np.array([sample for sample in cost["memory"] if sample[0] >= 100])
    slope = float(np.polyfit(many[:, 0], many[:, 1], 1)[0])
    few = in_process(ours, 50, 3, 2)
    figures = {
        "trials": trials,
        "driver_kib_per_trial": slope,
        "driver_mib_at_the_end": int(many[-1, 1]) / 1024,
        "disk_kib_per_trial": (cost["disk"] - few["disk"]) / 1024 / (trials - 50),
        "seconds_per_trial": cost["seconds"] / trials,
    }
    print(f"growth: {_rounded(figures)}", flush=True)
    return figures


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", default=["gap", "report", "growth"])
    parser.add_argument("--trials", type=int, default=1000, help="of the part growth")
    parser.add_argument("--gap-trials", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[2]))
    figures: dict[str, Any] = {}
    if "gap" in args.parts:
        figures["gap"] = measure_gap(args.gap_trials)
    if "report" in args.parts:
        figures["report"] = measure_report()
    if "growth" in args.parts:
        figures["growth"] = measure_growth(args.trials)
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
