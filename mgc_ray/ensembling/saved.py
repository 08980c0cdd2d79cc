"""An ensemble on disk and in use: all that prediction needs, in one folder.

DIR/ensemble.json        members and weights, genres, protocol, metrics (results.EnsembleInfo)
DIR/members/NAME/        one checkpoint each (see training/checkpoint.py)
DIR/code/                copies of the files of families and features of one's own that it needs

Nothing in it is executed: such a file is given by --family and --features.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mgc_ray import RequestError, __version__
from mgc_ray.data.audio import keep_freed_memory
from mgc_ray.data.chunks import Features
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.device import best_device, frozen
from mgc_ray.data.features import FeatureSet, TrackFeatures, feature_set_from_json
from mgc_ray.data.features.array import is_array
from mgc_ray.data.files import MissingFileError, partial_path, replace_folder
from mgc_ray.data.own_files import CODE, FAMILIES, FEATURES, write_copies
from mgc_ray.data.untrusted import check_folder
from mgc_ray.evaluation.metrics import apply_temperature, track_probs
from mgc_ray.models import own_families
from mgc_ray.models._classifier import Classifier, Shared
from mgc_ray.results import (
    CHECKPOINT_JSON,
    ENSEMBLE,
    ENSEMBLE_JSON,
    MODEL_REMEDY,
    TEST,
    VALID,
    CheckpointConfig,
    EnsembleInfo,
    Member,
    check_ensemble_folder,
    in_words,
    member_folder,
    model_folder,
    read_checkpoint_config,
    read_ensemble_info,
)
from mgc_ray.training.batches import on_device
from mgc_ray.training.checkpoint import (
    Checkpoint,
    halve,
    load_checkpoint,
)

_CHUNKS_AT_A_TIME = 64  # bounds memory; no slower than more


@dataclass(frozen=True)
class SongPrediction:
    """Calibrated probabilities of a song [genres] and of each of its chunks [chunks, genres]."""

    song: np.ndarray
    chunks: np.ndarray


@dataclass(frozen=True)
class SongFeatures:
    """The features of one song: one for each of `Ensemble.inputs`, the shortest chunks first.

    None for an input of audio where the song is given as an array.
    """

    inputs: tuple[TrackFeatures | None, ...]

    @property
    def read(self) -> list[TrackFeatures]:
        """Those that are there, at least one."""
        return [features for features in self.inputs if features]

    @property
    def shortest(self) -> TrackFeatures:
        """Those with the shortest chunks, of which chunks' probabilities are given."""
        return self.read[0]

    @property
    def too_short(self) -> str:
        """Why the song is too short for all members; empty where it is not."""
        reasons = [features.too_short for features in self.read]
        return reasons[0] if all(reasons) else ""


@dataclass(frozen=True)
class Ensemble:
    """Classifiers whose calibrated probabilities are averaged with weights that sum to 1.

    Members may read chunks of several lengths. Then chunks are those of the members with the
    shortest ones, and the others add to each chunk what they say of the whole song. Where some
    members read arrays and others audio, an array is predicted by those that can read it.
    """

    checkpoints: list[Checkpoint]
    info: EnsembleInfo
    left_out: str = ""  # why some members are not here, and what that costs

    @property
    def genres(self) -> tuple[str, ...]:
        return self.info.genres

    @cached_property
    def inputs(self) -> tuple[FeatureSet, ...]:
        """What the members read: the features of equal chunks together, shortest chunks first."""
        return tuple(features for features, _ in self._by_input)

    @cached_property
    def _by_input(self) -> list[tuple[FeatureSet, list[int]]]:
        """Each of the inputs with the indices of the members that read it."""
        found: list[tuple[FeatureSet, list[int]]] = []
        for index, checkpoint in enumerate(self.checkpoints):
            own = checkpoint.features
            for i, (features, members) in enumerate(found):
                if features.joins(own):
                    found[i] = features.joined(own), [*members, index]
                    break
            else:
                found.append((own, [index]))
        if len(found) > 1 and any(not features.takes_audio for features, _ in found):
            raise RequestError(
                "members of one ensemble must all read the same arrays, or all take audio, but "
                f"they read {' and '.join(str(features) for features, _ in found)}"
            )
        return sorted(found, key=lambda one: one[0].seconds_of_chunk)

    @property
    def input_of_member(self) -> list[int]:
        """Which of the inputs each member reads."""
        found = {m: i for i, (_, members) in enumerate(self._by_input) for m in members}
        return [found[m] for m in range(len(self.checkpoints))]

    def decode(self, path: str | Path) -> list[DecodedTrack | None]:
        """Read a file once, for each of the inputs; UnusableTrackError where it is no track."""
        decoded: list[DecodedTrack | None] = []
        for features in self.inputs:
            if is_array(path) and not features.takes_arrays and len(self.inputs) > 1:
                decoded.append(None)
            elif earlier := next((track for track in decoded if track and track.waveform), None):
                decoded.append(features.recut(earlier))
            else:
                decoded.append(features.decode(path))
        if not any(decoded):  # an array, which no member reads
            self.inputs[0].decode(path)
        return decoded

    def features_of(self, decoded: Sequence[DecodedTrack | None]) -> SongFeatures:
        """The features of a song that `decode` has read."""
        pairs = zip(self.inputs, decoded, strict=True)
        return SongFeatures(
            tuple(features.of(track) if track else None for features, track in pairs)
        )

    def compute(self, path: str | Path) -> SongFeatures:
        """Decode a song and compute what the members read; UnusableTrackError as `decode`."""
        return self.features_of(self.decode(path))

    def predict(self, path: str | Path) -> dict[str, float]:
        """Genres of one file with their probabilities, most probable first.

        Raises UnusableTrackError with the reason where the file cannot be a track.
        """
        return self.by_genre(self.predict_song(self.compute(path)).song)

    def predict_song(self, song: SongFeatures) -> SongPrediction:
        """Probabilities of a song from its features."""
        return self.predict_songs([song])[0]

    def predict_songs(self, songs: Sequence[SongFeatures]) -> list[SongPrediction]:
        """Probabilities of several songs, whose chunks go through the members together.

        The members that cannot read a song have no part in its prediction.
        """
        found: dict[int, SongPrediction] = {}
        by_inputs: dict[tuple[int, ...], list[int]] = {}
        for number, song in enumerate(songs):
            there = tuple(i for i, features in enumerate(song.inputs) if features)
            by_inputs.setdefault(there, []).append(number)
        for there, numbers in by_inputs.items():
            predicted = self._predict_alike([songs[number] for number in numbers], there)
            found |= zip(numbers, predicted, strict=True)
        return [found[number] for number in range(len(songs))]

    def _predict_alike(
        self, songs: Sequence[SongFeatures], inputs: Sequence[int]
    ) -> list[SongPrediction]:
        """Of songs that all have these inputs, by the members that read them."""
        probs: dict[int, np.ndarray] = {}  # by member
        song_of = {}
        for i in inputs:
            _, members = self._by_input[i]
            own = [features for song in songs if (features := song.inputs[i])]
            song_of[i] = np.repeat(np.arange(len(own)), [features.chunks for features in own])
            together = {n: np.concatenate([f.columns[n] for f in own]) for n in own[0].columns}
            classifiers = [self.checkpoints[member].classifier for member in members]
            probs |= zip(members, member_probs(classifiers, together), strict=True)
        by_song, by_chunk = (
            apply_temperature(p, self.info.temperature)
            for p in combine(
                [self.info.members[member] for member in probs],
                list(probs.values()),
                [self.input_of_member[member] for member in probs],
                song_of,
            )
        )
        chunks = np.split(by_chunk, np.cumsum([song.shortest.chunks for song in songs])[:-1])
        return [SongPrediction(*one) for one in zip(by_song, chunks, strict=True)]

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
    probs: list[list[Tensor]] = [[] for _ in classifiers]
    count = len(next(iter(features.values())))
    with frozen():
        for start in range(0, count, _CHUNKS_AT_A_TIME):
            part = slice(start, start + _CHUNKS_AT_A_TIME)
            batch = on_device({name: chunks[part] for name, chunks in features.items()}, device)
            shared = Shared()
            for classifier, own in zip(moved, probs, strict=True):
                own.append(classifier.probs(batch, shared))
        return [torch.cat(own).cpu().numpy() for own in probs]


def combine(
    members: Sequence[Member],
    probs: Sequence[np.ndarray],
    input_of: Sequence[int],
    track_of: Mapping[int, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted mean of members' calibrated probabilities, for tracks [K, C] and chunks [N, C].

    `probs`: of each member, for all chunks of the input that it reads, `input_of`; `track_of`: the
    track of each chunk of an input, 0..K-1, all of which have chunks. N chunks are those of the
    first input that is read; members that read another one add what they say of the whole track.
    """
    first = min(input_of)
    genres = probs[0].shape[1]
    by_track = np.zeros((track_of[first].max() + 1, genres))
    by_chunk = np.zeros((len(track_of[first]), genres))
    for member, own, i in zip(members, probs, input_of, strict=True):
        _, of_tracks = track_probs(own, track_of[i])
        tracks = member.weight * apply_temperature(of_tracks, member.temperature)
        chunks = member.weight * apply_temperature(own, member.temperature)
        by_track += tracks
        by_chunk += chunks if i == first else tracks[track_of[first]]
    total = sum(member.weight for member in members)
    return by_track / total, by_chunk / total


def shipped_model() -> Path:
    """The folder of the ensemble that comes with the program, trained on GTZAN.

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
    """Write an ensemble with the checkpoints of its members; an earlier one stands until it is.

    `half`: weights in 16 bits, for one that is to be small.
    Raises RequestError where `folder` holds anything but an earlier ensemble.
    """
    folder = Path(os.path.abspath(folder))  # "." has no name
    check_ensemble_folder(folder)
    temporary = partial_path(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for member, source in zip(info.members, sources, strict=True):
            place = temporary / "members" / member.name
            check_folder(source, CHECKPOINT_JSON)  # or what a link points at would be copied
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("held.npz"))
            if half:
                halve(place)
            _copy_own_files(temporary, read_checkpoint_config(place, MODEL_REMEDY))
        info.write(temporary)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_own_files(folder: Path, config: CheckpointConfig) -> None:
    """Write the files of one's own that a member needs beside the members, to be given again."""
    families = {name: source for name, (_, source) in own_families().items()}
    if config.family in families:
        write_copies(folder, FAMILIES, {config.family: families[config.family]})
    features = feature_set_from_json(config.features).own_sources
    write_copies(folder, FEATURES, {name: source for name, (_, source) in features.items()})


def load_ensemble(folder: str | Path, partly: bool = False) -> Ensemble:
    """Read an ensemble, that of a search, or a single checkpoint or trial as an ensemble of one.

    `partly`: where something is not installed that some members need, the others predict alone
    (see `Ensemble.left_out`). Raises RequestError for what is no ensemble or is damaged.
    """
    keep_freed_memory()  # it is going to predict
    folder = model_folder(folder)
    if (folder / CHECKPOINT_JSON).exists():
        return _of_one(load_checkpoint(folder))
    info = read_ensemble_info(folder, MODEL_REMEDY)
    try:
        checkpoints = [load_checkpoint(member_folder(folder, member)) for member in info.members]
    except MissingFileError as error:
        copy = f"; {folder / CODE} has a copy: read what it does first"
        raise MissingFileError(f"{error}{copy if (folder / CODE).is_dir() else ''}") from None
    for member, checkpoint in zip(info.members, checkpoints, strict=True):
        if checkpoint.genres != info.genres:
            raise RequestError(
                f"{folder}: all members need the ensemble's genres, but those of {member.name} are "
                f"{', '.join(checkpoint.genres)}"
            )
    if partly:
        ensemble = _of_those_that_can_be_computed(checkpoints, info)
    else:
        ensemble = Ensemble(checkpoints, info)
    _ = ensemble.inputs  # refuses members that do not agree
    return ensemble


def _of_those_that_can_be_computed(
    checkpoints: Sequence[Checkpoint], info: EnsembleInfo
) -> Ensemble:
    """Without the members whose features cannot be computed here, if there are others."""
    missing = [checkpoint.features.missing for checkpoint in checkpoints]
    kept = [i for i, reason in enumerate(missing) if not reason]
    if len(kept) == len(checkpoints) or not kept:
        return Ensemble(list(checkpoints), info)
    total = sum(info.members[i].weight for i in kept)
    members = tuple(replace(info.members[i], weight=info.members[i].weight / total) for i in kept)
    reasons = "; ".join(dict.fromkeys(reason for reason in missing if reason))
    words = f"a smaller model is used: {reasons}"
    families = {checkpoints[i].config.family for i in kept}
    if len(families) == 1 and (alone := info.models.get(families.pop())):
        small, whole = (one.test or one.held_out for one in (alone, info.models[ENSEMBLE]))
        part = in_words(TEST if alone.test else info.selected_on)
        words += (
            f". Its accuracy is {small.track_accuracy:.1%}, that of the whole model "
            f"{whole.track_accuracy:.1%} ({part})"
        )
    return Ensemble([checkpoints[i] for i in kept], replace(info, members=members), words)


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
