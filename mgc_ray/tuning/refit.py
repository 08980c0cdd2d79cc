"""Refit the best configurations of a search on folds, as parallel Ray tasks.

What a fold is and what is written stands in ensembling/folds.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayTaskError

from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.split import draw_folds
from mgc_ray.data.storage import Exchange
from mgc_ray.ensembling.folds import fit_fold, fold_folder, is_done, start_refit
from mgc_ray.terminal.command import console
from mgc_ray.terminal.progress import progress
from mgc_ray.training.config import full_params
from mgc_ray.training.loop import NonFiniteLossError, best_device
from mgc_ray.tuning.records import TrialRecord, ranked
from mgc_ray.tuning.run import fixed_params, share_resources
from mgc_ray.tuning.settings import TuneSettings
from mgc_ray.tuning.trainable import fetch_initial


def configurations(records: Sequence[TrialRecord], top: int) -> list[TrialRecord]:
    """The `top` best trials, of which the best of each family are the first."""
    usable = [record for record in ranked(records) if record.best and record.status != "failed"]
    best: dict[str, TrialRecord] = {}
    for record in usable:
        best.setdefault(record.family, record)
    first = list(best.values())
    return (first + [record for record in usable if record not in first])[: max(top, len(first))]


def epochs_of(record: TrialRecord, params: dict[str, Any]) -> int:
    """How long to train: as long as the trial took to its best epoch, as no fold may decide it.

    A cosine schedule ends in small steps that are part of it, so it is run whole.
    """
    return int(params["max_epochs"]) if params["schedule"] == "cosine" else record.best_epoch


def refit(
    search: Exchange,
    records: Sequence[TrialRecord],
    chunks: ChunkTable,
    settings: TuneSettings,
    resources: dict[str, float],
    folds: int,
    top: int,
    initial: dict[str, Any] | None = None,
) -> None:
    """Train `folds` models of each of the `top` best configurations, under the search's refit/.

    Goes on where an earlier call stopped. A configuration that diverges on a fold is left
    incomplete, with a line that says so. Raises RequestError where a genre has too few groups.
    """
    cpus, gpus, concurrent = share_resources(settings, resources)
    fold_of = np.asarray(draw_folds(chunks.tracks, folds, chunks.info.seed))
    place = search.inner("refit")
    contents, jobs = {}, []
    for record in configurations(records, top):
        fixed = fixed_params(record.family, settings, initial)
        params = full_params(record.family, fixed | record.params)
        score = (record.accuracy, -record.best["val_loss"])
        epochs = epochs_of(record, params)
        contents[record.trial] = start_refit(
            place.folder / record.trial, record.family, params, epochs, folds, score
        )
        place.send(f"{record.trial}/refit.json")
        jobs += [(record.trial, fold) for fold in range(folds)]
    missing = []
    for trial, fold in jobs:
        if not is_done(place.folder / trial, fold):
            place.fetch(_name(trial, fold))  # which another head of the cluster may have seen end
            if not is_done(place.folder / trial, fold):
                missing.append((trial, fold))
    shared = ray.put((chunks, fold_of))
    task = ray.remote(_fit_fold).options(num_cpus=cpus, num_gpus=gpus)
    threads = max(1, int(cpus))
    with progress("refitting", len(jobs), "models") as advance:
        done = len(jobs) - len(missing)
        advance(done)
        running: dict[Any, tuple[str, int]] = {}
        while missing or running:
            while missing and len(running) < concurrent:
                trial, fold = missing.pop(0)
                started = task.remote(search, trial, fold, contents[trial], shared, threads)
                running[started] = (trial, fold)
            ready, _ = ray.wait(list(running))
            trial, fold = running.pop(ready[0])
            try:
                reason = ray.get(ready[0])
            except RayTaskError as error:
                if isinstance(error.cause, OSError):  # a full disk, which is no matter of the fold
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


def _name(trial: str, fold: int) -> str:
    return fold_folder(Path(trial), fold).as_posix()


def _fit_fold(
    search: Exchange,
    trial: str,
    fold: int,
    content: dict[str, Any],
    shared: tuple[ChunkTable, np.ndarray],
    threads: int,
) -> str | None:
    """In a process of Ray's; the reason where the fold cannot be trained."""
    torch.set_num_threads(threads)
    fetch_initial(content["params"], search)
    there = search.inner("refit").elsewhere()
    try:
        fit_fold(there.folder / trial, fold, content, *shared, best_device())
        there.send(_name(trial, fold))
        there.clear(_name(trial, fold))
    except NonFiniteLossError as error:
        return str(error)
    return None
