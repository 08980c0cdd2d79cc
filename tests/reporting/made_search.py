"""A search's folder written from typed results, without running a search."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mgc_ray.config import DatasetConfig, SearchConfig
from mgc_ray.results import (
    ENSEMBLE,
    PREDICTIONS,
    TEST,
    VALID,
    EnsembleInfo,
    Member,
    ModelResult,
    Predictions,
    PredictionTable,
    SearchResult,
    TrainedOn,
    TrialRecord,
    TrialResources,
    write_predictions,
)
from mgc_ray.task import measure

GENRES = ("blues", "rock")


def record(number: int, accuracies: Sequence[float], **changes: object) -> TrialRecord:
    """A trial of the family gru with these validation track accuracies, one per epoch."""
    best = int(np.argmax(accuracies)) + 1 if accuracies else 0
    curve = [
        {
            "val_track_accuracy": accuracy,
            "val_chunk_accuracy": accuracy,
            "val_macro_f1": accuracy,
            "val_log_loss": 1 - accuracy,
            "val_loss": 1.0,
        }
        for accuracy in accuracies
    ]
    made = TrialRecord(
        f"gru-{number:04d}",
        "gru",
        {"lr": 0.01},
        status="completed",
        seconds=1800,
        best_epoch=best,
        curve=curve,
    )
    return replace(made, **changes)


def write_search(
    folder: Path,
    predictions: Sequence[tuple[str, str, int, float]],
    records: Sequence[TrialRecord],
    **changes: object,
) -> SearchResult:
    """A finished search of the family gru; `changes` to its SearchResult.

    `predictions`, on the test part: (track_id, group, index of the true genre in GENRES,
    probability of rock).
    """
    track_id, group = (np.array(column) for column in list(zip(*predictions, strict=True))[:2])
    true = np.array([row[2] for row in predictions])
    rock = np.array([row[3] for row in predictions])
    probs = np.stack([1 - rock, rock], axis=1)
    chunks_right = int((probs.argmax(1) == true).sum())
    metrics = measure(probs, true, group, GENRES, chunks_right, len(true))
    models = (ENSEMBLE, "gru")
    ensemble = EnsembleInfo(
        version="0",
        members=(Member("gru-0000", 1.0),),
        genres=GENRES,
        protocol="grouped",
        leaky=False,
        fold="",
        split_seed=0,
        source="music",
        temperature=1.0,
        selected_on=VALID,
        candidates=("gru-0000",),
        trained_on=(TrainedOn("music", "grouped", "genres"),),
        models={name: ModelResult(1000, 3600, metrics, metrics) for name in models},
    )
    result = SearchResult(
        name=folder.name,
        config=SearchConfig(
            family=("gru",),
            name=folder.name,
            results=str(folder.parent),
            dataset=DatasetConfig(tracks="music"),
        ),
        command="python -m mgc_ray.search --family gru --tracks music",
        tracks="music",
        versions={"mgc_ray": "0"},
        finished=True,
        protocol="grouped",
        resources=TrialResources(cpus_per_trial=2, gpus_per_trial=0.5, concurrent=1),
        ensemble=ensemble,
        seconds=120,
    )
    folder.mkdir(parents=True)
    result = replace(result, **changes).write()
    for one in records:
        one.write(folder / "trials" / one.trial)
    predicted = tuple(
        Predictions(name, part, track_id, group, true, probs)
        for name in models
        for part in (VALID, TEST)
    )
    write_predictions(folder / PREDICTIONS, PredictionTable(GENRES, 0, 0, "", "", predicted))
    return result
