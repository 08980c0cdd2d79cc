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
from ray.exceptions import RayTaskError

from mgc_ray.config import SearchConfig
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.device import best_device
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
from mgc_ray.training.descent import NonFiniteLossError
from mgc_ray.tuning.run import fixed_params
from mgc_ray.tuning.trial import fetch_initial


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

    Continues where an earlier call stopped. A configuration that diverges on a fold remains
    incomplete, with a line that says so. Raises RequestError where a genre has too few groups.
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
    task = ray.remote(_fit_fold).options(
        num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial
    )
    with progress("refitting", len(jobs), "models") as advance:
        done = len(jobs) - len(missing)
        advance(done)
        running: dict[Any, tuple[str, int]] = {}
        while missing or running:
            while missing and len(running) < resources.concurrent:
                trial, fold = missing.pop(0)
                started = task.remote(context, trial, fold, plans[trial], shared)
                running[started] = (trial, fold)
            ready, _ = ray.wait(list(running))
            trial, fold = running.pop(ready[0])
            try:
                reason = ray.get(ready[0])
            except RayTaskError as error:
                if isinstance(error.cause, OSError):  # a full disk, which is not the fold's fault
                    raise error.cause from None
                raise
            place.fetch(_name(trial, fold))
            if reason:
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
    except NonFiniteLossError as error:
        return str(error)
    return None
