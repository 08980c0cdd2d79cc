"""Gather the best candidates of one or several searches into one ensemble, and test it once.

A candidate is a configuration with its trained models and its predictions for tracks that none of
the models that made them was trained on: the validation part for a trial, all of train + validation
for one that was refitted on folds (see folds.py). Selection and calibration use those alone.

    OUT/ensemble.json     see artefact.py; with weights, temperature and figures
    OUT/predictions.csv   model,part,track_id,group,genre and a probability a genre: what figures
                          are made of; `model` is ensemble, or a family: the best of it alone
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.chunks import ChunkTable, open_chunks
from mgc_ray.data.dataset import DatasetInfo, read_info
from mgc_ray.data.files import read_json, write_csv
from mgc_ray.ensembling.artefact import (
    add_figures,
    check_ensemble_place,
    load_ensemble,
    member_probs,
    save_ensemble,
)
from mgc_ray.ensembling.calibration import fit_temperature
from mgc_ray.ensembling.figures import measure
from mgc_ray.ensembling.folds import read_refitted
from mgc_ray.ensembling.selection import select
from mgc_ray.models._classifier import count_parameters
from mgc_ray.training.checkpoint import Checkpoint, load_checkpoint
from mgc_ray.training.metrics import track_probs

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Candidate:
    """A configuration that could be in the ensemble; the higher `score` is the better one.

    `models`: one checkpoint, or one a fold. `score`: validation track accuracy, then minus the
    validation loss, of the trial's best epoch. `seconds`: what training its models took.
    """

    name: str
    family: str
    models: tuple[Path, ...]
    score: tuple[float, float]
    seconds: float = 0.0


@dataclass(frozen=True)
class _Held:
    """Predictions of candidates for tracks that the models behind each were not trained on.

    `probs` [candidates, N, genres] for the chunks of `chunks`.
    """

    part: str  # validation, out_of_fold, test
    chunks: ChunkTable
    probs: np.ndarray

    def by_track(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of tracks [K] and their probabilities [K, genres] under these weights."""
        mixed = np.tensordot(weights, self.probs, 1)
        return track_probs(mixed, self.chunks.track)


def gather(
    dataset: Path, candidates: Sequence[Candidate], out: Path, top_k: int, half: bool = False
) -> dict[str, Any]:
    """Select from the `top_k` best candidates on validation tracks, save, then test once.

    Returns what is also in OUT/ensemble.json: members with weights and `validation` and `test`
    figures; `test` is None where the dataset has no test tracks. The test part is read here and
    nowhere else, after the ensemble has been saved.
    """
    if not candidates:
        raise RequestError(
            "an ensemble needs at least one trial that kept its weights, but there is none: see "
            "the reasons in leaderboard.csv and trials/*/trial.json"
        )
    chosen = sorted(candidates, key=lambda c: c.score, reverse=True)[:top_k]
    valid = open_chunks(dataset, ("valid",))
    loaded = _load(chosen, read_info(dataset), dataset)
    probs = np.stack([_in_pieces(_mean_of(models), valid) for models in loaded])
    return _finish(dataset, chosen, loaded, _Held("validation", valid, probs), out, half)


def gather_refitted(
    dataset: Path, refits: Sequence[Path], out: Path, half: bool = False
) -> dict[str, Any]:
    """The same from configurations that were refitted on folds, by their out-of-fold predictions.

    `refits`: the folders `refit` of searches over one dataset. Each configuration that is selected
    brings the models of all its folds.
    """
    refitted = []
    for refit in refits:
        prefix = f"{refit.parent.name}." if len(refits) > 1 else ""
        refitted += [
            replace(one, name=prefix + one.name) for one in read_refitted(refit) if one.complete
        ]
    if not refitted:
        raise RequestError(
            f"{refits[0]} must hold at least one configuration refitted on all folds, but has "
            "none: go on with the search by --resume"
        )
    chosen = [
        Candidate(one.name, one.family, one.folds, one.score, one.seconds) for one in refitted
    ]
    loaded = _load(chosen, read_info(dataset), dataset)
    chunks = open_chunks(dataset, ("train", "valid"), memory=0)  # no spectrogram is needed
    rows = refitted[0].rows
    probs = np.stack([one.out_of_fold(rows) for one in refitted])
    of_folds = ChunkTable(chunks.info, chunks.track[rows], chunks.split[rows], chunks.tracks)
    return _finish(dataset, chosen, loaded, _Held("out_of_fold", of_folds, probs), out, half)


def _finish(
    dataset: Path,
    candidates: Sequence[Candidate],
    loaded: Sequence[Sequence[Checkpoint]],
    held: _Held,
    out: Path,
    half: bool,
) -> dict[str, Any]:
    """Select, calibrate, save; then read the test part, for the first and only time."""
    check_ensemble_place(out)
    info = read_info(dataset)
    true = _true(held)
    weights = {ENSEMBLE: _select(held, range(len(candidates)))}
    families = list(dict.fromkeys(candidate.family for candidate in candidates))
    for family in families:
        own = [i for i, candidate in enumerate(candidates) if candidate.family == family]
        weights[family] = _select(held, own)
    temperature = fit_temperature(held.by_track(weights[ENSEMBLE])[1], true)
    members = [
        (_member_name(candidate, fold), path, float(weight) / len(candidate.models))
        for candidate, weight in zip(candidates, weights[ENSEMBLE], strict=True)
        for fold, path in enumerate(candidate.models)
        if weight > 0
    ]
    provenance = {
        "protocol": info.protocol,
        "fold": info.fold,
        "leaky": info.leaky,
        "split_seed": info.seed,
        "source": info.source_name,
        "considered": [candidate.name for candidate in candidates],
        "selected_on": held.part,
        "temperature": temperature,
        "trained_on": _all_trained_on(loaded),
    }
    save_ensemble(out, members, loaded[0][0], provenance, half)
    models = {
        name: {
            "parameters": sum(
                count_parameters(model.classifier)
                for weight, models in zip(chosen, loaded, strict=True)
                if weight > 0
                for model in models
            ),
            "seconds": sum(c.seconds for c, w in zip(candidates, chosen, strict=True) if w > 0),
            held.part: _measure(held, chosen, info, temperature if name == ENSEMBLE else 1.0),
        }
        for name, chosen in weights.items()
    }
    parts = [held]
    figures: dict[str, Any] = {"validation": models[ENSEMBLE][held.part], "test": None}
    test = open_chunks(dataset, ("test",))
    if len(test.track):
        tested = _Held(
            "test", test, np.stack([_in_pieces(_mean_of(models_), test) for models_ in loaded])
        )
        for name, chosen in weights.items():
            models[name]["test"] = _measure(
                tested, chosen, info, temperature if name == ENSEMBLE else 1.0
            )
        figures["test"] = _measure_saved(out, test)
        parts.append(tested)
    _write_predictions(out / "predictions.csv", parts, weights, info)
    figures["models"] = models
    add_figures(out, figures)
    return {
        "members": [{"name": n, "weight": w} for n, _, w in members],
        **provenance,
        **figures,
    }


def _load(
    candidates: Sequence[Candidate], info: DatasetInfo, dataset: Path
) -> list[list[Checkpoint]]:
    """The candidates' models, or RequestError where one is of another dataset."""
    loaded = [[load_checkpoint(path) for path in candidate.models] for candidate in candidates]
    for candidate, models in zip(candidates, loaded, strict=True):
        for path, model in zip(candidate.models, models, strict=True):
            if model.genres != info.genres or model.features != info.features:
                raise RequestError(
                    f"{path} was trained on other genres or features than {dataset} has: gather "
                    f"searches over one dataset (candidate {candidate.name})"
                )
    return loaded


def _select(held: _Held, among: Sequence[int]) -> np.ndarray:
    """Weights [candidates] of a selection among some of them, 0 for all others."""
    by_track = np.stack([track_probs(held.probs[i], held.chunks.track)[1] for i in among])
    weights = np.zeros(len(held.probs))
    weights[list(among)] = select(by_track, _true(held))
    return weights


def _true(held: _Held) -> np.ndarray:
    return held.chunks.track_genre[np.unique(held.chunks.track)]


def _mean_of(models: Sequence[Checkpoint]) -> Callable[[np.ndarray], np.ndarray]:
    def probs(spectrograms: np.ndarray) -> np.ndarray:
        mean: np.ndarray = np.mean([member_probs(model, spectrograms) for model in models], axis=0)
        return mean

    return probs


def _in_pieces(probs_of: Callable[[np.ndarray], np.ndarray], chunks: ChunkTable) -> np.ndarray:
    """Probabilities [N, genres] of all chunks, never more spectrograms in memory than a piece."""
    probs = np.zeros((len(chunks.track), len(chunks.info.genres)))
    for rows, spectrograms in chunks.pieces(np.arange(len(chunks.track))):
        probs[rows] = probs_of(spectrograms)
    return probs


def _measure(
    held: _Held, weights: np.ndarray, info: DatasetInfo, temperature: float
) -> dict[str, Any]:
    chunks = held.chunks
    return measure(
        np.tensordot(weights, held.probs, 1),
        chunks.track,
        chunks.track_genre,
        [track.group for track in chunks.tracks],
        info.genres,
        temperature,
    )


def _measure_saved(ensemble: Path, chunks: ChunkTable) -> dict[str, Any]:
    """Figures of the ensemble as it was saved, the way a user will load it."""
    saved = load_ensemble(ensemble)
    return measure(
        _in_pieces(saved.chunk_probs, chunks),
        chunks.track,
        chunks.track_genre,
        [track.group for track in chunks.tracks],
        chunks.info.genres,
        saved.temperature,
    )


def _write_predictions(
    path: Path, parts: Sequence[_Held], weights: dict[str, np.ndarray], info: DatasetInfo
) -> None:
    rows = []
    for name, chosen in weights.items():
        for held in parts:
            present, probs = held.by_track(chosen)
            for index, row in zip(present, probs, strict=True):
                track = held.chunks.tracks[index]
                rows.append(
                    [name, held.part, track.track_id, track.group, track.genre]
                    + [f"{share:.6f}" for share in row]
                )
    write_csv(path, ["model", "part", "track_id", "group", "genre", *info.genres], rows)


def _member_name(candidate: Candidate, fold: int) -> str:
    return candidate.name if len(candidate.models) == 1 else f"{candidate.name}-fold{fold + 1}"


def _all_trained_on(loaded: Sequence[Sequence[Checkpoint]]) -> list[dict[str, Any]]:
    """What any of the models was trained on, each once."""
    found: list[dict[str, Any]] = []
    for models in loaded:
        for one in models[0].trained_on:
            if one not in found:
                found.append(one)
    return found


def candidates_of(search: Path) -> tuple[Path, list[Candidate]]:
    """The dataset of a search's results folder, and its trials that kept their weights."""
    content = read_json(search / "search.json", "search", "name a folder that mgc_ray.search wrote")
    if not content.get("dataset"):
        raise RequestError(
            f"{search} was interrupted before it had a dataset: go on with it by python -m "
            f"mgc_ray.search --resume {search.name} --results {search.parent}"
        )
    candidates = []
    for path in sorted((search / "trials").glob("*/trial.json")):
        record = read_json(path, "trial", "delete its folder")
        checkpoint = path.parent / "checkpoint"
        if (checkpoint / "model.safetensors").exists() and record["status"] != "failed":
            best = record["curve"][record["best_epoch"] - 1]
            score = (best["val_track_accuracy"], -best["val_loss"])
            candidates.append(
                Candidate(
                    path.parent.name, record["family"], (checkpoint,), score, record["seconds"]
                )
            )
    dataset = Path(content["dataset"])
    if not dataset.exists():  # the results were moved, or this is another working folder
        dataset = search.parent / "datasets" / dataset.name
    return dataset, candidates
