"""An ensemble on disk and in use: all that prediction needs, in one folder.

DIR/ensemble.json        members and weights, genres, features, protocol, figures
DIR/members/NAME/        one checkpoint each (see training/checkpoint.py)
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgc_ray import RequestError, __version__
from mgc_ray.data.files import read_json, write_json
from mgc_ray.data.spectrogram import Features, features_to_json
from mgc_ray.ensembling.calibration import temper
from mgc_ray.training.batches import ResidentBatches
from mgc_ray.training.checkpoint import Checkpoint, halve, load_checkpoint
from mgc_ray.training.loop import best_device, predict_probs

_REMEDY = "name the folder 'ensemble' of a search, what mgc_ray.ensemble wrote, or a checkpoint"


@dataclass(frozen=True)
class Ensemble:
    """Classifiers whose probabilities are averaged with weights that sum to 1."""

    members: list[Checkpoint]
    weights: list[float]
    content: dict[str, Any]  # of ensemble.json

    @property
    def genres(self) -> tuple[str, ...]:
        return self.members[0].genres

    @property
    def features(self) -> Features:
        return self.members[0].features

    @property
    def temperature(self) -> float:
        """What makes the tracks' probabilities as sure as they are right; see calibration.py."""
        return float(self.content.get("temperature", 1.0))

    def chunk_probs(self, spectrograms: np.ndarray) -> np.ndarray:
        """Probabilities float64 [chunks, genres] of spectrograms [chunks, bands, frames]."""
        probs = np.zeros((len(spectrograms), len(self.genres)))
        for member, weight in zip(self.members, self.weights, strict=True):
            probs += weight * member_probs(member, spectrograms)
        return probs

    def predict(self, path: str | Path) -> dict[str, float]:
        """Genres of one file with their probabilities, most probable first.

        Raises UnusableTrackError with the reason where the file is no track.
        """
        probs = temper(self.chunk_probs(self.features.chunks(path)).mean(0), self.temperature)
        order = np.argsort(-probs, kind="stable")
        return {self.genres[i]: float(probs[i]) for i in order}


def member_probs(member: Checkpoint, spectrograms: np.ndarray) -> np.ndarray:
    """One member's probabilities float64 [chunks, genres], on the GPU where there is one."""
    device = best_device()
    classifier = member.classifier.to(device)
    with torch.no_grad():
        source = ResidentBatches(spectrograms, device)
        return predict_probs(classifier, source, np.arange(len(spectrograms)))


def shipped_model() -> Path:
    """The folder of the ensemble that comes with the program, trained on GTZAN's arrays.

    In an installed package it lies beside the code, in a checkout under results/. Raises
    RequestError where it is in neither.
    """
    code = Path(__file__).resolve().parents[1]
    for folder in (code / "gtzan_model", code.parent / "results" / "gtzan" / "model"):
        if (folder / "ensemble.json").exists():
            return folder
    raise RequestError(
        "without --model the ensemble that comes with the program is used, but this installation "
        "lacks it: name one by --model, e.g. results/NAME/ensemble"
    )


def save_ensemble(
    folder: Path,
    members: Sequence[tuple[str, Path, float]],
    first: Checkpoint,
    provenance: dict[str, Any],
    half: bool = False,
) -> None:
    """Write an ensemble of (name, checkpoint folder, weight) whole, then put it in place.

    `half`: weights of 16 bits, for one that is to be small.
    Raises RequestError where `folder` holds anything but an earlier ensemble.
    """
    check_ensemble_place(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name, source, _ in members:
            place = temporary / "members" / name
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("held.npz"))
            if half:
                halve(place)
        write_json(
            temporary / "ensemble.json",
            {
                "version": __version__,
                "members": [{"name": n, "weight": w} for n, _, w in members],
                "genres": list(first.genres),
                "features": features_to_json(first.features),
                **provenance,
            },
        )
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_ensemble_place(folder: Path) -> None:
    """Raise RequestError where writing an ensemble would delete something else."""
    if folder.exists() and not (folder / "ensemble.json").exists() and any(folder.iterdir()):
        raise RequestError(f"{folder} holds other things: name a new folder for the ensemble")


def add_figures(folder: Path, figures: dict[str, Any]) -> None:
    """Write figures into a saved ensemble's ensemble.json."""
    content = read_json(folder / "ensemble.json", "ensemble", _REMEDY)
    write_json(folder / "ensemble.json", content | figures)


def load_ensemble(folder: str | Path) -> Ensemble:
    """Read an ensemble, or a single checkpoint as an ensemble of one.

    Raises RequestError for what is neither or is damaged.
    """
    folder = Path(folder)
    if (folder / "config.json").exists():
        checkpoint = load_checkpoint(folder)
        return Ensemble([checkpoint], [1.0], checkpoint.dataset)
    content = read_json(folder / "ensemble.json", "ensemble", _REMEDY)
    try:
        names = [str(member["name"]) for member in content["members"]]
        weights = [float(member["weight"]) for member in content["members"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{folder}/ensemble.json is damaged ({error!r}); {_REMEDY}") from None
    # a name is one folder below members/: a stranger's ensemble reads nothing outside of itself
    if not names or any(Path(name).name != name or name in ("", ".", "..") for name in names):
        raise RequestError(f"{folder}/ensemble.json names members that are no folders of its own")
    if any(not w > 0 for w in weights) or abs(sum(weights) - 1) > 1e-6:
        raise RequestError(
            f"{folder}/ensemble.json: weights must be above 0 and sum to 1, but they are {weights}"
        )
    members = [load_checkpoint(folder / "members" / name) for name in names]
    for name, member in zip(names, members, strict=True):
        if (member.genres, member.features) != (members[0].genres, members[0].features):
            raise RequestError(
                f"{folder}: all members need the same genres and features, but {name} and "
                f"{names[0]} differ"
            )
    return Ensemble(members, weights, content)
