"""What happens to a trial that cannot go on where it is: run again, or ended."""

import time
from typing import Any

import ray
from ray import tune

from mgc_ray.tuning.trial_log import TrialLog


class RetryAlone(tune.Callback):
    """Gives a trial that ran out of a shared GPU's memory a whole one when it is run again.

    It waits until one is free, at the latest until all other trials have ended.
    """

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.last_result.get("out_of_memory"):
            needs = trial.placement_group_factory.bundles[0] | {"GPU": 1.0}
            trial.update_resources(tune.PlacementGroupFactory([needs]))


class EndLate(tune.Callback):
    """Ends a trial that takes longer than `limit` seconds, whatever it is doing, as failed.

    Its process is killed, as one that hangs would not listen.
    """

    def __init__(self, limit: float, log: TrialLog) -> None:
        self._limit = limit
        self._log = log
        self._deadlines: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for a restore of its own, which is never used."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._deadlines[trial.trial_id] = time.monotonic() + self._limit

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = time.monotonic()
        for trial in trials:
            late = self._deadlines.get(trial.trial_id, now) < now
            actor = trial.temporary_state.ray_actor
            if late and actor and trial.status == "RUNNING":
                del self._deadlines[trial.trial_id]
                self._log.fail(trial, f"it took longer than --trial-timeout {self._limit:g} s")
                trial.max_failures = 0  # it would hang again
                ray.kill(actor)
