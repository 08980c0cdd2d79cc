"""What TensorBoard costs a trial: gradient norms, the files for pictures, and all events.

    PYTHONPATH=. python tests/benchmarks/tensorboard_cost.py DIR --family gru --epochs 5

DIR is a dataset. One trial after the other is trained in this process, with the same calls as a
search makes; the time within these calls is added up and compared with the trial's whole time.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mgc_ray.data.chunks import open_chunks
from mgc_ray.data.storage import Exchange
from mgc_ray.training import loop
from mgc_ray.training.config import full_params
from mgc_ray.training.loop import train
from mgc_ray.tuning import trainable
from mgc_ray.tuning.records import COMPLETED, TrialRecord
from mgc_ray.tuning.tensorboard import TensorBoardWriter


class Clock:
    """Adds up the time within the calls that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def trial(chunks: Any, family: str, epochs: int, seed: int) -> dict[str, float]:
    """Seconds of the whole, of norms (in training), files (worker), events (driver)."""
    clocks = {name: Clock() for name in ("norms", "files", "events")}
    real = loop._gradient_norm
    loop._gradient_norm = clocks["norms"].around(real)
    params = {"max_epochs": epochs, "patience": epochs, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        search, name = Path(folder), f"{family}-0000"
        trials = Exchange(search, None).inner("trials")
        record = TrialRecord(name, family, params)
        defaults = {family: full_params(family, {})}
        types = {key: type(value) for key, value in defaults[family].items()}
        started = time.perf_counter()
        writer = TensorBoardWriter(search, types, defaults, chunks.info.genres)
        clocks["events"].around(writer.on_start)(record)
        try:
            for epoch in train(family, params, chunks):
                if epoch.best:
                    record.best_epoch = epoch.number
                clocks["files"].around(trainable.write_pictures)(trials, name, epoch)
                record.curve.append(epoch.metrics)
                clocks["events"].around(writer.on_epoch)(record)
            record.status = COMPLETED
            clocks["events"].around(writer.on_end)(record)
        finally:
            loop._gradient_norm = real
        return {"all": time.perf_counter() - started} | {n: c.seconds for n, c in clocks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--family", default="gru")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chunks = open_chunks(args.dataset, ("train", "valid"))
    found = [trial(chunks, args.family, args.epochs, seed) for seed in range(args.times)]
    whole = statistics.median(one["all"] for one in found)
    print(f"{args.family}, {args.epochs} epochs: {whole:.1f} s a trial (median of {len(found)})")
    for name in ("norms", "files", "events"):
        shares = [100 * one[name] / one["all"] for one in found]
        print(
            f"  {name}: {statistics.median(shares):.2f} % ({min(shares):.2f} to {max(shares):.2f})"
        )
    sums = [100 * sum(one[n] for n in ("norms", "files", "events")) / one["all"] for one in found]
    print(f"  together: {statistics.median(sums):.2f} % ({min(sums):.2f} to {max(sums):.2f})")


if __name__ == "__main__":
    main()
