"""Search space of the family `linear`, whose weights are solved for instead of trained.

Which embeddings and which groups of their outputs a trial reads is chosen beside it.
"""

from typing import Any

from optuna import Trial


def suggest(trial: Trial) -> dict[str, Any]:
    params: dict[str, Any] = {
        "solver": trial.suggest_categorical("solver", ["logistic", "discriminant"]),
        "pooling": trial.suggest_categorical(
            "pooling", ["mean", "mean+max", "mean+deviation", "quantiles"]
        ),
        "transform": trial.suggest_categorical("transform", ["standardise", "normal"]),
        "components": trial.suggest_categorical("components", [0, 50, 100, 200, 400]),
    }
    if params["solver"] == "logistic":
        params["l2"] = trial.suggest_float("l2", 1e-3, 1.0, log=True)
        params["balance"] = trial.suggest_float("balance", 0.0, 1.0)
    else:
        params["shrinkage"] = trial.suggest_float("shrinkage", 0.05, 0.95)
        params["temperature"] = trial.suggest_float("temperature", 1.0, 6.0, log=True)
    return params
