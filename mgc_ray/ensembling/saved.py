"""An ensemble on disk and in use: all that prediction needs, in one folder.

DIR/ensemble.json        members and weights, genres, protocol, metrics (results.EnsembleInfo)
DIR/members/NAME/        one checkpoint each (see training/checkpoint.py)
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path

import numpy as np
import torch

from mgc_ray import RequestError, __version__
from mgc_ray.data.audio import keep_freed_memory
from mgc_ray.data.chunks import Features
from mgc_ray.data.features import FeatureSet
from mgc_ray.evaluation.metrics import apply_temperature, track_probs
from mgc_ray.models._classifier import Classifier, Shared
from mgc_ray.results import (
    ENSEMBLE_JSON,
    MODEL_REMEDY,
    VALID,
    EnsembleInfo,
    Member,
    check_ensemble_folder,
    read_ensemble_info,
)
from mgc_ray.training.batches import on_device
from mgc_ray.training.checkpoint import Checkpoint, halve, load_checkpoint
from mgc_ray.training.epoch import best_device

_CHUNKS_AT_A_TIME = 64  # bounds memory; no slower than more


@dataclass(frozen=True)
class SongPrediction:
    """Calibrated probabilities of a song [genres] and of each of its chunks [chunks, genres]."""

    song: np.ndarray
    chunks: np.ndarray


@dataclass(frozen=True)
class Ensemble:
    """Classifiers whose calibrated probabilities are averaged with weights that sum to 1."""

    checkpoints: list[Checkpoint]
    info: EnsembleInfo

    @property
    def genres(self) -> tuple[str, ...]:
        return self.info.genres

    @cached_property
    def features(self) -> FeatureSet:
        """What the members read, all together."""
        return reduce(FeatureSet.joined, [checkpoint.features for checkpoint in self.checkpoints])

    def predict(self, path: str | Path) -> dict[str, float]:
        """Genres of one file with their probabilities, most probable first.

        Raises UnusableTrackError with the reason where the file cannot be a track.
        """
        return self.by_genre(self.predict_song(self.features.compute(path).columns).song)

    def predict_song(self, features: Features) -> SongPrediction:
        """Probabilities of a song from its features [chunks, bands, frames]."""
        count = len(next(iter(features.values())))
        (song,), chunks = self.predict_tracks(features, np.zeros(count, np.int64))
        return SongPrediction(song, chunks)

    def predict_tracks(
        self, features: Features, track: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of tracks [K, genres] and chunks [N, genres]; `track` [N] is ascending."""
        classifiers = [checkpoint.classifier for checkpoint in self.checkpoints]
        probs = member_probs(classifiers, features)
        _, tracks, chunks = combine(self.info.members, probs, track)
        scaled = [apply_temperature(p, self.info.temperature) for p in (tracks, chunks)]
        return scaled[0], scaled[1]

    def by_genre(self, probs: np.ndarray) -> dict[str, float]:
        """Probabilities [genres] by name, most probable first."""
        order = np.argsort(-probs, kind="stable")
        return {self.genres[i]: float(probs[i]) for i in order}


def member_probs(classifiers: Sequence[Classifier], features: Features) -> list[np.ndarray]:
    """Each classifier's probabilities float64 [chunks, genres], on the GPU where there is one.

    What several classifiers compute alike is computed once.
    """
    device = best_device()
    moved = [classifier.to(device).eval() for classifier in classifiers]
    probs: list[list[np.ndarray]] = [[] for _ in classifiers]
    count = len(next(iter(features.values())))
    with torch.inference_mode():
        for start in range(0, count, _CHUNKS_AT_A_TIME):
            part = slice(start, start + _CHUNKS_AT_A_TIME)
            batch = on_device({name: chunks[part] for name, chunks in features.items()}, device)
            shared = Shared()
            for classifier, own in zip(moved, probs, strict=True):
                own.append(classifier.probs(batch, shared).cpu().numpy())
    return [np.concatenate(own) for own in probs]


def combine(
    members: Sequence[Member], probs: Sequence[np.ndarray], track: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weighted mean of members' calibrated probabilities, given [N, genres] of each.

    `track` [N]: each chunk's track. Returns the tracks that have chunks, ascending [K], their
    probabilities [K, genres] and those of the chunks [N, genres].
    """
    present = np.unique(track)
    tracks = np.zeros((len(present), probs[0].shape[1]))
    chunks = np.zeros(probs[0].shape)
    for member, own in zip(members, probs, strict=True):
        tracks += member.weight * apply_temperature(track_probs(own, track)[1], member.temperature)
        chunks += member.weight * apply_temperature(own, member.temperature)
    return present, tracks, chunks


def shipped_model() -> Path:
    """The folder of the ensemble that comes with the program, trained on GTZAN's arrays.

    In an installed package it is beside the code, in a checkout under results/. Raises RequestError
    where it is in neither.
    """
    code = Path(__file__).resolve().parents[1]
    for folder in (code / "gtzan_model", code.parent / "results" / "gtzan" / "model"):
        if (folder / ENSEMBLE_JSON).exists():
            return folder
    raise RequestError(
        "without --model the ensemble that comes with the program is used, but it is missing in "
        "this installation: give one by --model, e.g. results/NAME/ensemble"
    )


def save_ensemble(
    folder: Path, info: EnsembleInfo, sources: Sequence[Path], half: bool = False
) -> None:
    """Write an ensemble with the checkpoints of its members; the folder is complete or absent.

    `half`: weights in 16 bits, for one that is to be small.
    Raises RequestError where `folder` holds anything but an earlier ensemble.
    """
    folder = Path(os.path.abspath(folder))  # "." has no name
    check_ensemble_folder(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for member, source in zip(info.members, sources, strict=True):
            place = temporary / "members" / member.name
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("held.npz"))
            if half:
                halve(place)
        info.write(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_ensemble(folder: str | Path) -> Ensemble:
    """Read an ensemble, or a single checkpoint as an ensemble of one.

    Raises RequestError for what is neither or is damaged.
    """
    keep_freed_memory()  # it is going to predict
    folder = Path(folder)
    if (folder / "config.json").exists():
        return _of_one(load_checkpoint(folder))
    info = read_ensemble_info(folder, MODEL_REMEDY)
    names = [member.name for member in info.members]
    # a name is one folder below members/: a stranger's ensemble reads nothing outside of itself
    if not names or any(Path(name).name != name or name in ("", ".", "..") for name in names):
        raise RequestError(
            f"{folder}/{ENSEMBLE_JSON}: members must be folders below members/, at least one, but "
            f"they are {names}: {MODEL_REMEDY}"
        )
    weights = [member.weight for member in info.members]
    if any(not w > 0 for w in weights) or abs(sum(weights) - 1) > 1e-6:
        raise RequestError(
            f"{folder}/{ENSEMBLE_JSON}: weights must be above 0 and sum to 1, but they are "
            f"{weights}"
        )
    temperatures = [info.temperature, *(member.temperature for member in info.members)]
    if any(not 0 < t < float("inf") for t in temperatures):
        raise RequestError(
            f"{folder}/{ENSEMBLE_JSON}: temperatures must be above 0, but they are {temperatures}: "
            f"{MODEL_REMEDY}"
        )
    checkpoints = [load_checkpoint(folder / "members" / name) for name in names]
    for name, checkpoint in zip(names, checkpoints, strict=True):
        if checkpoint.genres != info.genres:
            raise RequestError(
                f"{folder}: all members need the ensemble's genres, but those of {name} are "
                f"{', '.join(checkpoint.genres)}"
            )
    ensemble = Ensemble(checkpoints, info)
    _ = ensemble.features  # refuses members that do not agree
    return ensemble


def _of_one(checkpoint: Checkpoint) -> Ensemble:
    config, origin = checkpoint.config, checkpoint.config.dataset
    info = EnsembleInfo(
        version=__version__,
        members=(Member("checkpoint", 1.0),),
        genres=config.genres,
        protocol=origin.protocol,
        leaky=origin.leaky,
        fold="",
        split_seed=origin.seed,
        split_id=origin.split_id,
        source=origin.source,
        temperature=1.0,
        selected_on=VALID,
        candidates=(),
        trained_on=config.trained_on,
    )
    return Ensemble([checkpoint], info)
