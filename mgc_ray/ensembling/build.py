"""Build one ensemble of the best candidates of one or several searches, and test it once.

A candidate is a configuration with its trained models and its predictions for tracks that none of
the models behind a prediction was trained on: the validation part for a trial, all of train +
validation for one that was refitted on folds (see refit.py). Calibration and selection use these
alone; the test part is read by `test_ensemble`, after the ensemble has been saved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mgc_ray import RequestError, __version__
from mgc_ray.data.chunks import ChunkTable, open_chunks
from mgc_ray.data.dataset import DatasetInfo, read_dataset_tracks
from mgc_ray.ensembling.calibrate import fit_temperature
from mgc_ray.ensembling.refit import Refitted
from mgc_ray.ensembling.saved import (
    combine,
    load_ensemble,
    member_probs,
    save_ensemble,
)
from mgc_ray.ensembling.select import select
from mgc_ray.evaluation.metrics import apply_temperature, track_probs
from mgc_ray.models._classifier import Classifier, count_parameters
from mgc_ray.results import (
    ENSEMBLE,
    OUT_OF_FOLD,
    TEST,
    VALID,
    EnsembleInfo,
    Member,
    Metrics,
    ModelResult,
    Predictions,
    PredictionTable,
    TrainedOn,
    TrialRecord,
    check_ensemble_folder,
    short_hash,
)
from mgc_ray.task import Score, measure, score
from mgc_ray.training.checkpoint import Checkpoint, load_checkpoint


@dataclass(frozen=True)
class Candidate:
    """A configuration that could be in the ensemble; the higher `score` is the better one.

    `models`: one checkpoint, or one per fold. `seconds`: the training time of its models.
    """

    name: str
    family: str
    models: tuple[Path, ...]
    score: Score
    seconds: float = 0.0


@dataclass(frozen=True)
class HeldOut:
    """Predictions [N, genres] of each candidate for chunks that its models were not trained on."""

    part: str  # valid or out_of_fold
    candidates: tuple[Candidate, ...]
    chunks: ChunkTable
    probs: list[np.ndarray]
    known_tracks: tuple[str, ...] = ()  # see EnsembleInfo


@dataclass(frozen=True)
class Built:
    """A saved ensemble that has not been tested, and the best of each family alone.

    `members`: of each model, by name; `predictions` on what they were selected on.
    """

    folder: Path
    info: EnsembleInfo
    members: dict[str, tuple[Member, ...]]
    sources: dict[str, Path]  # checkpoint of each member
    predictions: tuple[Predictions, ...]


def candidates_of(search: Path, records: Sequence[TrialRecord]) -> list[Candidate]:
    """The trials of a search's folder that kept their weights."""
    candidates = []
    for record in sorted(records, key=lambda record: record.number):
        checkpoint = search / "trials" / record.trial / "checkpoint"
        if record.usable and (checkpoint / "model.safetensors").exists():
            value = score(record.best, record.metric)
            candidates.append(
                Candidate(record.trial, record.family, (checkpoint,), value, record.seconds)
            )
    return candidates


def validation(dataset: Path, candidates: Sequence[Candidate], top_k: int) -> HeldOut:
    """The `top_k` best candidates' predictions for the validation part."""
    if not candidates:
        raise RequestError(
            "an ensemble needs at least one trial that kept its weights, but there is none: see "
            "the reasons in leaderboard.csv and trials/*/trial.json"
        )
    chosen = tuple(sorted(candidates, key=lambda c: c.score, reverse=True)[:top_k])
    checkpoints = [load_checkpoint(candidate.models[0]) for candidate in chosen]
    chunks = open_chunks(dataset, ("valid",))
    for candidate, checkpoint in zip(chosen, checkpoints, strict=True):
        _check_same_dataset(candidate, checkpoint, chunks.info, dataset)
    probs = _predict([checkpoint.classifier for checkpoint in checkpoints], chunks)
    return HeldOut(VALID, chosen, chunks, probs, _known_tracks(dataset))


def out_of_fold(dataset: Path, refitted: Sequence[Refitted]) -> HeldOut:
    """The out-of-fold predictions of refitted configurations."""
    complete = [one for one in refitted if one.complete]
    if not complete:
        raise RequestError(
            "an ensemble of refitted configurations needs at least one that is refitted on all "
            "folds, but there is none: continue the search by --resume"
        )
    chunks = open_chunks(dataset, ("train", "valid"), memory=0)  # no features are needed
    for one in complete:
        _check_split(str(one.folds[0].parent), one.plan.split_id, chunks.info, dataset)
    candidates = tuple(
        Candidate(one.name, one.plan.family, one.folds, one.plan.score, one.seconds)
        for one in complete
    )
    rows = complete[0].rows
    of_folds = ChunkTable(chunks.info, chunks.track[rows], chunks.split[rows], chunks.tracks)
    probs = [one.out_of_fold(rows) for one in complete]
    return HeldOut(OUT_OF_FOLD, candidates, of_folds, probs, _known_tracks(dataset))


def build_ensemble(held: HeldOut, out: Path, half: bool = False) -> Built:
    """Calibrate the candidates, select members, calibrate the ensemble, and save it in `out`.

    The same is done for each family alone, which is not saved.
    """
    check_ensemble_folder(out)
    info, chunks = held.chunks.info, held.chunks
    true = chunks.track_genre[np.unique(chunks.track)]
    by_track = [track_probs(probs, chunks.track)[1] for probs in held.probs]
    temperatures = [fit_temperature(probs, true) for probs in by_track]
    calibrated = np.stack(
        [apply_temperature(p, t) for p, t in zip(by_track, temperatures, strict=True)]
    )
    families = dict.fromkeys(candidate.family for candidate in held.candidates)
    weights = {ENSEMBLE: select(calibrated, true)}
    for family in families:
        own = [i for i, candidate in enumerate(held.candidates) if candidate.family == family]
        weights[family] = np.zeros(len(calibrated))
        weights[family][own] = select(calibrated[own], true)
    mean = np.tensordot(weights[ENSEMBLE], calibrated, 1)
    temperature = fit_temperature(mean, true)

    members, sources, models, predictions = {}, {}, {}, []
    parameters = _parameters(held.candidates, weights)
    for name, chosen in weights.items():
        members[name] = tuple(
            Member(_member_name(candidate, fold), float(weight) / len(candidate.models), scale)
            for candidate, weight, scale in zip(held.candidates, chosen, temperatures, strict=True)
            if weight > 0
            for fold in range(len(candidate.models))
        )
        own_temperature = temperature if name == ENSEMBLE else 1.0
        whole = [
            Member(candidate.name, float(weight), scale)
            for candidate, weight, scale in zip(held.candidates, chosen, temperatures, strict=True)
        ]
        metrics, predicted = _evaluate(name, held.part, whole, held.probs, chunks, own_temperature)
        predictions.append(predicted)
        used = [c for c, weight in zip(held.candidates, chosen, strict=True) if weight > 0]
        models[name] = ModelResult(
            parameters=sum(parameters[c.name] for c in used),
            seconds=sum(c.seconds for c in used),
            held_out=metrics,
        )
    for candidate in held.candidates:
        for fold, path in enumerate(candidate.models):
            sources[_member_name(candidate, fold)] = path
    ensemble = EnsembleInfo(
        version=__version__,
        members=members[ENSEMBLE],
        genres=info.genres,
        protocol=info.protocol,
        leaky=info.leaky,
        fold=info.fold,
        split_seed=info.seed,
        split_id=info.split_id,
        known_tracks=held.known_tracks,
        accuracy_without_music=info.accuracy_without_music,
        warnings=info.warnings,
        source=info.source_name,
        temperature=temperature,
        selected_on=held.part,
        candidates=tuple(candidate.name for candidate in held.candidates),
        trained_on=_all_trained_on(held.candidates),
        models=models,
    )
    save_ensemble(out, ensemble, [sources[m.name] for m in ensemble.members], half)
    return Built(out, ensemble, members, sources, tuple(predictions))


def _known_tracks(dataset: Path) -> tuple[str, ...]:
    """The tracks of the training and validation parts, see `EnsembleInfo.known_tracks`."""
    rows = zip(*read_dataset_tracks(dataset), strict=True)
    return tuple(sorted(short_hash(p.content_hash) for t, p in rows if t.split != "test"))


def test_ensemble(built: Built, dataset: Path, seed: int) -> tuple[EnsembleInfo, PredictionTable]:
    """Predict the test part, for the first and only time, and complete the saved ensemble.

    Each model is applied once; the ensemble's members are those that were saved. Where the dataset
    has no test part there are no test metrics.
    """
    info = built.info
    test = open_chunks(dataset, ("test",))
    _check_split(str(built.folder), info.split_id, test.info, dataset)
    predictions, models = list(built.predictions), dict(info.models)
    if len(test.track):
        saved = load_ensemble(built.folder)
        classifiers = {
            member.name: checkpoint.classifier
            for member, checkpoint in zip(info.members, saved.checkpoints, strict=True)
        }
        for member in {m.name: m for own in built.members.values() for m in own}.values():
            if member.name not in classifiers:
                loaded = load_checkpoint(built.sources[member.name])
                classifiers[member.name] = loaded.classifier
        probs = dict(zip(classifiers, _predict([*classifiers.values()], test), strict=True))
        for name, members in built.members.items():
            temperature = info.temperature if name == ENSEMBLE else 1.0
            own = [probs[member.name] for member in members]
            metrics, predicted = _evaluate(name, TEST, members, own, test, temperature)
            models[name] = replace(models[name], test=metrics)
            predictions.append(predicted)
    tested = replace(info, models=models)
    tested.write(built.folder)
    table = PredictionTable(
        info.genres, seed, info.split_seed, info.fold, info.split_id, tuple(predictions)
    )
    return tested, table


def _evaluate(
    model: str,
    part: str,
    members: Sequence[Member],
    probs: Sequence[np.ndarray],
    chunks: ChunkTable,
    temperature: float,
) -> tuple[Metrics, Predictions]:
    present, by_track, by_chunk = combine(members, probs, chunks.track)
    by_track = apply_temperature(by_track, temperature)
    true, group = chunks.track_genre[present], chunks.track_group[present]
    right = int((by_chunk.argmax(1) == chunks.genre).sum())
    metrics = measure(by_track, true, group, chunks.info.genres, right, len(by_chunk))
    track_id = np.array([chunks.tracks[i].track_id for i in present])
    return metrics, Predictions(model, part, track_id, group, true, by_track)


def _predict(classifiers: Sequence[Classifier], chunks: ChunkTable) -> list[np.ndarray]:
    """Each one's probabilities [N, genres] of all chunks, a piece at a time."""
    shape = (len(chunks.track), len(chunks.info.genres))
    probs = [np.zeros(shape) for _ in classifiers]
    for rows, features in chunks.pieces(np.arange(shape[0])):
        for all_of_one, piece in zip(probs, member_probs(classifiers, features), strict=True):
            all_of_one[rows] = piece
    return probs


def _check_same_dataset(
    candidate: Candidate, checkpoint: Checkpoint, info: DatasetInfo, dataset: Path
) -> None:
    columns = info.features.columns
    reads = checkpoint.features.columns
    if checkpoint.genres != info.genres or any(columns.get(n) != f for n, f in reads.items()):
        raise RequestError(
            f"{candidate.models[0]} was trained on other genres or features than {dataset} has: "
            f"combine searches over one dataset (candidate {candidate.name})"
        )
    _check_split(str(candidate.models[0]), checkpoint.config.dataset.split_id, info, dataset)


def _check_split(what: str, split_id: str, info: DatasetInfo, dataset: Path) -> None:
    """Refuse what was made on another split: it may have seen tracks of this one's test part."""
    if split_id != info.split_id:
        raise RequestError(
            f"{what} was made on the split {split_id or 'of an older version'}, but {dataset} "
            f"holds {info.split_id}, where other tracks are tested: use the dataset that it was "
            "made on, or search again"
        )


def _parameters(candidates: Sequence[Candidate], weights: dict[str, np.ndarray]) -> dict[str, int]:
    """How many parameters the models of each selected candidate have, by its name."""
    used = np.sum(list(weights.values()), axis=0) > 0
    return {
        candidate.name: count_parameters(load_checkpoint(candidate.models[0]).classifier)
        * len(candidate.models)
        for candidate, is_used in zip(candidates, used, strict=True)
        if is_used
    }


def _member_name(candidate: Candidate, fold: int) -> str:
    return candidate.name if len(candidate.models) == 1 else f"{candidate.name}-fold{fold + 1}"


def _all_trained_on(candidates: Sequence[Candidate]) -> tuple[TrainedOn, ...]:
    """What any of the models was trained on, each once."""
    every: dict[TrainedOn, None] = {}
    for candidate in candidates:
        for one in load_checkpoint(candidate.models[0]).config.trained_on:
            every[one] = None
    return tuple(every)
