"""Search space of the family `statistics`."""

from typing import Any

from optuna import Trial

from search_spaces.common import suggest_training


def suggest(trial: Trial) -> dict[str, Any]:
    return {
        "hidden": trial.suggest_categorical("hidden", [64, 128, 256, 512]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.8),
        "noise": trial.suggest_float("noise", 0.0, 1.0),
        **suggest_training(trial),
    }
