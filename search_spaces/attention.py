"""Search space of the family `attention`."""

from typing import Any

from optuna import Trial

from search_spaces.common import suggest_convolutions, suggest_training


def suggest(trial: Trial) -> dict[str, Any]:
    return {
        **suggest_convolutions(trial),
        "width": trial.suggest_categorical("width", [64, 96, 128, 192]),
        "heads": trial.suggest_categorical("heads", [2, 4, 8]),
        "depth": trial.suggest_int("depth", 1, 4),
        "stochastic_depth": trial.suggest_float("stochastic_depth", 0.0, 0.3),
        **suggest_training(trial),
    }
