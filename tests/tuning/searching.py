"""Searches of seconds: spaces of small networks, and how tests run one."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from mgc_ray.data.chunks import Chunks
from mgc_ray.data.storage import Exchange
from mgc_ray.tuning import run
from mgc_ray.tuning.records import TrialRecord
from mgc_ray.tuning.run import run_trials
from mgc_ray.tuning.settings import TuneSettings


def small_space(trial: optuna.Trial) -> dict[str, Any]:
    """A network of no size, so that a trial is a matter of milliseconds."""
    trial.suggest_float("dropout", 0.0, 0.6)
    return {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8, "dropout": 0.1}


def with_hopeless_ones(trial: optuna.Trial) -> dict[str, Any]:
    lr = trial.suggest_categorical("lr", [1e-3, 1e-2, 1e-9])
    return small_space(trial) | {"lr": lr}


def with_diverging_ones(trial: optuna.Trial) -> dict[str, Any]:
    lr = trial.suggest_categorical("lr", [1e-3, 1e30])
    return small_space(trial) | {"lr": lr, "warmup_epochs": 0}


def search(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    resources: dict[str, float],
    space: Any,
    chunks: Chunks,
    families: tuple[str, ...] = ("gru",),
    **settings: Any,
) -> list[TrialRecord]:
    monkeypatch.setattr(run, "load_space", lambda family: space)
    return run_trials(Exchange(folder, None), families, chunks, TuneSettings(**settings), resources)
