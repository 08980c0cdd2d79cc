"""A family's search space: found, checked, and its defaults as a first trial."""

import importlib
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any, cast

import optuna

from mgc_ray import RequestError
from mgc_ray.data.features import FeatureSet
from mgc_ray.models import config_fields, configure, family_module, full_params, train_fields
from mgc_ray.settings import Params

Suggest = Callable[[optuna.Trial], Params]

_FEW = 4  # groups of an embedding of which all subsets are tried; of more, each alone
_SAMPLES = 30  # random samples that a space is checked with; a conditional branch is seldom rarer


def load_space(family: str) -> Suggest:
    """`suggest` of search_spaces/FAMILY.py, or of a family outside the package its own; checked.

    Raises RequestError for a space that suggests what is no setting, or gives an invalid sample.
    """
    own: Suggest | None = getattr(family_module(family), "suggest", None)
    if own is not None:
        check_space(family, own)
        return own
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # its error follows, with the line
            module = importlib.import_module(f"search_spaces.{family}")
    except ModuleNotFoundError as error:
        if error.name not in ("search_spaces", f"search_spaces.{family}"):
            raise _wrong_space(family, "cannot be imported", error) from None
        raise RequestError(
            f"family {family!r} needs a search space: search_spaces/{family}.py with "
            "suggest(trial) -> dict is missing, and its own file has none"
        ) from None
    except Exception as error:  # whatever its author wrote
        raise _wrong_space(family, "cannot be imported", error) from None
    suggest: Suggest | None = getattr(module, "suggest", None)
    if not callable(suggest):
        raise RequestError(f"search_spaces/{family}.py must have a function suggest(trial) -> dict")
    check_space(family, suggest)
    return suggest


def with_features(
    suggest: Suggest, features: FeatureSet, second_kinds: Sequence[str] = ()
) -> Suggest:
    """The space, and which of the features that the family can read a trial reads.

    All of them; of spectrograms the first with any of the others, or one alone; of embeddings any,
    or some groups of the outputs of one. Each of these also with embeddings as a second input,
    where the family takes some: with any of them, or one layer of one that has many.
    """
    second = [name for name, f in features.columns.items() if f.kind in second_kinds]
    first = features.only([name for name in features.columns if name not in second])
    choices = [
        *_spectrograms([n for n, f in first.columns.items() if f.kind == "spectrogram"]),
        *_embeddings(_groups(first)),
    ]
    besides = _second_inputs(_groups(features.only(second)))
    choices += [f"{one}+{beside}" for one in choices for beside in besides]
    everything = "+".join(features.columns)
    choices = ["all", *(choice for choice in choices if choice != everything)]
    if len(choices) < 2:
        return suggest

    def suggest_with_features(trial: optuna.Trial) -> Params:
        params = {**suggest(trial), "features": trial.suggest_categorical("features", choices)}
        names = {part.partition("[")[0] for part in params["features"].split("+")}
        if second and names & {"all", *second}:
            params["embedding_dropout"] = trial.suggest_float("embedding_dropout", 0.0, 0.8)
        return params

    return suggest_with_features


def _groups(features: FeatureSet) -> dict[str, list[str]]:
    """The groups of outputs of each embedding."""
    return {n: [*f.groups] for n, f in features.columns.items() if hasattr(f, "groups")}


def _spectrograms(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    first, *others = names
    return ["+".join((first, *subset)) for subset in _subsets(others)] + others


def _second_inputs(groups: dict[str, list[str]]) -> list[str]:
    many = {name: own for name, own in groups.items() if len(own) > _FEW}
    return _together(groups) + [f"{name}[{group}]" for name, own in many.items() for group in own]


def _together(names: Iterable[str]) -> list[str]:
    return ["+".join(subset) for subset in _subsets(list(names)) if subset]


def _embeddings(groups: dict[str, list[str]]) -> list[str]:
    alone = []
    for name, own in groups.items():
        some = _subsets(own) if len(own) <= _FEW else [(group,) for group in own]
        alone += [f"{name}[{','.join(one)}]" for one in some if 0 < len(one) < len(own)]
    return _together(groups) + alone


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The smallest first."""
    return [subset for n in range(len(names) + 1) for subset in combinations(names, n)]


def with_fixed(suggest: Suggest, fixed: Params) -> Suggest:
    """The space with some settings fixed: they are not suggested, and branches depend on them."""
    if not fixed:
        return suggest

    def suggest_others(trial: optuna.Trial) -> Params:
        return suggest(cast(optuna.Trial, _TrialWithFixed(trial, fixed))) | fixed

    return suggest_others


class _TrialWithFixed:
    """A trial that gives fixed values without asking the sampler."""

    def __init__(self, trial: optuna.Trial, fixed: Params) -> None:
        self._trial, self._fixed = trial, fixed

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._trial, name)
        if not name.startswith("suggest_"):
            return method

        def suggest(parameter: str, *args: Any, **kwargs: Any) -> Any:
            if parameter in self._fixed:
                return self._fixed[parameter]
            return method(parameter, *args, **kwargs)

        return suggest


def check_space(family: str, suggest: Suggest) -> None:
    """Raise RequestError where a space suggests what is no setting or gives an invalid sample."""
    known = config_fields(family) | train_fields()
    study = _quiet_study(optuna.samplers.RandomSampler(seed=0))
    for _ in range(_SAMPLES):
        trial = study.ask()
        try:
            params = suggest(trial)
        except Exception as error:  # whatever its author wrote
            raise _wrong_space(family, "failed in suggest(trial)", error) from None
        if not isinstance(params, dict) or not all(isinstance(name, str) for name in params):
            raise RequestError(
                f"{_file_of(family)}: suggest(trial) must return a dict by names of "
                f"settings, but it returned {params!r:.100}"
            )
        unknown = sorted((set(params) | set(trial.params)) - known)
        if unknown:
            raise RequestError(
                f"{_file_of(family)} suggests {', '.join(unknown)}, which is no field of "
                f"{family}'s Config ({', '.join(sorted(config_fields(family)))}) or of "
                f"TrainConfig ({', '.join(sorted(train_fields()))})"
            )
        configure(family, params)


def _wrong_space(family: str, what: str, error: Exception) -> RequestError:
    """With the line of the file where it occurred."""
    name = _file_of(family)
    steps = traceback.extract_tb(error.__traceback__)
    lines = [step.lineno for step in steps if step.filename.endswith(name)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    where = f"{name}, line {line}," if line else name
    return RequestError(f"{where} {what}: {type(error).__name__}: {error}")


def _file_of(family: str) -> str:
    """Where a family's space is."""
    module = family_module(family)
    return str(module.__file__) if hasattr(module, "suggest") else f"search_spaces/{family}.py"


def parameter_types(suggest: Suggest) -> dict[str, type]:
    """Every name that a space suggests in any of its branches, with the type of its values."""
    study = _quiet_study(optuna.samplers.RandomSampler(seed=0))
    types: dict[str, type] = {}
    for _ in range(_SAMPLES):
        types |= {name: type(value) for name, value in suggest(study.ask()).items()}
    return types


def params_within(family: str, suggest: Suggest, params: Params) -> optuna.trial.FixedTrial | None:
    """What a space would have suggested for these parameters, the rest at their defaults.

    None where the space cannot give them. `.params` and `.distributions` are what it suggested.
    """
    trial = optuna.trial.FixedTrial(full_params(family, params))
    try:
        with warnings.catch_warnings():  # optuna warns of a fixed value out of range
            warnings.simplefilter("error")
            suggest(trial)  # type: ignore[arg-type]  # FixedTrial has the same methods
    except (ValueError, UserWarning):
        return None
    return trial


def default_params(family: str, suggest: Suggest) -> Params:
    """The family's defaults for exactly the names that the space suggests.

    Raises RequestError where a default is outside the space: it could not be the first trial.
    """
    trial = optuna.trial.FixedTrial(full_params(family, {}))
    try:
        with warnings.catch_warnings():  # optuna warns of a fixed value out of range
            warnings.simplefilter("error")
            suggest(trial)  # type: ignore[arg-type]  # FixedTrial has the same methods
    except (ValueError, UserWarning) as error:
        raise RequestError(
            f"{_file_of(family)} must contain the family's defaults, as the first trial "
            f"runs them, but: {error} (where that is because of a --set, --set this one too)"
        ) from None
    return dict(trial.params)


def _quiet_study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=sampler)
