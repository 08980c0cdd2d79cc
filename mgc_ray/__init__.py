"""mgc_ray: distributed hyperparameter search for music genre classification.

Every file in this folder is a command (`python -m mgc_ray.NAME`), except

    config.py    every setting, once         settings.py  how settings are declared and checked
    results.py   what a search leaves behind task.py      what labels mean: loss, metrics, score

and every folder a part of the program: data (music -> dataset), models (one file per family),
training (plain PyTorch), tuning (Ray Tune and Optuna), ensembling (best trials -> one tested
ensemble), evaluation (metrics, intervals, comparisons), pipeline (whole jobs), reporting (a search
as a page), serving (an ensemble behind HTTP), corpus (the built-in music), terminal (what commands
share).

As a library: `run_search` is the main job, `load_search` reads its results, `load_ensemble` gives
what predicts; `evaluate`, `compare` and `similar` are the commands of these names.
`register_family` and `register_feature` make a file of your own known, as `--family` and
`--features` do. `Callback` is what hears of a search as it runs.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgc_ray.compare import compare as compare
    from mgc_ray.config import ClusterConfig as ClusterConfig
    from mgc_ray.config import DatasetConfig as DatasetConfig
    from mgc_ray.config import EnsembleConfig as EnsembleConfig
    from mgc_ray.config import SearchConfig as SearchConfig
    from mgc_ray.config import TuneConfig as TuneConfig
    from mgc_ray.data.features import register_feature as register_feature
    from mgc_ray.ensembling.saved import load_ensemble as load_ensemble
    from mgc_ray.ensembling.saved import shipped_model as shipped_model
    from mgc_ray.evaluate import evaluate as evaluate
    from mgc_ray.models import register_family as register_family
    from mgc_ray.results import load_search as load_search
    from mgc_ray.search import run_search as run_search
    from mgc_ray.similar import similar as similar
    from mgc_ray.tuning.tracking import Callback as Callback

__version__ = "0.1.0"


def _leave_current_folder() -> None:
    """Take no more modules from the current folder, where `python -m` looks first.

    That is often a folder of music from somebody else, which may hold a soundfile.py. It stays
    where this program is in it, and where PYTHONPATH names it.
    """
    here = os.path.realpath(os.getcwd())
    named = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    if here not in map(os.path.realpath, [os.path.dirname(__path__[0]), *named]):
        sys.path[:] = [place for place in sys.path if os.path.realpath(place) != here]


if sys.argv[:1] == ["-m"]:  # `python -m mgc_ray.NAME` is about to run; not an import by others
    _leave_current_folder()


class RequestError(ValueError):
    """What was asked for cannot be done; the message states rule, value and remedy.

    Commands print it as one line and end with status 2: it is never a fault of the program.
    """


_LIBRARY = {
    "run_search": "mgc_ray.search",
    "evaluate": "mgc_ray.evaluate",
    "compare": "mgc_ray.compare",
    "similar": "mgc_ray.similar",
    "load_search": "mgc_ray.results",
    "load_ensemble": "mgc_ray.ensembling.saved",
    "shipped_model": "mgc_ray.ensembling.saved",
    "Callback": "mgc_ray.tuning.tracking",
    "register_family": "mgc_ray.models",
    "register_feature": "mgc_ray.data.features",
    "SearchConfig": "mgc_ray.config",
    "DatasetConfig": "mgc_ray.config",
    "TuneConfig": "mgc_ray.config",
    "EnsembleConfig": "mgc_ray.config",
    "ClusterConfig": "mgc_ray.config",
}


def __getattr__(name: str) -> Any:
    """The library's functions, imported when they are used: PyTorch takes seconds."""
    if name not in _LIBRARY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LIBRARY[name]), name)


def __dir__() -> list[str]:
    """With what `__getattr__` knows, for completion in a shell."""
    return sorted({*globals(), *_LIBRARY})


class _Package(ModuleType):
    """Keeps `mgc_ray.compare` the function, where Python would make it the module of this name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _LIBRARY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
