"""What the journal of a search tells beside the records: when trials ended, and what mattered."""

import warnings
from pathlib import Path

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

_FEWEST = 10  # trials of a family, below which what mattered is chance


def read_journal(journal: Path) -> dict[str, list[FrozenTrial]]:
    """Each family's own trials that have ended, {} where there is no journal that can be read."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        return {
            summary.study_name: [
                trial
                for trial in optuna.load_study(
                    study_name=summary.study_name, storage=storage
                ).get_trials(deepcopy=False)
                if trial.state.is_finished() and "from" not in trial.user_attrs
            ]
            for summary in optuna.get_all_study_summaries(storage)
        }
    except (OSError, ValueError, KeyError):
        return {}


def ends(trials: dict[str, list[FrozenTrial]]) -> dict[str, float]:
    """Seconds from the first start to the end of each trial, by its name."""
    flat = [t for of_family in trials.values() for t in of_family if t.datetime_start]
    if not flat:
        return {}
    first = min(t.datetime_start for t in flat if t.datetime_start)
    return {
        t.user_attrs["trial"]: (t.datetime_complete - first).total_seconds()
        for t in flat
        if t.datetime_complete and "trial" in t.user_attrs
    }


def importances(trials: dict[str, list[FrozenTrial]]) -> dict[str, dict[str, float]]:
    """The share of each parameter in what tells the best tenth of a family's trials from the rest.

    Source: S. Watanabe, A. Bansal, F. Hutter, "PED-ANOVA", IJCAI 2023, by Optuna. A trial that was
    stopped early counts with the best it had reported. Families of few trials are left out.
    """
    found = {}
    for family, of_family in trials.items():
        judged = [t for t in of_family if t.value is not None or t.intermediate_values]
        if len(judged) < _FEWEST:
            continue
        study = optuna.create_study(direction="maximize")
        for t in judged:
            value = t.value if t.value is not None else max(t.intermediate_values.values())
            study.add_trial(
                optuna.trial.create_trial(
                    params=t.params,
                    distributions=t.distributions,
                    value=value,
                    state=TrialState.COMPLETE,
                )
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, and parameters of one value
            try:
                found[family] = get_param_importances(
                    study, evaluator=PedAnovaImportanceEvaluator()
                )
            except (ValueError, RuntimeError, ZeroDivisionError):
                continue  # all trials alike
    return {family: shares for family, shares in found.items() if any(shares.values())}
