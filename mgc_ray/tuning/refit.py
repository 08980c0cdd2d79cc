"""Refit the best configurations of a search on folds, as parallel Ray tasks.

What a fold is and what is written is described in ensembling/refit.py.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from mgc_ray.config import SearchConfig
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.device import best_device, is_out_of_memory
from mgc_ray.data.split.folds import draw_folds
from mgc_ray.data.storage import SharedFolder
from mgc_ray.data.waiting import RunningTime
from mgc_ray.ensembling.refit import (
    RefitPlan,
    Refitted,
    configurations,
    fit_fold,
    fold_folder,
    is_done,
    plan_refit,
    read_refitted,
)
from mgc_ray.models import full_params, own_families, params_of, register_source
from mgc_ray.results import TrialRecord, TrialResources
from mgc_ray.settings import Params
from mgc_ray.terminal.command import console
from mgc_ray.terminal.progress import progress
from mgc_ray.tuning.attempts import begin_attempt, end_attempts
from mgc_ray.tuning.cluster import cluster_now
from mgc_ray.tuning.run import fixed_params
from mgc_ray.tuning.trial import failure_reason, fetch_initial, is_of_the_machine

_BESIDE_OTHERS = "out of memory on a shared GPU: run again alone on one"
_AGAIN = "no end after a multiple of its trial's time, so it runs again in another process"
_LOOK = 10.0  # seconds between two looks at how long folds take
_SHORTEST = 1800.0  # seconds that a fold may always take
_SLOWER = 20  # times as long as its trial took a fold may take, where that is more


@dataclass(frozen=True)
class _Context:
    """What all folds have in common, apart from the chunks."""

    search: SharedFolder
    own_families: dict[str, tuple[str, str]]
    threads: int


def refit(
    search: SharedFolder,
    config: SearchConfig,
    records: Sequence[TrialRecord],
    chunks: ChunkTable,
    resources: TrialResources,
    initial: Params | None = None,
) -> list[Refitted]:
    """Train models of each of the best configurations on folds, under the search's refit/.

    Continues where an earlier call stopped. A fold that runs out of a shared GPU's memory is run
    again on a whole one. A configuration that cannot be trained on a fold remains incomplete,
    with a line that says why. Raises RequestError where a genre has too few groups.
    """
    folds = config.ensemble.refit_folds
    fold_of = np.asarray(draw_folds(chunks.tracks, folds, chunks.info.seed))
    place = search.subfolder("refit")
    plans: dict[str, RefitPlan] = {}
    for record in configurations(records, config.ensemble.top_k):
        fixed = fixed_params(record.family, config, initial)
        fixed |= params_of(record.family, config.train)
        params = full_params(record.family, fixed | record.params)
        plans[record.trial] = plan_refit(record, params, folds)
        plans[record.trial].write(place.folder / record.trial)
        place.send(f"{record.trial}/refit.json")
    jobs = [(trial, fold) for trial in plans for fold in range(folds)]
    missing = []
    for trial, fold in jobs:
        if not is_done(place.folder / trial, fold):
            place.fetch(_name(trial, fold))  # another head of the cluster may have seen its end
            if not is_done(place.folder / trial, fold):
                missing.append((trial, fold))
    end_attempts(search)  # of a driver before this one
    chunks.band_statistics  # noqa: B018  computed once here instead of once per fold
    shared = ray.put((chunks, fold_of))
    context = _Context(search, own_families(), max(1, int(resources.cpus_per_trial)))
    limits = {r.trial: _seconds_at_most(r, plans[r.trial]) for r in records if r.trial in plans}
    alone: set[tuple[str, int]] = set()  # those that get a whole GPU
    late: set[tuple[str, int]] = set()  # those that were ended once, as they took too long
    with progress("refitting", len(jobs), "models") as advance:
        done = len(jobs) - len(missing)
        advance(done)
        running: dict[Any, _Running] = {}
        time = RunningTime()
        while missing or running:
            while missing and len(running) < _at_once(config, resources):
                trial, fold = job = missing.pop(0)
                task = _task(resources, job in alone)
                stream = task.remote(context, trial, fold, plans[trial], shared)
                running[stream] = _Running(job, limits[trial], repeated=job in late)
            ended = _wait(running, time)
            if ended is None:
                continue
            one = running.pop(ended)
            trial, fold = job = one.job
            reason = one.too_long if one.is_late else _reason(ended, one.begun)
            end_attempts(search, _name(trial, fold))
            if reason in (_BESIDE_OTHERS, _AGAIN):
                console.print(f"{trial}, fold {fold + 1}: {reason}", markup=False)
                (alone if reason == _BESIDE_OTHERS else late).add(job)
                missing.append(job)
                continue
            place.fetch(_name(trial, fold))
            if reason is not None:
                console.print(
                    f"{trial} is left out of the refit, fold {fold + 1}: {reason}",
                    markup=False,
                )
                missing = [job for job in missing if job[0] != trial]
            done += 1
            advance(done)
    end_attempts(search)
    return read_refitted(place.folder)


@dataclass
class _Running:
    """A fold whose task Ray has; `begun` and `ends`: that it has, and when it must have ended."""

    job: tuple[str, int]
    limit: float
    repeated: bool
    begun: Any = None
    ends: float = math.inf
    is_late: bool = False

    @property
    def too_long(self) -> str:
        if not self.repeated:
            return _AGAIN
        return f"it took longer than {self.limit:.0f} s, twice: its process or node hangs"


def _wait(running: dict[Any, _Running], time: RunningTime) -> Any | None:
    """The task of a fold that has ended, or was ended as it took too long; None: none as yet."""
    ready: list[Any] = ray.wait(list(running), timeout=_LOOK)[0]
    now = time.now()
    for task in ready:
        one = running[task]
        if one.begun is not None:
            return task
        one.begun, one.ends = next(task), now + one.limit
    for task, one in running.items():
        if one.ends < now:
            one.is_late = True
            ray.cancel(task, force=True)
            return task
    return None


def _seconds_at_most(record: TrialRecord, plan: RefitPlan) -> float:
    """How long the refit of a fold may take, by the time that its trial took for an epoch."""
    return max(_SHORTEST, _SLOWER * plan.epochs * record.seconds / max(1, record.epochs))


def _name(trial: str, fold: int) -> str:
    return fold_folder(Path(trial), fold).as_posix()


def _at_once(config: SearchConfig, resources: TrialResources) -> int:
    """How many folds may run, in a cluster whose nodes may come and go."""
    cpus, gpus = resources.cpus_per_trial, resources.gpus_per_trial
    return config.tuning.concurrent or max(1, cluster_now().trials_that_fit(cpus, gpus))


def _task(resources: TrialResources, alone: bool) -> Any:
    """The task that trains one fold; with a GPU, each run of it is a process of its own."""
    gpus = 1.0 if alone else resources.gpus_per_trial
    # not by options(), with which Ray would use processes again whose GPU is another one now
    return ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=gpus, num_returns="streaming")(
        _fit_fold
    )


def _reason(task: Any, begun: Any) -> str | None:
    """Why a fold could not be trained; raises what is no fold's fault."""
    try:
        ray.get(begun)  # where it could not even begin, there is nothing behind it
        reason: str | None = ray.get(next(task))
    except RayTaskError as error:
        if isinstance(error.cause, OSError):  # a full disk, a GPU that cannot be used
            raise error.cause from None
        raise
    except RayError:  # Ray has tried it several times
        return "its process or node died, each time it was run (out of memory?)"
    return reason


def _fit_fold(
    context: _Context,
    trial: str,
    fold: int,
    plan: RefitPlan,
    shared: tuple[ChunkTable, np.ndarray],
) -> Iterator[str | None]:
    """In a process of Ray's; something when it begins, then the reason if it cannot be trained."""
    yield None
    yield _fitted(context, trial, fold, plan, shared)


def _fitted(
    context: _Context,
    trial: str,
    fold: int,
    plan: RefitPlan,
    shared: tuple[ChunkTable, np.ndarray],
) -> str | None:
    torch.set_num_threads(context.threads)
    for name, source in context.own_families.items():
        register_source(name, *source)
    fetch_initial(plan.params, context.search)
    attempt = begin_attempt(context.search, "refit", _name(trial, fold))
    refits = attempt.files
    try:
        device = best_device()
        fit_fold(refits.folder / trial, fold, plan, *shared, device, attempt.check)
        refits.send(_name(trial, fold))
    except Exception as error:  # whatever it is, the others are refitted
        if is_of_the_machine(error):
            raise
        if is_out_of_memory(error) and _shares_a_gpu():
            return _BESIDE_OTHERS
        return failure_reason(error)
    finally:
        attempt.end()
    return None


def _shares_a_gpu() -> bool:
    return 0 < ray.get_runtime_context().get_assigned_resources().get("GPU", 0) < 1
