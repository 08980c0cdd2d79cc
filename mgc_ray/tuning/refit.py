"""Refit the best configurations of a search on folds, as parallel Ray tasks.

What a fold is and what is written is described in ensembling/refit.py.
"""

from collections.abc import Sequence
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
from mgc_ray.tuning.cluster import cluster_now
from mgc_ray.tuning.run import fixed_params
from mgc_ray.tuning.trial import failure_reason, fetch_initial, is_of_the_machine

_BESIDE_OTHERS = "out of memory on a shared GPU: run again alone on one"


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
    chunks.band_statistics  # noqa: B018  computed once here instead of once per fold
    shared = ray.put((chunks, fold_of))
    context = _Context(search, own_families(), max(1, int(resources.cpus_per_trial)))
    alone: set[tuple[str, int]] = set()  # those that get a whole GPU
    with progress("refitting", len(jobs), "models") as advance:
        done = len(jobs) - len(missing)
        advance(done)
        running: dict[Any, tuple[str, int]] = {}
        while missing or running:
            while missing and len(running) < _at_once(config, resources):
                trial, fold = job = missing.pop(0)
                task = _task(resources, job in alone)
                running[task.remote(context, trial, fold, plans[trial], shared)] = job
            ready, _ = ray.wait(list(running))
            trial, fold = job = running.pop(ready[0])
            reason = _reason(ready[0])
            if reason == _BESIDE_OTHERS:
                console.print(f"{trial}, fold {fold + 1}: {reason}", markup=False)
                alone.add(job)
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
    return read_refitted(place.folder)


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
    return ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=gpus)(_fit_fold)


def _reason(task: Any) -> str | None:
    """Why a fold could not be trained; raises what is no fold's fault."""
    try:
        reason: str | None = ray.get(task)
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
) -> str | None:
    """In a process of Ray's; the reason where the fold cannot be trained."""
    torch.set_num_threads(context.threads)
    for name, source in context.own_families.items():
        register_source(name, *source)
    fetch_initial(plan.params, context.search)
    refits = context.search.subfolder("refit").on_this_node()
    try:
        fit_fold(refits.folder / trial, fold, plan, *shared, best_device())
        refits.send(_name(trial, fold))
        refits.clear(_name(trial, fold))
    except Exception as error:  # whatever it is, the others are refitted
        if is_of_the_machine(error):
            raise
        if is_out_of_memory(error) and _shares_a_gpu():
            return _BESIDE_OTHERS
        return failure_reason(error)
    return None


def _shares_a_gpu() -> bool:
    return 0 < ray.get_runtime_context().get_assigned_resources().get("GPU", 0) < 1
