"""Models and searches with predictions that are written down, for comparisons by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mgc_ray.config import SearchConfig
from mgc_ray.evaluation.intervals import Evaluated
from mgc_ray.evaluation.rows import ModelRun, Row, RowKey, rows_of
from mgc_ray.results import (
    PREDICTIONS,
    TEST,
    VALID,
    EnsembleInfo,
    Member,
    Metrics,
    ModelResult,
    Predictions,
    PredictionTable,
    SearchResult,
    TrainedOn,
    write_predictions,
)
from mgc_ray.settings import Params, validated
from mgc_ray.task import measure

GENRES = ("blues", "disco", "rock")
ARTISTS = "abcdefgh"  # two tracks each, both of one genre
OWN = TrainedOn("somewhere/music.csv", "grouped", "genres")
KEY = RowKey(
    model="gru",
    families=("gru",),
    protocol="grouped",
    leaky=False,
    folds=None,
    refitted=False,
    trained_on=(),
    part="test",
    tracks="music",
    settings=(),
)


def evaluated(*groups: str, first: str = "a") -> Evaluated:
    """Tracks of the groups a, b, ...: `110` is a group of three, of which two are right."""
    right = np.array([int(digit) for group in groups for digit in group])
    names = [chr(ord(first) + i) for i, group in enumerate(groups) for _ in group]
    ids = [f"{name}{i}" for i, name in enumerate(names)]
    true = np.arange(len(right)) % 3
    predicted = np.where(right == 1, true, (true + 1) % 3)
    return Evaluated(
        np.array(ids), np.array(names), true, predicted, float(right.mean()), len(right)
    )


def model_run(tracks: Evaluated, seed: int = 0, fold: int | None = None, **key: object) -> ModelRun:
    """A model of a search, which is named by its seed and fold."""
    return ModelRun(
        search=f"s{seed}" + (f"f{fold}" if fold else ""),
        key=replace(KEY, **key),  # type: ignore[arg-type]
        seed=seed,
        split_seed=0,
        fold=fold,
        parameters=100 * (seed + 1),
        seconds=10.0,
        evaluated=tracks,
    )


def row(*runs: Evaluated, seed: int = 0) -> Row:
    """One row of runs with seeds from `seed` on."""
    (made,) = rows_of([model_run(one, seed + i) for i, one in enumerate(runs)], 3)
    return made


def right(share: int, seed: int = 0, tracks: int = 16) -> str:
    """`share` of the tracks right, each seed other ones."""
    return "".join("1" if (i * 5 + seed * 3) % tracks < share else "0" for i in range(tracks))


def write_search(
    folder: Path,
    models: dict[str, str],
    seed: int = 0,
    part: str = TEST,
    artists: str = ARTISTS,
    genres: Sequence[str] = GENRES,
    fold: str = "",
    config: Params | None = None,
    **ensemble: Any,
) -> Path:
    """A finished search's folder as mgc_ray.search leaves it, but for trials and weights.

    `models`: which tracks each model has right, `1101...`, two per artist. `config`: settings that
    are not at their defaults. `ensemble`: fields of EnsembleInfo.
    """
    families = [name for name in models if name != "ensemble"]
    tracks = [(f"{artist}{i}", artist) for artist in artists for i in (0, 1)]
    track_id, group = (np.array(column) for column in zip(*tracks, strict=True))
    true = np.array([ARTISTS.index(artist) % len(genres) for artist in group])
    predictions, results = [], {}
    for name, digits in models.items():
        assert len(tracks) == len(digits)
        is_right = np.array([digit == "1" for digit in digits])
        predicted = np.where(is_right, true, (true + 1) % len(genres))
        probs = np.full((len(true), len(genres)), 0.1)
        probs[np.arange(len(true)), predicted] = 1 - 0.1 * (len(genres) - 1)
        predictions.append(Predictions(name, part, track_id, group, true, probs))
        # ten chunks of each track; half of those of a track that is right are right
        metrics = measure(probs, true, group, genres, 5 * int(is_right.sum()), 10 * len(true))
        results[name] = _result(metrics, part)
    settings = validated(
        SearchConfig,
        {
            "family": families,
            "name": folder.name,
            "results": str(folder.parent),
            "seed": seed,
            "dataset": {"tracks": "music.csv", "fold": fold},
            # where and how fast it ran makes no other row
            "tuning": {"trials": 24, "concurrent": seed + 1},
        }
        | (config or {}),
    )
    fields: dict[str, Any] = {
        "version": "0",
        "members": (Member("gru-0000", 1.0),),
        "genres": tuple(genres),
        "protocol": "cross-validation" if fold else "grouped",
        "leaky": False,
        "fold": fold,
        "split_seed": 0,
        "source": OWN.source,
        "temperature": 1.0,
        "selected_on": VALID if part == TEST else part,
        "candidates": (),
        "trained_on": (OWN,),
        "models": results,
    }
    info = EnsembleInfo(**(fields | ensemble))
    folder.mkdir(parents=True)
    table = PredictionTable(
        info.genres, seed, info.split_seed, info.fold, info.split_id, tuple(predictions)
    )
    write_predictions(folder / PREDICTIONS, table)
    SearchResult(
        name=folder.name,
        config=settings,
        command="",
        tracks="music.csv",
        versions={},
        finished=True,
        dataset="datasets/music",
        ensemble=info,
    ).write()
    return folder


def _result(metrics: Metrics, part: str) -> ModelResult:
    test = metrics if part == TEST else None
    return ModelResult(parameters=1_234_567, seconds=61.4, held_out=metrics, test=test)


def five_seeds(folder: Path) -> list[Path]:
    return [
        write_search(
            folder / f"s{seed}",
            {"ensemble": right(12 + seed % 2, seed), "gru": right(9, seed), "cnn": right(8, seed)},
            seed,
        )
        for seed in range(5)
    ]
