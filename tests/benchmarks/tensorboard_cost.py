"""What TensorBoard costs a trial: gradient norms, the files for pictures, and all events.

    PYTHONPATH=. python tests/benchmarks/tensorboard_cost.py DIR --family gru --epochs 5

DIR is a dataset. Trials are trained one after another in this process, by the same calls as in a
search; the time within the calls of TensorBoard is compared with the whole time of a trial.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mgc_ray.data.chunks import ChunkTable, open_chunks
from mgc_ray.data.storage import SharedFolder
from mgc_ray.models import full_params
from mgc_ray.results import COMPLETED, TrialRecord
from mgc_ray.training import descent
from mgc_ray.training.loop import train
from mgc_ray.tuning.tensorboard import TensorBoardWriter
from mgc_ray.tuning.trial import write_pictures

PARTS = ("norms", "files", "events")  # of the training process, the trial and the driver


class Clock:
    """Adds up the time within the calls that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return call


def run_trial(chunks: ChunkTable, family: str, epochs: int, seed: int) -> dict[str, float]:
    """Seconds of the whole trial ("all"), and of each of PARTS."""
    clocks = {name: Clock() for name in PARTS}
    untimed = descent._gradient_norm
    descent._gradient_norm = clocks["norms"].timed(untimed)
    params = {"max_epochs": epochs, "patience": epochs, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        search, name = Path(folder), f"{family}-0000"
        trials = SharedFolder(search, None).subfolder("trials")
        record = TrialRecord(name, family, params)
        defaults = {family: full_params(family, {})}
        types = {key: type(value) for key, value in defaults[family].items()}
        started = time.perf_counter()
        writer = TensorBoardWriter(search, types, defaults, chunks.info.genres)
        clocks["events"].timed(writer.on_trial_start)(record)
        try:
            for epoch in train(family, params, chunks):
                if epoch.best:
                    record.best_epoch = epoch.number
                clocks["files"].timed(write_pictures)(trials, name, epoch)
                record.curve.append(epoch.metrics)
                clocks["events"].timed(writer.on_epoch)(record)
            record.status = COMPLETED
            clocks["events"].timed(writer.on_trial_end)(record)
        finally:
            descent._gradient_norm = untimed
        seconds = {"all": time.perf_counter() - started}
        return seconds | {part: clock.seconds for part, clock in clocks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--family", default="gru")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chunks = open_chunks(args.dataset, ("train", "valid"))
    trials = [run_trial(chunks, args.family, args.epochs, seed) for seed in range(args.times)]
    whole = statistics.median(trial["all"] for trial in trials)
    print(f"{args.family}, {args.epochs} epochs: {whole:.1f} s per trial (median of {len(trials)})")
    for name, parts in [*((part, (part,)) for part in PARTS), ("together", PARTS)]:
        shares = [100 * sum(trial[part] for part in parts) / trial["all"] for trial in trials]
        print(
            f"  {name}: {statistics.median(shares):.2f} % ({min(shares):.2f} to {max(shares):.2f})"
        )


if __name__ == "__main__":
    main()
