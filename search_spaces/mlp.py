"""Search space of the family `mlp`; nothing of augmentation but mixup fits embeddings."""

from typing import Any

from optuna import Trial


def suggest(trial: Trial) -> dict[str, Any]:
    return {
        "hidden": trial.suggest_categorical("hidden", [64, 128, 256, 512]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.8),
        "noise": trial.suggest_float("noise", 0.0, 1.0),
        "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128]),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
        "mixup": trial.suggest_float("mixup", 0.0, 1.0),
        "averaging": trial.suggest_categorical("averaging", [0.0, 0.99]),
    }
