"""Optuna behind Ray Tune's interface for searchers, with each outcome told as what it was.

Ray's own `OptunaSearch` tells Optuna that a trial which ASHA stopped is complete, with its early
value, and loses the failed ones; TPE then compares two epochs with thirty. Here a stopped trial is
told as pruned with the values it reported, a failed one as failed. The study is a journal file, so
it outlives the driver and opens in optuna-dashboard.
"""

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import TrialState
from ray.tune.search import Searcher

from mgc_ray.training.loop import METRIC
from mgc_ray.tuning.records import COMPLETED, FAILED, STOPPED_EARLY
from mgc_ray.tuning.space import Suggest, default_params

_STATES = {
    COMPLETED: TrialState.COMPLETE,
    STOPPED_EARLY: TrialState.PRUNED,
    FAILED: TrialState.FAIL,
}


def outcome(result: dict[str, Any] | None, error: bool) -> str:
    """The status of a trial that has ended with this last result (None or {}: before any epoch)."""
    result = result or {}
    if error or result.get("failure"):
        return FAILED
    return COMPLETED if result.get("finished") else STOPPED_EARLY


class OptunaSearcher(Searcher):
    """Suggests trials of one or several families in turn, each family from a study of its own.

    A suggestion is `{"trial": "gru-0003", "family": "gru", "params": {...}}`. The first of each
    family is its defaults. Trials that a killed driver left running are suggested again first.
    """

    def __init__(self, journal: Path, spaces: dict[str, Suggest], seed: int) -> None:
        super().__init__(metric=METRIC, mode="max")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spaces = spaces
        self._trials: dict[str, optuna.Trial] = {}
        # without storage's own locking: one driver writes, and a lock outlives a killed one
        storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_NoLock()))
        self._studies = {
            family: _study(storage, family, suggest, seed + 1000 * i)
            for i, (family, suggest) in enumerate(spaces.items())
        }
        self._asked = sum(len(_real_trials(study)) for study in self._studies.values())
        self._unfinished = [
            (family, frozen)
            for family, study in self._studies.items()
            for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for a restore of its own, which is never used."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Parameters for Tune's trial `trial_id`."""
        if self._unfinished:
            family, frozen = self._unfinished.pop(0)
            trial = optuna.Trial(self._studies[family], frozen._trial_id)
            name = frozen.user_attrs.get("trial") or self._next_name(family)
        else:
            families = list(self._spaces)
            family = families[self._asked % len(families)]
            trial = self._studies[family].ask()
            name = self._next_name(family)
        trial.set_user_attr("trial", name)
        self._trials[trial_id] = trial
        return {"trial": name, "family": family, "params": self._spaces[family](trial)}

    def _next_name(self, family: str) -> str:
        self._asked += 1
        return f"{family}-{self._asked - 1:04d}"

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report the best value so far at this epoch."""
        if METRIC in result:
            self._trials[trial_id].report(result["best_so_far"], result["epoch"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how the trial ended."""
        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        status = outcome(result, error)
        value = None
        if status != FAILED and result and "epoch" in result:
            # Tune does not hand the result on which ASHA stops to on_trial_result
            if result["epoch"] not in _reported(trial):
                trial.report(result["best_so_far"], result["epoch"])
            value = result["best_so_far"] if status == COMPLETED else None
        if result and result.get("failure"):
            trial.set_user_attr("failure", result["failure"])
        trial.study.tell(trial, value, state=_STATES[status])

    def end_running(self) -> None:
        """Tell Optuna that the trials which the time limit cut short are pruned."""
        for trial_id in list(self._trials):
            self.on_trial_complete(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal holds all. Tune wants a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a new searcher reads the journal."""


def load_studies(journal: Path) -> dict[str, optuna.Study]:
    """The studies of a search's journal, by family."""
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_NoLock()))
    return {
        summary.study_name: optuna.load_study(study_name=summary.study_name, storage=storage)
        for summary in optuna.get_all_study_summaries(storage)
    }


def _study(storage: JournalStorage, family: str, suggest: Suggest, seed: int) -> optuna.Study:
    study = optuna.create_study(
        study_name=family, storage=storage, direction="maximize", load_if_exists=True
    )
    known = len(study.get_trials(deepcopy=False))
    # group: parameters of one branch of a conditional space are modelled together
    with warnings.catch_warnings():  # that `group` is experimental is known and accepted
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(
            seed=seed + known, multivariate=True, group=True, constant_liar=True
        )
    if not known:
        study.enqueue_trial(default_params(family, suggest))
    return study


def _real_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """All but those that wait in the queue."""
    return [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]


def _reported(trial: optuna.Trial) -> set[int]:
    return set(trial.storage.get_trial(trial._trial_id).intermediate_values)


class _NoLock(BaseJournalFileLock):
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
