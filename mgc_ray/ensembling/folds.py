"""Refitting on folds: models that together have seen all of train + validation.

The tracks of both parts are parted into K folds by group, and K models of one configuration are
trained, each without one fold, which it then predicts. So every track has a prediction by a model
that has not seen it, which is what selection and calibration need, and no track is given up.

    REFIT/TRIAL/refit.json          family, settings, epochs, number of folds, score of the trial
    REFIT/TRIAL/fold-K/             a checkpoint (see training/checkpoint.py), and
    REFIT/TRIAL/fold-K/held.npz     rows [n], probs [n, genres]: predictions of the fold left out;
                                    seconds of training. Written last: a fold without it is undone
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.files import read_json, write_json, written_whole
from mgc_ray.training.batches import batches
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.loop import predict_probs, train


@dataclass(frozen=True)
class Refitted:
    """One configuration after (or in the middle of) its refit."""

    name: str
    family: str
    folds: tuple[Path, ...]  # those that are done
    count: int  # folds in all
    score: tuple[float, float]  # of the trial: validation track accuracy, minus loss

    @property
    def complete(self) -> bool:
        return len(self.folds) == self.count

    @property
    def seconds(self) -> float:
        """What training all folds took."""
        return sum(float(_read_held(fold)["seconds"]) for fold in self.folds)

    @property
    def rows(self) -> np.ndarray:
        """The chunks that lie in a fold, sorted: all of train + validation but added ones."""
        return np.sort(np.concatenate([_read_held(fold)["rows"] for fold in self.folds]))

    def out_of_fold(self, rows: np.ndarray) -> np.ndarray:
        """Predictions [n, genres] of chunks, each by the model that has not seen its track."""
        held = [_read_held(fold) for fold in self.folds]
        own = np.concatenate([one["rows"] for one in held])
        order = np.argsort(own)
        if not np.array_equal(own[order], rows):
            raise ValueError(f"folds of {self.name} must cover {len(rows)} chunks, but do not")
        probs: np.ndarray = np.concatenate([one["probs"] for one in held])[order]
        return probs


def start_refit(
    folder: Path,
    family: str,
    params: dict[str, Any],
    epochs: int,
    count: int,
    score: tuple[float, float],
) -> dict[str, Any]:
    """Write FOLDER/refit.json; its content."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"family": family, "params": params, "epochs": epochs, "folds": count, "score": score}
    write_json(folder / "refit.json", content)
    return content


def fold_folder(folder: Path, fold: int) -> Path:
    """Folder of one fold, which counts from 0 here and from 1 in names."""
    return folder / f"fold-{fold + 1}"


def is_done(folder: Path, fold: int) -> bool:
    return (fold_folder(folder, fold) / "held.npz").exists()


def fit_fold(
    folder: Path,
    fold: int,
    refit: dict[str, Any],
    chunks: ChunkTable,
    fold_of: np.ndarray,
    device: torch.device,
) -> None:
    """Train on all folds but one, as `start_refit` said, predict that one, write FOLDER/fold-K.

    `fold_of` [K]: the fold of each track, -1 for one that is always trained on. The fold left out
    decides nothing: the number of epochs is given. NonFiniteLossError passes through.
    """
    family, params, epochs = refit["family"], refit["params"], refit["epochs"]
    left_out = fold_of[chunks.track] == fold
    parts = replace(chunks, split=np.where(left_out, "valid", "train"))
    started = time.perf_counter()
    for epoch in train(family, params | {"patience": epochs}, parts, device):
        if epoch.number == epochs:
            break
    seconds = time.perf_counter() - started
    out = fold_folder(folder, fold)
    save_checkpoint(out, epoch, family, params, chunks.info)
    rows = np.flatnonzero(left_out)
    probs = predict_probs(epoch.classifier, batches(parts, device), rows)
    with written_whole(out / "held.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, rows=rows, probs=probs, seconds=seconds)


def read_refitted(refit: Path) -> list[Refitted]:
    """All configurations under REFIT, best first, done or not."""
    found = []
    for path in sorted(refit.glob("*/refit.json")):
        content = read_json(path, "refit", "delete its folder")
        done = [fold for fold in range(content["folds"]) if is_done(path.parent, fold)]
        found.append(
            Refitted(
                name=path.parent.name,
                family=content["family"],
                folds=tuple(fold_folder(path.parent, fold) for fold in done),
                count=content["folds"],
                score=(content["score"][0], content["score"][1]),
            )
        )
    return sorted(found, key=lambda one: one.score, reverse=True)


def _read_held(fold: Path) -> dict[str, np.ndarray]:
    with np.load(fold / "held.npz") as file:
        return dict(file)
