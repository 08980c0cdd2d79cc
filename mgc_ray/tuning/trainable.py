"""One trial as Ray Tune runs it: a `for` around training that reports each epoch."""

from pathlib import Path
from typing import Any

import torch
from ray import tune

from mgc_ray.data.dataset import Chunks
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.loop import METRIC, best_device, train


def run_trial(
    suggestion: dict[str, Any],
    chunks: Chunks,
    fixed: dict[str, Any],
    trials: Path,
    threads: int,
) -> None:
    """Train what the searcher suggested; write the best epoch to TRIALS/NAME/checkpoint.

    Each epoch is reported with its metrics, `epoch`, `best` (is it the best so far),
    `best_so_far` (its figure) and `finished` (training has ended by itself, and was not stopped).
    A failure is reported as `failure`, its reason: raised, Tune would run it again, as it should
    only after a failure of the machine.
    """
    torch.set_num_threads(threads)
    params = fixed | suggestion["params"]
    folder = trials / suggestion["trial"] / "checkpoint"
    best_so_far = 0.0
    try:
        for epoch in train(suggestion["family"], params, chunks, best_device()):
            if epoch.best:
                best_so_far = epoch.metrics[METRIC]
                save_checkpoint(folder, epoch, suggestion["family"], params, chunks.info)
            tune.report(
                {
                    **epoch.metrics,
                    "epoch": epoch.number,
                    "best": epoch.best,
                    "best_so_far": best_so_far,
                    "finished": epoch.last,
                }
            )
    except Exception as error:  # whatever it is, the search goes on with the other trials
        reason = str(error).strip() or "no message"
        if isinstance(error, torch.OutOfMemoryError):
            reason = f"out of GPU memory: {reason.splitlines()[0]}"
        elif not isinstance(error, ArithmeticError):
            reason = f"{type(error).__name__}: {reason.splitlines()[0]}"
        tune.report({"failure": reason, "finished": True})
