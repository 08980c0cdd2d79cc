"""Follows the trials as Tune reports them: records, weights that are kept, failures."""

import re
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import ray
from ray import tune
from ray.autoscaler.sdk import request_resources
from ray.tune.search import ConcurrencyLimiter

from mgc_ray.config import Metric
from mgc_ray.data.storage import SharedFolder
from mgc_ray.data.waiting import RunningTime
from mgc_ray.results import (
    COMPLETED,
    FAILED,
    JOURNAL,
    LEADERBOARD,
    OUT_OF_TIME,
    STOPPED_EARLY,
    TrialRecord,
    TrialResources,
    ranked,
    write_leaderboard,
)
from mgc_ray.terminal.command import console
from mgc_ray.tuning.attempts import end_attempts
from mgc_ray.tuning.cluster import cluster_now
from mgc_ray.tuning.tracking import Callback
from mgc_ray.tuning.trial import EXAMPLES, STATE, VALIDATION, TrialReport

_MOST_ASKED = 1000  # trials for which a cluster that grows is asked for nodes
_LOOK = 2.0  # seconds between two looks at the cluster's nodes
_SILENCE = 1800.0  # seconds that a trial may always take to its next report
_SLOWER = 20  # times as long as its longest epoch so far an epoch may take, where that is more
_MOST_NODES = 10  # that may die under a trial, which is not its fault unless it is each time
_FAILURES = 3  # of the same kind, before any epoch, from which on no more trials are started


P = ParamSpec("P")


class AllTrialsFailError(Exception):
    """No trial has come to an epoch, and `count` have failed for one reason: others would too."""

    def __init__(self, count: int, reason: str) -> None:
        super().__init__(reason)
        self.count, self.reason = count, reason


def trial_status(result: dict[str, Any] | None, error: bool) -> str:
    """The status of a trial that has ended with this last report (None or {}: before any)."""
    report = TrialReport.of(result or {})
    if error or report.failure:
        return FAILED
    return COMPLETED if report.finished else STOPPED_EARLY


def _ends_the_search(call: Callable[P, None]) -> Callable[P, None]:
    """Keep what a callback of the log raises, and raise it again in whatever is called next.

    Tune takes some errors of callbacks for those of a trial, and would run that again.
    """

    @wraps(call)
    def kept(*args: P.args, **options: P.kwargs) -> None:
        log: Any = args[0]
        if log.failure:
            raise log.failure
        try:
            call(*args, **options)
        except Exception as error:
            log.failure = log.failure or error
            raise

    return kept


class TrialLog(tune.Callback):
    """Keeps a record of each trial; writes it and the leaderboard when the trial ends.

    The `keep` best trials keep their weights, the others' are deleted, so that disk use does not
    grow with the number of trials. `records` also holds those of an earlier, interrupted run.
    `callbacks` hear of each trial: the sampler, the display, TensorBoard, the user's own.
    """

    def __init__(
        self,
        search: SharedFolder,
        metric: Metric,
        split_id: str,
        keep: int,
        earlier: Sequence[TrialRecord],
        callbacks: Sequence[Callback],
    ) -> None:
        self._search, self._metric, self._split_id, self._keep = search, metric, split_id, keep
        self._callbacks = callbacks
        self._started: dict[str, float] = {}
        self._earlier = {record.trial for record in earlier}
        self.failure: Exception | None = None  # for which the search has to end
        self.records: dict[str, TrialRecord] = {record.trial: record for record in earlier}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for a restore of its own, which is never used."""
        return {}

    @_ends_the_search
    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Nothing but to end the search where another of these has failed."""

    @_ends_the_search
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._start(trial)

    def _start(self, trial: Any) -> TrialRecord:
        name = trial.config["trial"]
        self._started[name] = time.monotonic()
        record = TrialRecord(
            trial=name,
            family=trial.config["family"],
            params=dict(trial.config["params"]),
            metric=self._metric,
            split_id=self._split_id,
        )
        if name in self.records:  # it runs again, and the reason is worth keeping
            record.reason = self.records[name].reason
        self.records[name] = record
        for callback in self._callbacks:
            callback.on_trial_start(record)
        # before the trial's own files, so that the storage has none that the journal there does
        # not know: another head would give the trial's name to another one
        self._search.send(JOURNAL)
        return record

    @_ends_the_search
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record, report = self._record(trial), TrialReport.of(result)
        record.node = result.get("node_ip", "")
        if report.machine_error:
            raise OSError(*report.machine_error)
        if not report.metrics:
            record.reason = report.failure
            if report.out_of_memory:
                record.reason = "out of memory on a shared GPU: run again alone on one"
            return
        del record.curve[report.epoch - 1 :]  # a trial that runs again after its machine failed
        record.curve.append(report.metrics)
        if report.best:
            record.best_epoch = report.epoch
        for callback in self._callbacks:
            callback.on_epoch(record)

    @_ends_the_search
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(self._record(trial), trial_status(trial.last_result, error=False))
        _drop_history(trial)
        self._refuse_to_fail_again()

    @_ends_the_search
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(self._record(trial), trial_status(trial.last_result, error=True))
        _drop_history(trial)
        self._refuse_to_fail_again()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Not count as the trial's failure that its node has left, or froze and counts as dead."""
        here = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        node = self._record(trial).node
        if node and node not in here and trial.max_failures < _MOST_NODES:
            trial.max_failures += 1

    def _refuse_to_fail_again(self) -> None:
        """End the search where what is wrong is in no single trial."""
        own = [r for r in self.records.values() if r.trial not in self._earlier]
        if any(record.curve for record in own):
            return
        alike: dict[str, list[str]] = {}
        for record in own:
            if record.status == FAILED:  # in whatever epoch and step
                alike.setdefault(re.sub(r"\d+", "", record.reason), []).append(record.reason)
        for reasons in alike.values():
            if len(reasons) >= _FAILURES:
                raise AllTrialsFailError(len(reasons), reasons[0])

    def fail(self, trial: Any, reason: str) -> None:
        """Note why a trial is about to be ended as failed."""
        self._record(trial).reason = reason

    def _record(self, trial: Any) -> TrialRecord:
        # a trial whose process never came up has not been started
        return self.records.get(trial.config["trial"]) or self._start(trial)

    def end_running(self) -> None:
        """Record what the time limit ended: Tune does not report those."""
        for name in list(self._started):
            self._end(self.records[name], OUT_OF_TIME)

    def _end(self, record: TrialRecord, status: str) -> None:
        record.status = status
        record.seconds = time.monotonic() - self._started.pop(record.trial, time.monotonic())
        if record.status == FAILED and not record.reason:
            record.reason = "its process or node died, each time it was run (out of memory?)"
        place = f"trials/{record.trial}"
        end_attempts(self._search, record.trial)
        self._search.fetch(f"{place}/checkpoint")
        for name in (EXAMPLES, VALIDATION):
            self._search.fetch(f"{place}/{name}")
        record.write(self._search.folder / place)
        self._send_files(record)  # before anything that says that it has ended
        self._search.delete(f"{place}/{STATE}")
        ended = [r for r in self.records.values() if r.ended]
        write_leaderboard(self._search.folder / LEADERBOARD, ended)
        self._delete_weights(ended)
        for callback in self._callbacks:
            callback.on_trial_end(record)
        self._search.delete(f"{place}/{EXAMPLES}")  # TensorBoard has their picture
        for name in (LEADERBOARD, JOURNAL):
            self._search.send(name)

    def _send_files(self, record: TrialRecord) -> None:
        place = f"trials/{record.trial}"
        if self._search.storage:
            for path in (self._search.folder / place).iterdir():
                if path.is_file():
                    self._search.send(f"{place}/{path.name}")

    def _delete_weights(self, ended: Sequence[TrialRecord]) -> None:
        for record in ranked(ended)[self._keep :]:
            self._search.delete(f"trials/{record.trial}/checkpoint")


class RetryOnWholeGpu(tune.Callback):
    """Gives a trial that ran out of a shared GPU's memory a whole one when it is run again.

    It waits until one is free, at the latest until all other trials have ended. One that is too
    large for a whole one is not run again, though an error of CUDA may have ended its process.
    """

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        report = TrialReport.of(result)
        if report.failure and report.finished:
            trial.max_failures = 0

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if TrialReport.of(trial.last_result).out_of_memory:
            needs = trial.placement_group_factory.bundles[0] | {"GPU": 1.0}
            trial.update_resources(tune.PlacementGroupFactory([needs]))


class FollowCluster(tune.Callback):
    """Lets as many trials run as fit into the cluster, whose nodes may come and go.

    A cluster that grows with its work is asked for what all trials need that could run together.
    `concurrent`: at most; `trials`: that are to be run.
    """

    def __init__(
        self,
        limiter: ConcurrencyLimiter,
        resources: TrialResources,
        concurrent: int | None,
        trials: int,
    ) -> None:
        self._limiter, self._resources, self._trials = limiter, resources, trials
        self._most = concurrent or trials
        self._asked, self._next = 0, 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for a restore of its own, which is never used."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK
        cpus, gpus = self._resources.cpus_per_trial, self._resources.gpus_per_trial
        fitting = cluster_now().trials_that_fit(cpus, gpus)
        self._limiter.max_concurrent = max(1, min(self._most, fitting))
        ended = sum(trial.is_finished() for trial in trials)
        self._ask(min(self._most, self._trials - ended))

    def _ask(self, count: int) -> None:
        count = min(count, _MOST_ASKED)
        if count != self._asked:
            needs = {"CPU": self._resources.cpus_per_trial, "GPU": self._resources.gpus_per_trial}
            request_resources(bundles=[{name: n for name, n in needs.items() if n}] * count)
            self._asked = count

    def end(self) -> None:
        """Ask for nothing any more, so that nodes without work can end."""
        self._ask(0)


class TrialWatch(tune.Callback):
    """Ends the process of a trial that hangs, whatever it is doing.

    One that takes longer than `limit` seconds in all (None: any number) has failed, as it would
    hang again. One that is silent for much longer than any of its epochs took, as on a node whose
    disk or GPU does not answer, continues in a new process from its last state. How long its first
    epoch may take nobody knows, so there only a line says so.
    """

    def __init__(self, limit: float | None, log: TrialLog) -> None:
        self._limit, self._log, self._time = limit, log, RunningTime()
        self._began: dict[str, float] = {}  # by the trial's name in Tune, as all of these
        self._heard: dict[str, float] = {}
        self._longest: dict[str, float] = {}  # epoch
        self._next_line: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for a restore of its own, which is never used."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._began[trial.trial_id] = self._heard[trial.trial_id] = self._time.now()
        self._next_line[trial.trial_id] = _SILENCE

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        name, now = trial.trial_id, self._time.now()
        if not TrialReport.of(result).repeated:
            self._longest[name] = max(self._longest.get(name, 0.0), now - self._heard[name])
        self._heard[name] = now

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = self._time.now()
        for trial in trials:
            if trial.status == "RUNNING" and trial.temporary_state.ray_actor:
                self._look_at(trial, now)

    def _look_at(self, trial: Any, now: float) -> None:
        name = trial.trial_id
        if name not in self._began:
            return
        if self._limit and now - self._began[name] > self._limit:
            trial.max_failures = 0  # it would hang again
            self._end(trial, f"it took longer than tuning.trial_timeout, {self._limit:g} s")
            return
        silent = now - self._heard[name]
        if name in self._longest and silent > max(_SILENCE, _SLOWER * self._longest[name]):
            self._end(trial, f"it reported nothing for {silent:.0f} s")
        elif silent > self._next_line[name]:
            self._next_line[name] = 2 * silent
            console.print(
                f"{trial.config['trial']} has reported nothing for {silent / 60:.0f} min: where it "
                "hangs, end the search by Ctrl-C and continue it with --resume and --set "
                "tuning.trial_timeout=SECONDS, which ends such trials",
                style="yellow",
                markup=False,
            )

    def _end(self, trial: Any, reason: str) -> None:
        del self._began[trial.trial_id]
        self._log.fail(trial, reason)
        ray.kill(trial.temporary_state.ray_actor)


def _drop_history(trial: Any) -> None:
    """Drop the statistics that Tune keeps of each metric of each trial until the search ends.

    Nothing reads them here, and with a thousand trials they take 50 MB of the driver.
    """
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()
