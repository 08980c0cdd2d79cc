"""Space of the family `discriminant`: it is solved, so nothing of it is about training by steps.

Augmentation that changes where partials lie (pitch shift), masks, and crops cost it 1 to 3 points
(results/README.md), so they are not here.
"""

from typing import Any

from optuna import Trial


def suggest(trial: Trial) -> dict[str, Any]:
    return {
        "shrinkage": trial.suggest_float("shrinkage", 0.1, 0.8),
        "temperature": trial.suggest_float("temperature", 1.0, 6.0),
        "time_stretch": trial.suggest_float("time_stretch", 0.0, 0.1),
        "tilt": trial.suggest_float("tilt", 0.0, 0.3),
        "gain": trial.suggest_float("gain", 0.0, 0.3),
    }
