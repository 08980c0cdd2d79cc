"""Search space of the family `transfer`: which layers are trained, from when on and how fast.

The network itself is given by `--init-from`.
"""

from typing import Any

from optuna import Trial

from search_spaces.common import suggest_training


def suggest(trial: Trial) -> dict[str, Any]:
    return {
        "freeze_epochs": trial.suggest_int("freeze_epochs", 0, 3),
        "frozen_layers": trial.suggest_int("frozen_layers", 0, 4),
        "layer_decay": trial.suggest_float("layer_decay", 0.3, 1.0),
        **suggest_training(trial),
    }
