"""mgc_ray: distributed hyperparameter search for music genre classification.

Every file in this folder is a command (`python -m mgc_ray.NAME`), every folder is a room:
data (music -> dataset), models (one file a family), training (plain PyTorch), tuning (Ray Tune and
Optuna), ensembling (best trials -> one tested ensemble), reporting (a search as a page), jobs (a
dataset, a search from end to end), serving (an ensemble behind HTTP), terminal (what commands
share).

As a library: `run_search` is the main job, `load_ensemble` what predicts.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgc_ray.ensembling.artefact import load_ensemble as load_ensemble
    from mgc_ray.ensembling.artefact import shipped_model as shipped_model
    from mgc_ray.search import run_search as run_search

__version__ = "0.1.0"


class RequestError(ValueError):
    """What was asked for cannot be done; the message states rule, value and remedy.

    Commands print it as one line and end with status 2: it never is a fault of the program.
    """


_LIBRARY = {
    "run_search": "mgc_ray.search",
    "load_ensemble": "mgc_ray.ensembling.artefact",
    "shipped_model": "mgc_ray.ensembling.artefact",
}


def __getattr__(name: str) -> Any:
    """The functions for library use, loaded when they are asked for: PyTorch takes seconds."""
    if name not in _LIBRARY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LIBRARY[name]), name)
