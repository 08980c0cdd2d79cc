"""What a search's Optuna journal adds to its records: times, ranges and importances of settings."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

_FEWEST = 10  # trials of a family, below which importances are chance


def read_journal(journal: Path) -> dict[str, list[FrozenTrial]]:
    """Each family's own trials that did not fail; {} where there is no journal that can be read."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        return {
            family: _own_trials(optuna.load_study(study_name=family, storage=storage))
            for family in optuna.get_all_study_names(storage)
        }
    except Exception:  # whatever Optuna makes of lines that are not its own
        return {}


def _own_trials(study: optuna.Study) -> list[FrozenTrial]:
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=ended)
    return [trial for trial in trials if "trial" in trial.user_attrs]  # not of an earlier search


def end_times(trials: Iterable[FrozenTrial]) -> dict[str, float]:
    """Seconds from the start of the first trial to the end of each, by its name."""
    times = {
        trial.user_attrs["trial"]: (trial.datetime_start, trial.datetime_complete)
        for trial in trials
        if trial.datetime_start and trial.datetime_complete
    }
    first = min((start for start, _ in times.values()), default=None)
    return {name: (end - first).total_seconds() for name, (_, end) in times.items() if first}


def importances(trials: Iterable[FrozenTrial]) -> dict[str, float]:
    """The share of each setting in what distinguishes the best tenth of the trials from the rest.

    A trial that was stopped early counts with the best score that it had reported. {} for few
    trials. Source: S. Watanabe, A. Bansal, F. Hutter, "PED-ANOVA", IJCAI 2023.
    """
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        scores = [
            *trial.intermediate_values.values(),
            *([] if trial.value is None else [trial.value]),
        ]
        if scores:
            study.add_trial(
                optuna.trial.create_trial(
                    params=trial.params, distributions=trial.distributions, value=max(scores)
                )
            )
    if len(study.get_trials(deepcopy=False)) < _FEWEST:
        return {}
    # here, as it loads scikit-learn, which takes seconds
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and parameters of one value
        try:
            shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        except (ValueError, RuntimeError, ZeroDivisionError):  # all trials alike
            return {}
    return shares if any(shares.values()) else {}
