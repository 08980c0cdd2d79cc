"""Space of the family `discriminant`: it is solved, so nothing of it is about training by steps."""

from typing import Any

from optuna import Trial


def suggest(trial: Trial) -> dict[str, Any]:
    return {
        "shrinkage": trial.suggest_float("shrinkage", 0.05, 0.8, log=True),
        "temperature": trial.suggest_float("temperature", 1.0, 6.0),
        "pitch_shift": trial.suggest_float("pitch_shift", 0.0, 2.0),
        "time_stretch": trial.suggest_float("time_stretch", 0.0, 0.2),
        "tilt": trial.suggest_float("tilt", 0.0, 0.5),
        "gain": trial.suggest_float("gain", 0.0, 0.5),
        "crop": trial.suggest_float("crop", 0.5, 1.0),
        "crops": trial.suggest_int("crops", 1, 2),
    }
