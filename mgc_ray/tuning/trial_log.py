"""Follows the trials as Tune reports them, and keeps the results folder true to that."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from ray import tune

from mgc_ray.data.storage import Exchange
from mgc_ray.training.metrics import METRIC
from mgc_ray.tuning.records import (
    FAILED,
    JOURNAL,
    STOPPED_EARLY,
    TrialRecord,
    ranked,
    write_leaderboard,
)
from mgc_ray.tuning.searcher import outcome
from mgc_ray.tuning.trainable import EXAMPLES, MACHINE, STATE, VALIDATION

_METRICS = (
    "train_loss",
    "val_loss",
    METRIC,
    "val_chunk_accuracy",
    "val_macro_f1",
    "lr",
    "epoch_seconds",
    "chunks_per_second",
    "memory_mib",
    "gradient_norm",  # of families that are trained by steps
)


class Listener(Protocol):
    """What is told of every trial: the sampler, the display and TensorBoard."""

    def on_start(self, record: TrialRecord) -> None: ...
    def on_epoch(self, record: TrialRecord) -> None: ...
    def on_end(self, record: TrialRecord) -> None: ...


class TrialLog(tune.Callback):
    """Keeps a record of each trial, writes it and the leaderboard when it ends.

    `keep` best trials keep their weights, the others' are deleted, so that disk use does not grow
    with the number of trials. `records` also holds those of an earlier, interrupted run.
    """

    def __init__(
        self,
        search: Exchange,
        keep: int,
        earlier: Sequence[TrialRecord],
        listeners: Sequence[Listener],
    ) -> None:
        self._search = search
        self._keep = keep
        self._listeners = listeners
        self._started: dict[str, float] = {}
        self.failure: OSError | None = None  # of the machine, for which the search has to end
        self.records: dict[str, TrialRecord] = {record.trial: record for record in earlier}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for a restore of its own, which is never used."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._start(trial)

    def _start(self, trial: Any) -> TrialRecord:
        name = trial.config["trial"]
        self._started[name] = time.monotonic()
        record = TrialRecord(name, trial.config["family"], dict(trial.config["params"]))
        if name in self.records:  # it runs again, and why is worth keeping
            record.reason = self.records[name].reason
        self.records[name] = record
        for listener in self._listeners:
            listener.on_start(record)
        # before the trial's own files, so that the storage has none that the journal there knows
        # nothing of: another head would give the trial's name to another one
        self._search.send(JOURNAL)
        return record

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record = self._record(trial)
        record.node = result.get("node_ip", "")
        if MACHINE in result:
            self.failure = OSError(*result[MACHINE])
            raise self.failure
        if METRIC not in result:
            record.reason = result.get("failure", "")
            if result.get("out_of_memory"):
                record.reason = "out of memory on a shared GPU: run again alone on one"
            return
        del record.curve[result["epoch"] - 1 :]  # a trial run again after its machine failed
        record.curve.append({name: result[name] for name in _METRICS if name in result})
        if result["best"]:
            record.best_epoch = result["epoch"]
        for listener in self._listeners:
            listener.on_epoch(record)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(self._record(trial), outcome(trial.last_result, error=False))
        _forget_history(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(self._record(trial), outcome(trial.last_result, error=True))
        _forget_history(trial)

    def fail(self, trial: Any, reason: str) -> None:
        """Note why a trial is about to be ended as failed."""
        self._record(trial).reason = reason

    def _record(self, trial: Any) -> TrialRecord:
        # a trial whose process never came up has not been started
        return self.records.get(trial.config["trial"]) or self._start(trial)

    def end_running(self) -> None:
        """Record as stopped early what the time limit cut short: Tune says nothing of those."""
        for name in list(self._started):
            self._end(self.records[name], STOPPED_EARLY)

    def _end(self, record: TrialRecord, status: str) -> None:
        record.status = status
        record.seconds = time.monotonic() - self._started.pop(record.trial, time.monotonic())
        if record.status == FAILED and not record.reason:
            record.reason = "its process or node died, each time it was run (of want of memory?)"
        place = f"trials/{record.trial}"
        self._search.fetch(f"{place}/checkpoint")
        for name in (EXAMPLES, VALIDATION):
            self._search.fetch(f"{place}/{name}")
        record.write(self._search.folder / place)
        self._search.delete(f"{place}/{STATE}")
        ended = [r for r in self.records.values() if r.ended]
        write_leaderboard(self._search.folder / "leaderboard.csv", ended)
        self._delete_weights(ended)
        for listener in self._listeners:
            listener.on_end(record)
        self._search.delete(f"{place}/{EXAMPLES}")  # TensorBoard has their picture
        if self._search.storage:
            for path in (self._search.folder / place).iterdir():
                if path.is_file():
                    self._search.send(f"{place}/{path.name}")
            for name in ("leaderboard.csv", JOURNAL):
                self._search.send(name)

    def _delete_weights(self, ended: Sequence[TrialRecord]) -> None:
        for record in ranked(ended)[self._keep :]:
            self._search.delete(f"trials/{record.trial}/checkpoint")


def _forget_history(trial: Any) -> None:
    """Drop the statistics that Tune keeps of each metric of each trial to the end of the search.

    Nothing reads them here, and with a thousand trials they take 50 MB of the driver.
    """
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()
