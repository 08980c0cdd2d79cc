"""Small trained members, and ensembles of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mgc_ray.data.chunks import Chunks, Features
from mgc_ray.data.features import TrackFeatures
from mgc_ray.ensembling.saved import Ensemble, SongFeatures, save_ensemble
from mgc_ray.results import VALID, EnsembleInfo, Member
from mgc_ray.settings import Params
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.loop import train

SMALL: Params = {"blocks": 2, "channels": 4, "hidden": 8}


def trained(folder: Path, family: str, chunks: Chunks, **params: object) -> Path:
    """A checkpoint after one epoch."""
    settings = (SMALL if family in ("gru", "lstm", "cnn") else {}) | {"max_epochs": 1} | params
    epoch = next(train(family, settings, chunks, autocast=False))
    save_checkpoint(folder, epoch, family, settings, chunks.info)
    return folder


def ensemble_of(
    folder: Path,
    members: Sequence[tuple[Path, float]],
    chunks: Chunks,
    temperatures: Sequence[float] = (),
    half: bool = False,
) -> Path:
    """An ensemble of checkpoints with weights; members are named like their folders."""
    temperatures = temperatures or [1.0] * len(members)
    info = EnsembleInfo(
        version="0",
        members=tuple(
            Member(path.name, weight, temperature)
            for (path, weight), temperature in zip(members, temperatures, strict=True)
        ),
        genres=chunks.info.genres,
        protocol="given",
        leaky=False,
        fold="",
        split_seed=0,
        source="made by a test",
        temperature=1.0,
        selected_on=VALID,
        candidates=(),
        trained_on=(),
    )
    save_ensemble(folder, info, [path for path, _ in members], half)
    return folder


def as_song(columns: Features) -> SongFeatures:
    """The features of a song that one kind of members reads."""
    return SongFeatures((TrackFeatures(columns, float("nan"), ""),))


def predicted(ensemble: Ensemble, chunks: Chunks) -> tuple[np.ndarray, np.ndarray]:
    """An ensemble's probabilities of all tracks and of all chunks, which it reads all alike."""
    rows = [np.flatnonzero(chunks.track == track) for track in np.unique(chunks.track)]
    songs = [as_song({name: x[own] for name, x in chunks.features.items()}) for own in rows]
    found = ensemble.predict_songs(songs)
    return np.stack([one.song for one in found]), np.concatenate([one.chunks for one in found])
