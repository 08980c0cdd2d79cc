"""Parameters that the search spaces of several families share."""

from typing import Any

from optuna import Trial


def suggest_training(trial: Trial) -> dict[str, Any]:
    """Optimiser, schedule and augmentation."""
    params: dict[str, Any] = {
        "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64]),
        "optimizer": trial.suggest_categorical("optimizer", ["adam", "adamw"]),
        "schedule": trial.suggest_categorical("schedule", ["constant", "cosine"]),
        "warmup_epochs": trial.suggest_int("warmup_epochs", 0, 2),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
        "freq_mask": trial.suggest_int("freq_mask", 0, 32),
        "time_mask": trial.suggest_float("time_mask", 0.0, 0.3),
        "mixup": trial.suggest_float("mixup", 0.0, 0.5),
        "pitch_shift": trial.suggest_float("pitch_shift", 0.0, 4.0),
        "time_stretch": trial.suggest_float("time_stretch", 0.0, 0.2),
        "tilt": trial.suggest_float("tilt", 0.0, 0.5),
        "gain": trial.suggest_float("gain", 0.0, 0.5),
        "time_shift": trial.suggest_float("time_shift", 0.0, 0.5),
        "averaging": trial.suggest_categorical("averaging", [0.0, 0.99]),
        "crop": trial.suggest_float("crop", 0.3, 1.0),
        "crops": trial.suggest_int("crops", 1, 2),
    }
    if params["optimizer"] == "adamw":  # Adam's decay is an L2 penalty, and seldom helps
        params["weight_decay"] = trial.suggest_float("weight_decay", 1e-4, 1e-1, log=True)
    return params


def suggest_convolutions(trial: Trial) -> dict[str, Any]:
    """The convolution blocks that `cnn`, `gru`, `lstm` and `attention` begin with."""
    return {
        "blocks": trial.suggest_int("blocks", 3, 5),
        "channels": trial.suggest_categorical("channels", [8, 16, 24]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
    }


def suggest_recurrent(trial: Trial) -> dict[str, Any]:
    """The recurrent layer of the families `gru` and `lstm`."""
    return {
        "hidden": trial.suggest_categorical("hidden", [64, 128, 256]),
        "layers": trial.suggest_int("layers", 1, 2),
        "bidirectional": trial.suggest_categorical("bidirectional", [True, False]),
    }
