"""When a trial is stopped: ASHA, among the trials of one family.

Families learn at different speeds: one that is solved in a pass is at its best after one epoch, a
transformer after thirty. Compared with one another at the first rung, the slow ones would all be
stopped there, whatever they might have become.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from mgc_ray.config import TuneConfig
from mgc_ray.results import TrialRecord
from mgc_ray.task import scores_so_far


def asha(config: TuneConfig) -> ASHAScheduler:
    """ASHA in our own count of epochs, as Tune's `training_iteration` restarts with a process.

    It compares the best scores so far: a single epoch is too noisy.
    """
    return ASHAScheduler(
        time_attr="epoch",
        metric="best_so_far",
        mode="max",
        max_t=config.max_epochs,
        grace_period=min(config.grace_period, config.max_epochs),
        reduction_factor=config.reduction_factor,
    )


class AshaByFamily(FIFOScheduler):
    """ASHA for each family by itself; trials start in the order that the searcher suggests them.

    `earlier`: trials of this search that ended before it was interrupted. New ones are compared
    with them as they would have been.
    """

    def __init__(self, config: TuneConfig, earlier: Iterable[TrialRecord] = ()) -> None:
        super().__init__()
        self._config = config
        self._by_family: dict[str, ASHAScheduler] = {}
        for record in earlier:
            self._replay(record)

    def _replay(self, record: TrialRecord) -> None:
        """Tell ASHA what a trial reported; of the trial it only needs an id."""
        trial = SimpleNamespace(trial_id=record.trial, config={"family": record.family})
        self.on_trial_add(None, trial)
        scores = scores_so_far(record.curve, record.metric)
        for number, best in enumerate(scores, start=1):
            self.on_trial_result(None, trial, {"epoch": number, "best_so_far": best})
        self.on_trial_remove(None, trial)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        family = trial.config["family"]
        if family not in self._by_family:
            self._by_family[family] = asha(self._config)
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision: str = self._of(trial).on_trial_result(tune_controller, trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)

    def debug_string(self) -> str:
        return "\n".join(
            f"{family}: {asha.debug_string()}" for family, asha in self._by_family.items()
        )

    def _of(self, trial: Any) -> ASHAScheduler:
        return self._by_family[trial.config["family"]]
