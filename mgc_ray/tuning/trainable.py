"""One trial as Ray Tune runs it: a `for` around training that reports each epoch."""

from pathlib import Path
from typing import Any

import torch
from ray import tune

from mgc_ray.data.chunks import ChunkTable
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.loop import METRIC, best_device, train


def run_trial(
    suggestion: dict[str, Any],
    chunks: ChunkTable,
    fixed: dict[str, dict[str, Any]],
    trials: Path,
    threads: int,
) -> None:
    """Train what the searcher suggested; write the best epoch to TRIALS/NAME/checkpoint.

    Each epoch is reported with its metrics, `epoch`, `best` (is it the best so far),
    `best_so_far` (its figure) and `finished` (training has ended by itself, and was not stopped).
    A failure is reported as `failure`, its reason: raised, Tune would run it again, as it should
    only after a failure of the machine, and where a GPU that several trials share was too small for
    this one beside the others: see RetryAlone.
    """
    torch.set_num_threads(threads)
    torch.cuda.empty_cache()  # what this process's last trial has left; nothing without a GPU
    params = fixed[suggestion["family"]] | suggestion["params"]
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
            if _shares_a_gpu():
                tune.report({"out_of_memory": True})
                raise
            reason = f"out of GPU memory, alone on it: {reason.splitlines()[0]}"
        elif not isinstance(error, ArithmeticError):
            reason = f"{type(error).__name__}: {reason.splitlines()[0]}"
        tune.report({"failure": reason, "finished": True})


def _shares_a_gpu() -> bool:
    return 0 < tune.get_context().get_trial_resources().bundles[0].get("GPU", 0) < 1


class RetryAlone(tune.Callback):
    """Gives a trial that ran out of a shared GPU's memory a whole one when it is run again.

    It waits until one is free, at the latest until all other trials have ended.
    """

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.last_result.get("out_of_memory"):
            needs = trial.placement_group_factory.bundles[0] | {"GPU": 1.0}
            trial.update_resources(tune.PlacementGroupFactory([needs]))
