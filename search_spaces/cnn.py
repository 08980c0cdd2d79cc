"""Search space of the family `cnn`."""

from typing import Any

from optuna import Trial

from search_spaces.common import suggest_convolutions, suggest_training


def suggest(trial: Trial) -> dict[str, Any]:
    return {
        **suggest_convolutions(trial),
        "hidden": trial.suggest_categorical("hidden", [64, 128, 256]),
        **suggest_training(trial),
    }
