"""Searches of seconds: spaces of small networks, and how tests run one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from mgc_ray.config import SearchConfig, TuneConfig
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.storage import SharedFolder
from mgc_ray.results import TrialRecord, read_records
from mgc_ray.settings import Params
from mgc_ray.tuning.cluster import Cluster
from mgc_ray.tuning.run import run_trials
from mgc_ray.tuning.space import Suggest


def small_space(trial: optuna.Trial) -> Params:
    """A tiny network, so that a trial takes milliseconds."""
    dropout = trial.suggest_float("dropout", 0.0, 0.6)
    return {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8, "dropout": dropout}


def with_useless_rates(trial: optuna.Trial) -> Params:
    """With a learning rate among others at which nothing is learnt."""
    lr = trial.suggest_categorical("lr", [1e-3, 1e-2, 1e-9])
    return small_space(trial) | {"lr": lr}


def with_diverging_rates(trial: optuna.Trial) -> Params:
    """With a learning rate at which the loss is NaN after a few steps."""
    lr = trial.suggest_categorical("lr", [1e-3, 1e30])
    return small_space(trial) | {"lr": lr, "warmup_epochs": 0}


def search(
    folder: Path,
    cluster: Cluster,
    space: Suggest,
    chunks: ChunkTable,
    families: Sequence[str] = ("gru",),
    seed: int = 0,
    **settings: Any,
) -> list[TrialRecord]:
    """Run a search in a folder, or continue the one that is there, as pipeline/search.py does."""
    tuning = TuneConfig(**settings)
    return run_trials(
        SharedFolder(folder, None),
        SearchConfig(family=tuple(families), seed=seed, tuning=tuning),
        dict.fromkeys(families, space),
        chunks,
        cluster.share(tuning),
        read_records(folder / "trials"),
    )
