"""Search space of the family `gru`."""

from typing import Any

from optuna import Trial

from search_spaces.common import suggest_convolutions, suggest_recurrent, suggest_training


def suggest(trial: Trial) -> dict[str, Any]:
    return {**suggest_convolutions(trial), **suggest_recurrent(trial), **suggest_training(trial)}
