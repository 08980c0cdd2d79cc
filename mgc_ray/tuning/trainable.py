"""One trial as Ray Tune runs it: a `for` around training that reports each epoch."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from ray import tune

from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.files import written_whole
from mgc_ray.data.storage import Exchange, stand_in
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.loop import METRIC, Epoch, best_device, train
from mgc_ray.training.state import StateError, read_progress

STATE = "state.safetensors"  # in a trial's folder while it runs
EXAMPLES = "examples.npy"  # some augmented spectrograms [n, bands, frames], while it runs
VALIDATION = "validation.npz"  # probs [tracks, genres] and true [tracks] of its best epoch
INITIAL = "initial"  # in a search's place in the storage: weights to start from
MACHINE = "machine"  # a report of what is wrong with the machine and not with the trial
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES)
_STATE_SHARE = 0.02  # of a trial's time may go to writing its state, at most


def run_trial(
    suggestion: dict[str, Any],
    chunks: ChunkTable,
    fixed: dict[str, dict[str, Any]],
    search: Exchange,
    threads: int,
) -> None:
    """Train what the searcher suggested; write the best epoch to trials/NAME/checkpoint.

    Each epoch is reported with its metrics, `epoch`, `best` (is it the best so far),
    `best_so_far` (its figure) and `finished` (training has ended by itself, and was not stopped).
    trials/NAME/state.safetensors has all that it needs to go on: a trial whose process, node or
    driver died reports again what it had reported, and trains from there.
    What fails because a disk is full or broken is reported as `machine`, and ends the search. A
    failure of its own is reported as `failure`, its reason: raised, Tune would run it again, as it
    should only after a failure of the machine, and where a GPU that several trials share was too
    small for this one beside the others: see RetryAlone.
    """
    torch.set_num_threads(threads)
    torch.cuda.empty_cache()  # what this process's last trial has left; nothing without a GPU
    params = fixed[suggestion["family"]] | suggestion["params"]
    trial, there = suggestion["trial"], search.inner("trials").elsewhere()
    fetch_initial(params, search)
    kept = _KeptState(there, f"{trial}/{STATE}", params)
    try:
        for result in kept.reported:
            tune.report(result)
        best_so_far = kept.reported[-1]["best_so_far"] if kept.reported else 0.0
        for epoch in _epochs(suggestion["family"], params, chunks, kept.state):
            if epoch.best:
                best_so_far = epoch.metrics[METRIC]
                folder = there.folder / trial / "checkpoint"
                save_checkpoint(folder, epoch, suggestion["family"], params, chunks.info)
                there.send(f"{trial}/checkpoint")
            write_pictures(there, trial, epoch)
            result = {
                **epoch.metrics,
                "epoch": epoch.number,
                "best": epoch.best,
                "best_so_far": best_so_far,
                "finished": epoch.last,
            }
            kept.add(epoch, result)
            tune.report(result)
    except Exception as error:  # whatever it is, the search goes on with the other trials
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            tune.report({MACHINE: [error.errno, error.strerror, str(error.filename or "")]})
            return
        reason = str(error).strip() or "no message"
        if isinstance(error, torch.OutOfMemoryError):
            if _shares_a_gpu():
                tune.report({"out_of_memory": True})
                raise
            reason = f"out of GPU memory, alone on it: {reason.splitlines()[0]}"
        elif not isinstance(error, ArithmeticError):
            reason = f"{type(error).__name__}: {reason.splitlines()[0]}"
        tune.report({"failure": reason, "finished": True})
    finally:
        there.clear(trial)


def send_initial(params: dict[str, Any], search: Exchange) -> None:
    """Bring the weights that the family `transfer` starts from to where all nodes find them."""
    source = params.get("init_from", "")
    if search.storage and os.path.isabs(source):
        search.storage.put(Path(source), f"{search.key}/{INITIAL}")


def fetch_initial(params: dict[str, Any], search: Exchange) -> None:
    """Make sure that this process finds what `send_initial` sent."""
    source, there = params.get("init_from", ""), search.elsewhere()
    if there.storage and os.path.isabs(source) and not os.path.exists(source):
        there.fetch(INITIAL)
        stand_in(source, there.folder / INITIAL)


def _epochs(
    family: str, params: dict[str, Any], chunks: ChunkTable, state: bytes | None
) -> Iterator[Epoch]:
    """Train, from `state` where that is sound."""
    try:
        yield from train(family, params, chunks, best_device(), state=state)
    except StateError:
        yield from train(family, params, chunks, best_device())


def write_pictures(trials: Exchange, trial: str, epoch: Epoch) -> None:
    """Write what TensorBoard draws of an epoch: its validation predictions, what it saw."""
    if epoch.best and epoch.validation:
        probs, true = epoch.validation.probs, epoch.validation.true
        with _written(trials, f"{trial}/{VALIDATION}") as file:
            np.savez(file, probs=probs.astype(np.float32), true=true)
    if epoch.examples is not None:
        with _written(trials, f"{trial}/{EXAMPLES}") as file:
            np.save(file, epoch.examples.astype(np.float16))  # to be looked at alone


@contextmanager
def _written(trials: Exchange, name: str) -> Iterator[BinaryIO]:
    """A file to write a trial's array into, which is then sent."""
    path = trials.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        yield file
    trials.send(name)


class _KeptState:
    """A trial's state on disk, with what the trial has reported up to it.

    It is written after an epoch unless that would take more than a fiftieth of the trial's time.
    """

    def __init__(self, trials: Exchange, name: str, params: dict[str, Any]) -> None:
        self._trials, self._name, self._params = trials, name, params
        self._path = trials.folder / name
        self._next = 0.0
        self.state: bytes | None = None
        self.reported: list[dict[str, Any]] = []
        try:
            trials.fetch(name)
            packed = self._path.read_bytes()
            notes = read_progress(packed)["notes"]
            if notes["params"] == params:
                self.state, self.reported = packed, notes["reported"]
        except (OSError, StateError, KeyError, TypeError):
            pass  # there is none, or a damaged one: the trial starts anew

    def add(self, epoch: Epoch, result: dict[str, Any]) -> None:
        """Note a result, and write the state of its epoch where it is time to."""
        del self.reported[epoch.number - 1 :]
        self.reported.append(result)
        started = time.monotonic()
        if epoch.last or epoch.state is None or started < self._next:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self._path) as temporary:
            temporary.write_bytes(epoch.state({"params": self._params, "reported": self.reported}))
        self._trials.send(self._name)
        ended = time.monotonic()
        self._next = ended + (ended - started) / _STATE_SHARE


def _shares_a_gpu() -> bool:
    return 0 < tune.get_context().get_trial_resources().bundles[0].get("GPU", 0) < 1
