"""A search of many trials, without running them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mgc_ray.tuning.records import COMPLETED, FAILED, STOPPED_EARLY, TrialRecord


def with_many_trials(search: Path, folder: Path, count: int, without: Sequence[str] = ()) -> None:
    """A copy of a real search with records of `count` trials of two families in place of its own.

    As many as ASHA would stop end after 1, 3 and 9 epochs; one of a hundred fails. Files that match
    patterns in `without` are not copied.
    """
    shutil.copytree(search, folder, ignore=shutil.ignore_patterns("trials", *without))
    random = np.random.default_rng(0)
    for number in range(count):
        family = ("gru", "cnn")[number % 2]
        epochs = int(random.choice([1, 3, 9, 30], p=[0.5, 0.25, 0.15, 0.1]))
        top = random.uniform(0.2, 0.8)
        curve = [
            {"val_track_accuracy": float(top * (1 - 0.7 ** (i + 1))), "val_loss": 1.0}
            for i in range(epochs)
        ]
        params = {
            "lr": float(10 ** random.uniform(-5, -2)),
            "dropout": float(random.uniform(0, 0.6)),
            "batch_size": int(random.choice([16, 32, 64])),
            "schedule": str(random.choice(["constant", "cosine"])),
        }
        if params["schedule"] == "cosine":
            params["warmup_epochs"] = int(random.integers(0, 4))
        status = COMPLETED if epochs == 30 else STOPPED_EARLY
        if number % 100 == 99:
            status = FAILED
        record = TrialRecord(
            trial=f"{family}-{number:04d}",
            family=family,
            params=params,
            status=status,
            reason="the loss is NaN" if status == FAILED else "",
            seconds=9.0,
            best_epoch=epochs,
            curve=curve,
        )
        record.write(folder / "trials" / record.trial)
