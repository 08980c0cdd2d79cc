"""Gather the best trials of one or several searches into one ensemble, and test it once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.chunks import ChunkTable, open_chunks
from mgc_ray.data.dataset import read_info
from mgc_ray.data.files import read_json
from mgc_ray.ensembling.artefact import (
    add_figures,
    check_ensemble_place,
    load_ensemble,
    member_probs,
    save_ensemble,
)
from mgc_ray.ensembling.figures import measure
from mgc_ray.ensembling.selection import select
from mgc_ray.training.checkpoint import load_checkpoint
from mgc_ray.training.metrics import track_probs


@dataclass(frozen=True)
class Candidate:
    """A trial that could be a member; the higher `score` is the better one.

    `score`: validation track accuracy, then minus the validation loss, of its best epoch.
    """

    name: str
    checkpoint: Path
    score: tuple[float, float]


def gather(dataset: Path, candidates: Sequence[Candidate], out: Path, top_k: int) -> dict[str, Any]:
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
    check_ensemble_place(out)
    info = read_info(dataset)
    chosen = sorted(candidates, key=lambda c: c.score, reverse=True)[:top_k]
    valid = open_chunks(dataset, ("valid",))
    checkpoints = [load_checkpoint(candidate.checkpoint) for candidate in chosen]
    for candidate, checkpoint in zip(chosen, checkpoints, strict=True):
        if checkpoint.genres != info.genres or checkpoint.features != info.features:
            raise RequestError(
                f"{candidate.checkpoint} was trained on other genres or features than {dataset} "
                "has: gather searches over one dataset"
            )
    by_track = [
        track_probs(_in_pieces(partial(member_probs, checkpoint), valid), valid.track)
        for checkpoint in checkpoints
    ]
    weights = select(np.stack([probs for _, probs in by_track]), valid.track_genre[by_track[0][0]])
    members = [
        (candidate.name, candidate.checkpoint, float(weight))
        for candidate, weight in zip(chosen, weights, strict=True)
        if weight > 0
    ]
    provenance = {
        "protocol": info.protocol,
        "leaky": info.leaky,
        "split_seed": info.seed,
        "source": info.source,
        "considered": [candidate.name for candidate in chosen],
    }
    save_ensemble(out, members, checkpoints[0], provenance)
    figures = {"validation": _measure(out, valid), "test": None}
    test = open_chunks(dataset, ("test",))
    if len(test.track):
        figures["test"] = _measure(out, test)
    add_figures(out, figures)
    return {
        "members": [{"name": n, "weight": w} for n, _, w in members],
        **provenance,
        **figures,
    }


def _in_pieces(probs_of: Callable[[np.ndarray], np.ndarray], chunks: ChunkTable) -> np.ndarray:
    """Probabilities [N, genres] of all chunks, never more spectrograms in memory than a piece."""
    return np.concatenate([probs_of(x) for _, x in chunks.pieces(np.arange(len(chunks.track)))])


def _measure(ensemble: Path, chunks: ChunkTable) -> dict[str, Any]:
    """Figures of the ensemble as it was saved, the way a user will load it."""
    probs = _in_pieces(load_ensemble(ensemble).chunk_probs, chunks)
    return measure(
        probs,
        chunks.track,
        chunks.track_genre,
        [track.group for track in chunks.tracks],
        chunks.info.genres,
    )


def candidates_of(search: Path) -> tuple[Path, list[Candidate]]:
    """The dataset of a search's results folder, and its trials that kept their weights."""
    content = read_json(search / "search.json", "search", "name a folder that mgc_ray.search wrote")
    candidates = []
    for path in sorted((search / "trials").glob("*/trial.json")):
        record = read_json(path, "trial", "delete its folder")
        checkpoint = path.parent / "checkpoint"
        if (checkpoint / "model.safetensors").exists() and record["status"] != "failed":
            best = record["curve"][record["best_epoch"] - 1]
            score = (best["val_track_accuracy"], -best["val_loss"])
            candidates.append(Candidate(path.parent.name, checkpoint, score))
    dataset = Path(content["dataset"])
    if not dataset.exists():  # the results were moved, or this is another working folder
        dataset = search.parent / "datasets" / dataset.name
    return dataset, candidates
