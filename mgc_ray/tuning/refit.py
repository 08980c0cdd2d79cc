"""Refit the best configurations of a search on folds, as parallel Ray tasks.

What a fold is and what is written stands in ensembling/folds.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.split import draw_folds
from mgc_ray.ensembling.folds import fit_fold, is_done, start_refit
from mgc_ray.terminal.command import console
from mgc_ray.terminal.progress import progress
from mgc_ray.training.config import full_params
from mgc_ray.training.loop import NonFiniteLossError, best_device
from mgc_ray.tuning.records import TrialRecord, ranked
from mgc_ray.tuning.run import TuneSettings, fixed_params, share_resources


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
    folder: Path,
    records: Sequence[TrialRecord],
    chunks: ChunkTable,
    settings: TuneSettings,
    resources: dict[str, float],
    folds: int,
    top: int,
    initial: dict[str, Any] | None = None,
) -> None:
    """Train `folds` models of each of the `top` best configurations, under FOLDER/refit.

    Goes on where an earlier call stopped. A configuration that diverges on a fold is left
    incomplete, with a line that says so. Raises RequestError where a genre has too few groups.
    """
    cpus, gpus, concurrent = share_resources(settings, resources)
    fold_of = np.asarray(draw_folds(chunks.tracks, folds, chunks.info.seed))
    jobs = []
    for record in configurations(records, top):
        fixed = fixed_params(record.family, settings, initial)
        params = full_params(record.family, fixed | record.params)
        place = (folder / "refit" / record.trial).resolve()
        score = (record.accuracy, -record.best["val_loss"])
        start_refit(place, record.family, params, epochs_of(record, params), folds, score)
        jobs += [(place, fold) for fold in range(folds)]
    missing = [(place, fold) for place, fold in jobs if not is_done(place, fold)]
    shared = ray.put((chunks, fold_of))
    task = ray.remote(_fit_fold).options(num_cpus=cpus, num_gpus=gpus)
    threads = max(1, int(cpus))
    with progress("refitting", len(jobs), "models") as advance:
        done = len(jobs) - len(missing)
        advance(done)
        running: dict[Any, tuple[Path, int]] = {}
        while missing or running:
            while missing and len(running) < concurrent:
                place, fold = missing.pop(0)
                running[task.remote(place, fold, shared, threads)] = (place, fold)
            ready, _ = ray.wait(list(running))
            place, fold = running.pop(ready[0])
            reason = ray.get(ready[0])
            if reason:
                console.print(
                    f"{place.name} is left out of the refit, fold {fold + 1}: {reason}",
                    markup=False,
                )
                missing = [job for job in missing if job[0] != place]
            done += 1
            advance(done)


def _fit_fold(
    place: Path, fold: int, shared: tuple[ChunkTable, np.ndarray], threads: int
) -> str | None:
    """In a process of Ray's; the reason where the fold cannot be trained."""
    torch.set_num_threads(threads)
    try:
        fit_fold(place, fold, *shared, best_device())
    except NonFiniteLossError as error:
        return str(error)
    return None
