"""Refitting on folds: models that together have seen all of train + validation.

The tracks of both parts are split into K folds by group, and K models of one configuration are
trained, each without one fold, which it then predicts. So every track has a prediction by a model
that has not seen it, which is what selection and calibration need, and no track is wasted.

    REFIT/TRIAL/refit.json          RefitPlan: family, settings, epochs, folds, score of the trial
    REFIT/TRIAL/fold-K/             a checkpoint (see training/checkpoint.py), and
    REFIT/TRIAL/fold-K/held.npz     rows [n], probs [n, genres]: predictions for the fold left out;
                                    seconds of training. Written last: without it a fold is not done
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.files import atomic_write, delete, is_damaged, read_typed, write_json
from mgc_ray.data.untrusted import read_arrays
from mgc_ray.results import FOLDS, TrialRecord, ranked
from mgc_ray.settings import Params, as_json
from mgc_ray.task import Score, score
from mgc_ray.training.batches import batches
from mgc_ray.training.checkpoint import is_checkpoint, save_checkpoint
from mgc_ray.training.epoch import predict_probs
from mgc_ray.training.loop import train


@dataclass(frozen=True)
class RefitPlan:
    """One configuration that is refitted; `score` is that of its trial."""

    family: str
    params: Params
    epochs: int
    folds: int
    score: Score
    split_id: str = ""  # of the dataset that the trial was trained on

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "refit.json", as_json(self))


@dataclass(frozen=True)
class Refitted:
    """One configuration after (or during) its refit."""

    name: str
    plan: RefitPlan
    folds: tuple[Path, ...]  # those that are done

    @property
    def complete(self) -> bool:
        return 0 < self.plan.folds == len(self.folds)

    @property
    def seconds(self) -> float:
        """The training time of all folds."""
        return sum(float(_read_held(fold)["seconds"]) for fold in self.folds)

    @property
    def rows(self) -> np.ndarray:
        """The chunks that are in a fold, sorted: all of train + validation but added ones."""
        return np.sort(np.concatenate([_read_held(fold)["rows"] for fold in self.folds]))

    def out_of_fold(self, rows: np.ndarray) -> np.ndarray:
        """Predictions [n, genres] for chunks, each by the model that has not seen its track."""
        held = [_read_held(fold) for fold in self.folds]
        own = np.concatenate([one["rows"] for one in held])
        order = np.argsort(own)
        if not np.array_equal(own[order], rows):
            raise ValueError(f"folds of {self.name} must cover {len(rows)} chunks, but do not")
        probs: np.ndarray = np.concatenate([one["probs"] for one in held])[order]
        return probs


def configurations(records: Sequence[TrialRecord], top: int) -> list[TrialRecord]:
    """The `top` best trials, of which the best of each family are the first."""
    usable = [record for record in ranked(records) if record.usable]
    best: dict[str, TrialRecord] = {}
    for record in usable:
        best.setdefault(record.family, record)
    first = list(best.values())
    return (first + [record for record in usable if record not in first])[: max(top, len(first))]


def plan_refit(record: TrialRecord, params: Params, folds: int) -> RefitPlan:
    """How to refit a trial: for as long as it took to its best epoch, as no fold may decide that.

    A cosine schedule ends in small steps that are part of it, so it is run whole.
    """
    cosine = params["schedule"] == "cosine"
    epochs = int(params["max_epochs"]) if cosine else record.best_epoch
    if FOLDS in record.best:  # its epochs were folds
        params, epochs = params | {"folds": 0}, 1
    ranked_by = score(record.best, record.metric)
    return RefitPlan(record.family, params, epochs, folds, ranked_by, record.split_id)


def fold_folder(folder: Path, fold: int) -> Path:
    """Folder of one fold, which counts from 0 here and from 1 in names."""
    return folder / f"fold-{fold + 1}"


def is_done(folder: Path, fold: int) -> bool:
    """Whether a fold has its model and its predictions; damaged ones count as none."""
    place = fold_folder(folder, fold)
    try:
        return {"rows", "probs", "seconds"} <= _read_held(place).keys() and is_checkpoint(place)
    except (OSError, ValueError, EOFError, BadZipFile):
        return False


def fit_fold(
    folder: Path,
    fold: int,
    plan: RefitPlan,
    chunks: ChunkTable,
    fold_of: np.ndarray,
    device: torch.device,
    before_writing: Callable[[], object] = lambda: None,
) -> None:
    """Train on all folds but one, predict that one, write FOLDER/fold-K.

    `fold_of` [K]: the fold of each track, -1 for one that is always trained on. The fold left out
    decides nothing: the number of epochs is given. All folds are standardised alike, by the
    dataset's training part. NonFiniteLossError passes through.
    """
    left_out = fold_of[chunks.track] == fold
    parts = replace(chunks, split=np.where(left_out, "valid", "train"))
    params = plan.params | {"patience": plan.epochs}
    started = time.perf_counter()
    for epoch in train(plan.family, params, parts, device, statistics=chunks.band_statistics):
        if epoch.number == plan.epochs:
            break
    seconds = time.perf_counter() - started
    rows = np.flatnonzero(left_out)
    source = batches(parts, epoch.classifier.names, device)
    probs = predict_probs(epoch.classifier, source, rows)
    out = fold_folder(folder, fold)
    before_writing()
    delete(out)  # what an earlier attempt has left may be of other settings
    save_checkpoint(out, epoch, plan.family, plan.params, chunks.info)
    with atomic_write(out / "held.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, rows=rows, probs=probs, seconds=seconds)


def read_refitted(refit: Path) -> list[Refitted]:
    """All configurations under REFIT, best first, complete or not."""
    refitted = []
    for path in sorted(refit.glob("*/refit.json")):
        if is_damaged(path):  # as after a loss of power; those that are wanted now are whole
            continue
        plan = read_typed(RefitPlan, path, "refit", "delete its folder")
        # of the folders that are there, as a damaged plan may want any number
        names = [one.name.removeprefix("fold-") for one in path.parent.glob("fold-*")]
        there = sorted({int(name) - 1 for name in names if name.isdecimal()})
        done = [fold for fold in there if fold in range(plan.folds) and is_done(path.parent, fold)]
        folds = tuple(fold_folder(path.parent, fold) for fold in done)
        refitted.append(Refitted(path.parent.name, plan, folds))
    return sorted(refitted, key=lambda one: one.plan.score, reverse=True)


def _read_held(fold: Path) -> dict[str, np.ndarray]:
    path = fold / "held.npz"
    try:
        held = read_arrays(path)
        return {name: held[name] for name in ("rows", "probs", "seconds")}
    except (OSError, LookupError, ValueError) as error:
        raise RequestError(
            f"{path} is missing or damaged ({error}): delete {fold} and continue by --resume"
        ) from None
