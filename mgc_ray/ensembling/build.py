"""Build one ensemble of the best candidates of one or several searches, and test it once.

A candidate is a configuration with its trained models and its predictions for tracks that none of
the models behind a prediction was trained on: the validation part for a trial, all of train +
validation for one that was refitted on folds (see refit.py). Calibration and selection use these
alone; the test part is read by `test_ensemble`, after the ensemble has been saved.

Searches may have other features, chunks and even tracks. Then all this is done on the tracks that
all of their datasets have; tracks with one track_id are the same.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mgc_ray import RequestError, __version__
from mgc_ray.data.chunks import ChunkTable, open_chunks
from mgc_ray.data.dataset import DatasetInfo, read_dataset_tracks
from mgc_ray.data.tracks import Track
from mgc_ray.ensembling.calibrate import fit_temperature
from mgc_ray.ensembling.refit import Refitted
from mgc_ray.ensembling.saved import combine, load_ensemble, member_probs, save_ensemble
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
    dataset: Path
    tracks: tuple[Track, ...] = ()  # all of the dataset
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
    dataset_of_member: dict[str, int]  # which of the datasets it reads
    datasets: tuple[Path, ...]
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
    return HeldOut(VALID, chosen, chunks, probs, dataset, *_all_tracks(dataset))


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
        made_on, found = one.plan.split_id, chunks.info.split_id
        _check_split(str(one.folds[0].parent), made_on, found, str(dataset))
    candidates = tuple(
        Candidate(one.name, one.plan.family, one.folds, one.plan.score, one.seconds)
        for one in complete
    )
    rows = complete[0].rows
    of_folds = ChunkTable(chunks.info, chunks.track[rows], chunks.split[rows], chunks.tracks)
    probs = [one.out_of_fold(rows) for one in complete]
    return HeldOut(OUT_OF_FOLD, candidates, of_folds, probs, dataset, *_all_tracks(dataset))


def _all_tracks(dataset: Path) -> tuple[tuple[Track, ...], tuple[str, ...]]:
    """All tracks, and the `EnsembleInfo.known_tracks` of the training and validation parts."""
    tracks, places = read_dataset_tracks(dataset)
    rows = zip(tracks, places, strict=True)
    known = sorted(short_hash(place.content_hash) for t, place in rows if t.split != "test")
    return tuple(tracks), tuple(known)


def build_ensemble(held: Sequence[HeldOut], out: Path, half: bool = False) -> Built:
    """Calibrate the candidates, select members, calibrate the ensemble, and save it in `out`.

    `held`: one for each dataset. The same is done for each family alone, which is not saved.
    Raises RequestError where a track that one dataset tests (or validates) is in another one's
    training part, and where datasets have too few tracks in common.
    """
    check_ensemble_folder(out)
    held = sorted(held, key=lambda one: one.chunks.info.features.seconds_of_chunk)
    infos = [one.chunks.info for one in held]
    part = held[0].part
    _check_separate(held)
    tracks = _common([one.chunks for one in held])
    candidates = tuple(candidate for one in held for candidate in one.candidates)
    probs = [own for one in held for own in one.probs]
    dataset_of = [i for i, one in enumerate(held) for _ in one.candidates]
    by_track = [tracks.of(own, i) for own, i in zip(probs, dataset_of, strict=True)]
    temperatures = [fit_temperature(probs, tracks.true) for probs in by_track]
    calibrated = np.stack(
        [apply_temperature(p, t) for p, t in zip(by_track, temperatures, strict=True)]
    )
    families = dict.fromkeys(candidate.family for candidate in candidates)
    weights = {ENSEMBLE: select(calibrated, tracks.true)}
    for family in families:
        own = [i for i, candidate in enumerate(candidates) if candidate.family == family]
        weights[family] = np.zeros(len(calibrated))
        weights[family][own] = select(calibrated[own], tracks.true)
    mean = np.tensordot(weights[ENSEMBLE], calibrated, 1)
    temperature = fit_temperature(mean, tracks.true)

    members, sources, models, predictions = {}, {}, {}, []
    parameters = _parameters(candidates, weights)
    for name, chosen in weights.items():
        members[name] = tuple(
            Member(_member_name(candidate, fold), float(weight) / len(candidate.models), scale)
            for candidate, weight, scale in zip(candidates, chosen, temperatures, strict=True)
            if weight > 0
            for fold in range(len(candidate.models))
        )
        own_temperature = temperature if name == ENSEMBLE else 1.0
        whole = [
            Member(candidate.name, float(weight), scale)
            for candidate, weight, scale in zip(candidates, chosen, temperatures, strict=True)
        ]
        metrics, predicted = _evaluate(
            name, part, whole, probs, dataset_of, tracks, own_temperature
        )
        predictions.append(predicted)
        used = [c for c, weight in zip(candidates, chosen, strict=True) if weight > 0]
        models[name] = ModelResult(
            parameters=sum(parameters[c.name] for c in used),
            seconds=sum(c.seconds for c in used),
            held_out=metrics,
        )
    dataset_of_member = {}
    for candidate, i in zip(candidates, dataset_of, strict=True):
        for fold, path in enumerate(candidate.models):
            name = _member_name(candidate, fold)
            sources[name], dataset_of_member[name] = path, i
    first = infos[0]
    without_music = [info.accuracy_without_music for info in infos]
    ensemble = EnsembleInfo(
        version=__version__,
        members=members[ENSEMBLE],
        genres=first.genres,
        protocol=_joined(info.protocol for info in infos),
        leaky=any(info.leaky for info in infos),
        fold=_joined(info.fold for info in infos),
        split_seed=first.seed,
        split_id=_joint_split(infos),
        known_tracks=tuple(sorted({known for one in held for known in one.known_tracks})),
        accuracy_without_music=max((a for a in without_music if a is not None), default=None),
        warnings=tuple(dict.fromkeys(warning for info in infos for warning in info.warnings)),
        source=_joined(info.source_name for info in infos),
        temperature=temperature,
        selected_on=part,
        candidates=tuple(candidate.name for candidate in candidates),
        trained_on=_all_trained_on(candidates),
        models=models,
    )
    save_ensemble(out, ensemble, [sources[m.name] for m in ensemble.members], half)
    return Built(
        out,
        ensemble,
        members,
        sources,
        dataset_of_member,
        tuple(one.dataset for one in held),
        tuple(predictions),
    )


def _joined(values: Iterable[str]) -> str:
    """What all datasets have; of several, all."""
    return " + ".join(dict.fromkeys(value for value in values if value))


def _joint_split(infos: Sequence[DatasetInfo]) -> str:
    """The identity of the split of one dataset, or of all together."""
    own = list(dict.fromkeys(info.split_id for info in infos))
    if len(own) == 1:
        return own[0]
    return short_hash(hashlib.sha256(" ".join(own).encode()).hexdigest())


@dataclass(frozen=True)
class _CommonTracks:
    """The K tracks that a part has in all datasets: ids, groups and genre indices [K].

    `chunks`: the rows of each dataset's chunks of these tracks [n], in the order of the tracks,
    and the track of each [n], 0..K-1.
    """

    track_id: np.ndarray
    group: np.ndarray
    true: np.ndarray
    chunks: tuple[tuple[np.ndarray, np.ndarray], ...]
    genres: tuple[str, ...]

    def of(self, probs: np.ndarray, dataset: int) -> np.ndarray:
        """Probabilities [N, C] of all of a dataset's chunks -> of these tracks [K, C]."""
        rows, track = self.chunks[dataset]
        return track_probs(probs[rows], track)[1]


def _common(tables: Sequence[ChunkTable]) -> _CommonTracks:
    """RequestError where a genre has none of them, so that nothing can be selected on them."""
    first = tables[0]
    genres = first.info.genres
    if others := [table.info.genres for table in tables if table.info.genres != genres]:
        raise RequestError(
            f"searches must have the same genres, but they have {', '.join(genres)} and "
            f"{', '.join(others[0])}: combine those of the same genres"
        )
    index = [{table.tracks[i].track_id: int(i) for i in np.unique(table.track)} for table in tables]
    shared = [name for name in index[0] if all(name in one for one in index[1:])]
    at_first = np.array([index[0][name] for name in shared], np.int64)
    true = first.track_genre[at_first]
    if len(tables) > 1 and len(np.unique(true)) < len(genres):
        raise RequestError(
            f"searches on several datasets are combined by the tracks that all of them have, but "
            f"these have {len(shared)} in common, of {len(np.unique(true))} of {len(genres)} "
            "genres: give the same recordings the same track_id in the tables of all"
        )
    chunks = []
    for table, own in zip(tables, index, strict=True):
        place = np.full(len(table.tracks), -1)
        place[[own[name] for name in shared]] = np.arange(len(shared))
        track = place[table.track]
        rows = np.flatnonzero(track >= 0)
        rows = rows[np.argsort(track[rows], kind="stable")]
        chunks.append((rows, track[rows]))
    return _CommonTracks(np.array(shared), first.track_group[at_first], true, tuple(chunks), genres)


def _check_separate(held: Sequence[HeldOut]) -> None:
    """RequestError where what one dataset tests or validates, another one is trained on."""
    on_valid = held[0].part == VALID
    tested = ("test", "valid") if on_valid else ("test",)
    trained = ("train",) if on_valid else ("train", "valid")
    for own in held:
        for other in held:
            if own.chunks.info.split_id == other.chunks.info.split_id:
                continue
            of_training = [track for track in other.tracks if track.split in trained]
            ids = {track.track_id for track in of_training}
            groups = {track.group for track in of_training}
            wrong = [
                track
                for track in own.tracks
                if track.split in tested and (track.track_id in ids or track.group in groups)
            ]
            if wrong:
                raise RequestError(
                    f"{len(wrong)} tracks that {own.chunks.info.source_name} tests or validates "
                    f"(such as {wrong[0].track_id}) are in the training part of "
                    f"{other.chunks.info.source_name}, or others of their artist are: split both "
                    "alike, e.g. by a column split and --protocol given"
                )


def test_ensemble(built: Built, seed: int) -> tuple[EnsembleInfo, PredictionTable]:
    """Predict the test part, for the first and only time, and complete the saved ensemble.

    Each model is applied once; the ensemble's members are those that were saved. Where no track is
    in the test parts of all datasets there are no test metrics.
    """
    info = built.info
    tests = [open_chunks(dataset, ("test",)) for dataset in built.datasets]
    split = _joint_split([test.info for test in tests])
    _check_split(str(built.folder), info.split_id, split, " and ".join(map(str, built.datasets)))
    predictions, models = list(built.predictions), dict(info.models)
    if all(len(test.track) for test in tests):
        tracks = _common(tests)
        saved = load_ensemble(built.folder)
        classifiers = {
            member.name: checkpoint.classifier
            for member, checkpoint in zip(info.members, saved.checkpoints, strict=True)
        }
        for member in {m.name: m for own in built.members.values() for m in own}.values():
            if member.name not in classifiers:
                loaded = load_checkpoint(built.sources[member.name])
                classifiers[member.name] = loaded.classifier
        probs: dict[str, np.ndarray] = {}
        for i, test in enumerate(tests):
            own = {n: c for n, c in classifiers.items() if built.dataset_of_member[n] == i}
            probs |= dict(zip(own, _predict([*own.values()], test), strict=True))
        for name, members in built.members.items():
            temperature = info.temperature if name == ENSEMBLE else 1.0
            of_members = [probs[member.name] for member in members]
            dataset_of = [built.dataset_of_member[member.name] for member in members]
            metrics, predicted = _evaluate(
                name, TEST, members, of_members, dataset_of, tracks, temperature
            )
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
    dataset_of: Sequence[int],
    tracks: _CommonTracks,
    temperature: float,
) -> tuple[Metrics, Predictions]:
    """`probs` [N, C] of each member, for all chunks of the dataset that it reads."""
    used = [i for i, member in enumerate(members) if member.weight > 0]
    read = [dataset_of[i] for i in used]
    by_track, by_chunk = combine(
        [members[i] for i in used],
        [probs[i][tracks.chunks[dataset_of[i]][0]] for i in used],
        read,
        {i: tracks.chunks[i][1] for i in read},
    )
    by_track = apply_temperature(by_track, temperature)
    _, track = tracks.chunks[min(read)]
    right = int((by_chunk.argmax(1) == tracks.true[track]).sum())
    metrics = measure(by_track, tracks.true, tracks.group, tracks.genres, right, len(by_chunk))
    return metrics, Predictions(model, part, tracks.track_id, tracks.group, tracks.true, by_track)


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
    made_on = checkpoint.config.dataset.split_id
    _check_split(str(candidate.models[0]), made_on, info.split_id, str(dataset))


def _check_split(what: str, split_id: str, found: str, dataset: str) -> None:
    """Refuse what was made on another split: it may have seen tracks of this one's test part."""
    if split_id != found:
        raise RequestError(
            f"{what} was made on the split {split_id or 'of an older version'}, but {dataset} "
            f"holds {found}, where other tracks are tested: use the dataset that it was "
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
