"""Search space of the family `discriminant`, whose weights are solved for instead of trained.

So it has no settings of training by steps. Augmentation that would change the statistics themselves
is left out, too: pitch shift by up to 2 bands costs 3 points (results/README.md), and crops and
masks are left out for the same reason.
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
