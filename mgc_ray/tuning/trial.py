"""One trial as Ray Tune runs it: a `for` around training that reports each epoch."""

import errno
import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from ray import tune

from mgc_ray.config import Metric
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.device import best_device, breaks_the_process, is_out_of_memory
from mgc_ray.data.files import atomic_write, delete
from mgc_ray.data.storage import SharedFolder, use_copy
from mgc_ray.models import register_source
from mgc_ray.results import EpochMetrics
from mgc_ray.settings import Params
from mgc_ray.task import WORST, score
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.epoch import Epoch
from mgc_ray.training.loop import train
from mgc_ray.training.state import StateError, read_progress
from mgc_ray.tuning.attempts import Attempt, begin_attempt

STATE = "state.safetensors"  # in a trial's folder while it runs
EXAMPLES = "examples.npy"  # some augmented spectrograms [n, bands, frames], while it runs
VALIDATION = "validation.npz"  # probs [tracks, genres] and true [tracks] of its best epoch
INITIAL = "initial"  # in a search's folder in the storage: weights to start from
# full, broken or protected disks, and a GPU that PyTorch cannot use
_MACHINE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES),
    errno.ENODEV,
)
_STATE_SHARE = 0.02  # of a trial's time may go into writing its state, at most


@dataclass(frozen=True)
class TrialReport:
    """What a trial tells Tune: an epoch, or why there are no more.

    `best`: it is the best epoch so far; `best_so_far`: the score's value, the higher the better,
    which ASHA and Optuna compare; `finished`: training has ended by itself. `machine_error`: errno,
    reason and file of an error for which the whole search ends. `repeated`: an earlier run of the
    trial has reported it before.
    """

    epoch: int = 0
    metrics: EpochMetrics = field(default_factory=dict)
    best: bool = False
    best_so_far: float = 0.0
    finished: bool = False
    failure: str = ""
    out_of_memory: bool = False
    machine_error: tuple[int, str, str] | None = None
    repeated: bool = False

    @staticmethod
    def of(result: dict[str, Any]) -> "TrialReport":
        """From what Tune hands on, with keys of its own."""
        return TrialReport(**{name: result[name] for name in _REPORTED if name in result})

    def send(self) -> None:
        content = asdict(self)
        if not self.metrics:  # else ASHA would take it for an epoch
            content = {name: value for name, value in content.items() if value}
        tune.report(content)


_REPORTED = tuple(TrialReport.__dataclass_fields__)


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search have in common."""

    search: SharedFolder
    metric: Metric
    fixed: dict[str, Params]  # settings by family
    own_families: dict[str, tuple[str, str]]  # see models.own_families
    threads: int


def run_trial(suggestion: Params, chunks: ChunkTable, context: TrialContext) -> None:
    """Train what the searcher suggested; write the best epoch to trials/NAME/checkpoint.

    trials/NAME/state.safetensors has all that the trial needs to continue: one whose process, node
    or driver died reports again what it had reported, and trains from there.
    What fails because a disk is full or broken, or a GPU cannot be used, is reported as
    `machine_error`, and ends the search. Any other error is reported as `failure`: raised, Tune
    would run the trial again, in a new process, as it should only after an error of the machine,
    after one of CUDA, and where a GPU that several trials share was too small for this one beside
    the others (see RetryOnWholeGpu).
    """
    torch.set_num_threads(context.threads)
    free_last_trial()
    for name, source in context.own_families.items():
        register_source(name, *source)
    family, trial = suggestion["family"], suggestion["trial"]
    params = context.fixed[family] | suggestion["params"]
    attempt: Attempt | None = None
    try:
        attempt = begin_attempt(context.search, "trials", trial)
        trials = attempt.files
        fetch_initial(params, context.search)
        kept = _KeptState(trials, f"{trial}/{STATE}", params | {"split_id": chunks.info.split_id})
        if kept.state is None:  # what an earlier attempt has left is of other settings, or damaged
            delete(trials.folder / trial)
        for report in kept.reported:
            replace(report, repeated=True).send()
        best_so_far = kept.reported[-1].best_so_far if kept.reported else WORST.value
        for epoch in _epochs(family, params, chunks, kept.state, context.metric):
            attempt.check()
            if epoch.best:
                best_so_far = score(epoch.metrics, context.metric).value
                folder = trials.folder / trial / "checkpoint"
                save_checkpoint(folder, epoch, family, params, chunks.info)
                trials.send(f"{trial}/checkpoint")
            write_pictures(trials, trial, epoch)
            report = TrialReport(epoch.number, epoch.metrics, epoch.best, best_so_far, epoch.last)
            kept.add(epoch, report)
            report.send()
    except Exception as error:  # whatever it is, the search continues with other trials
        if isinstance(error, OSError) and is_of_the_machine(error):
            details = (int(error.errno or 0), str(error.strerror), str(error.filename or ""))
            TrialReport(machine_error=details).send()
            return
        out_of_memory = is_out_of_memory(error)
        if out_of_memory and _shares_a_gpu():
            TrialReport(out_of_memory=True).send()
            raise
        reason = failure_reason(error)
        if not breaks_the_process(error):
            TrialReport(failure=reason, finished=True).send()
            return
        TrialReport(failure=reason, finished=out_of_memory).send()
        raise
    finally:
        if attempt:
            attempt.end()


def free_last_trial() -> None:
    """Free what an earlier trial of this process has left, and count memory from here on."""
    if torch.cuda.is_initialized():
        gc.collect()  # the network and the dataset, which are parts of cycles
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def is_of_the_machine(error: Exception) -> bool:
    """Whether no other model could be trained either."""
    return isinstance(error, OSError) and error.errno in _MACHINE_ERRORS


def failure_reason(error: Exception) -> str:
    """One line that says why a model could not be trained."""
    reason = (str(error).strip() or "no message").splitlines()[0]
    if is_out_of_memory(error):
        return f"out of GPU memory, alone on it: {reason}"
    return reason if isinstance(error, ArithmeticError) else f"{type(error).__name__}: {reason}"


def send_initial(params: Params, search: SharedFolder) -> None:
    """Copy the weights that the family `transfer` starts from to where all nodes find them."""
    source = params.get("init_from", "")
    if search.storage and os.path.isabs(source):
        search.storage.put(Path(source), f"{search.key}/{INITIAL}")


def fetch_initial(params: Params, search: SharedFolder) -> None:
    """Make sure that this process finds what `send_initial` copied."""
    source, copy = params.get("init_from", ""), search.on_this_node()
    if copy.storage and os.path.isabs(source) and not os.path.exists(source):
        copy.fetch(INITIAL)
        use_copy(source, copy.folder / INITIAL)


def _epochs(
    family: str, params: Params, chunks: ChunkTable, state: bytes | None, metric: Metric
) -> Iterator[Epoch]:
    """Train, from `state` where that is sound."""
    device = best_device()
    try:
        yield from train(family, params, chunks, device, state=state, metric=metric)
    except StateError:
        yield from train(family, params, chunks, device, metric=metric)


def write_pictures(trials: SharedFolder, trial: str, epoch: Epoch) -> None:
    """Write what TensorBoard draws of an epoch: its validation predictions, what it saw."""
    if epoch.best and epoch.validation:
        probs, true = epoch.validation.probs, epoch.validation.true
        with _written(trials, f"{trial}/{VALIDATION}") as file:
            np.savez(file, probs=probs.astype(np.float32), true=true)
    if epoch.examples is not None:
        with _written(trials, f"{trial}/{EXAMPLES}") as file:
            np.save(file, epoch.examples.astype(np.float16))  # only to be looked at


@contextmanager
def _written(trials: SharedFolder, name: str) -> Iterator[BinaryIO]:
    """A file to write a trial's array into, which is then sent."""
    path = trials.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        yield file
    trials.send(name)


class _KeptState:
    """A trial's state on disk, with what the trial has reported up to it.

    It is written after an epoch unless that would take more than a fiftieth of the trial's time.
    """

    def __init__(self, trials: SharedFolder, name: str, params: Params) -> None:
        self._trials, self._name, self._params = trials, name, params
        self._path = trials.folder / name
        self._next = 0.0
        self.state: bytes | None = None
        self.reported: list[TrialReport] = []
        trials.fetch(name)
        try:
            packed = self._path.read_bytes()
            notes = read_progress(packed)["notes"]
            if notes["params"] == params:
                self.reported = [TrialReport.of(one) for one in notes["reported"]]
                self.state = packed
        except (OSError, StateError, KeyError, TypeError):
            pass  # there is none, or a damaged one: the trial starts from scratch

    def add(self, epoch: Epoch, report: TrialReport) -> None:
        """Note a report, and write the state of its epoch where it is time to."""
        del self.reported[epoch.number - 1 :]
        self.reported.append(report)
        started = time.monotonic()
        if epoch.last or epoch.state is None or started < self._next:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        notes = {"params": self._params, "reported": [asdict(one) for one in self.reported]}
        with atomic_write(self._path) as temporary:
            temporary.write_bytes(epoch.state(notes))
        self._trials.send(self._name)
        ended = time.monotonic()
        self._next = ended + (ended - started) / _STATE_SHARE


def _shares_a_gpu() -> bool:
    return 0 < tune.get_context().get_trial_resources().bundles[0].get("GPU", 0) < 1
