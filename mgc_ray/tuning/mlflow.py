"""MLflow: one run per search, and within it one per trial.

The server is MLFLOW_TRACKING_URI, the experiment MLFLOW_EXPERIMENT_NAME (default: mgc_ray), as for
all programs that use MLflow. What could not be sent, because the server was away or the search
interrupted, is sent later: when the search is resumed, and at its end.
"""

import os
import time
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from mgc_ray import RequestError
from mgc_ray.results import (
    FAILED,
    LEADERBOARD,
    OUT_OF_TIME,
    REPORT,
    SearchResult,
    TrialRecord,
)
from mgc_ray.settings import as_json
from mgc_ray.tuning.tracking import Callback

_EXPERIMENT = "mgc_ray"
_FOLDER, _TRIAL = "mgc_ray.folder", "mgc_ray.trial"  # tags by which runs are found again
_PARENT = "mlflow.parentRunId"
_AT_ONCE = 100  # parameters that a request may have, and metrics
_LONGEST = 500  # characters of a parameter that old servers take
_STATUS = {FAILED: "FAILED", OUT_OF_TIME: "KILLED"}
_ENDED = ("FINISHED", "FAILED", "KILLED")


class MLflowCallback(Callback):
    """Sends a search to a tracking server of MLflow."""

    def __init__(self) -> None:
        if find_spec("mlflow") is None:
            raise RequestError('the callback mlflow needs MLflow: pip install "mgc-ray[mlflow]"')
        _check_reachable(os.environ.get("MLFLOW_TRACKING_URI", ""))
        # its addresses of runs, on standard output, which is for results
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self._search_run = ""
        self._runs: dict[str, str] = {}  # of trials
        self._sent: dict[str, int] = {}  # epochs of each
        self._ended: set[str] = set()

    def on_search_start(self, search: SearchResult) -> None:
        from mlflow import MlflowClient  # takes seconds

        self._client = MlflowClient()
        self._experiment = self._experiment_id()
        self._search_run = self._find(search) if search.resumed else ""
        if self._search_run:
            self._client.update_run(self._search_run, status="RUNNING")
            self._read_trials()
        else:
            tags = {_FOLDER: str(search.folder.resolve()), "mlflow.source.name": "mgc_ray.search"}
            tags |= {f"version.{name}": version for name, version in search.versions.items()}
            run = self._client.create_run(self._experiment, tags=tags, run_name=search.name)
            self._search_run = run.info.run_id
            self._send_params(self._search_run, dict(_flat(as_json(search.config))))
        self._send_all(search.records)

    def on_trial_start(self, trial: TrialRecord) -> None:
        earlier = self._runs.pop(trial.trial, "")
        if earlier:  # it runs again, and reports all epochs again
            self._client.delete_run(earlier)
        self._sent.pop(trial.trial, None)
        self._send(trial)

    def on_epoch(self, trial: TrialRecord) -> None:
        self._send(trial)

    def on_trial_end(self, trial: TrialRecord) -> None:
        self._send(trial)

    def on_search_end(self, search: SearchResult) -> None:
        if not self._search_run:  # the server was away at the start
            self.on_search_start(search)
        self._send_all(search.records)
        run = self._search_run
        if search.test:
            tested = _numbers(as_json(search.test))
            self._send_metrics(run, {f"test.{name}": value for name, value in tested.items()}, 0)
        if search.best:
            self._client.set_tag(run, "best_trial", search.best.trial)
        if search.failure:
            self._client.set_tag(run, "failure", search.failure)
        for name in (REPORT, LEADERBOARD):
            if (search.folder / name).exists():
                self._client.log_artifact(run, str(search.folder / name))
        self._client.set_terminated(run, "FAILED" if search.failure else "FINISHED")

    # ---- trials ----

    def _send_all(self, trials: Iterable[TrialRecord]) -> None:
        """What has not come to the server, of trials that have ended."""
        for trial in trials:
            if trial.trial not in self._ended:
                self._send(trial)

    def _send(self, trial: TrialRecord) -> None:
        """What has not come to the server, of a trial."""
        run = self._runs.get(trial.trial) or self._create(trial)
        sent = self._sent.get(trial.trial, 0)
        for number, metrics in enumerate(trial.curve[sent:], sent + 1):
            self._send_metrics(run, metrics, number)
            self._sent[trial.trial] = number
        if not trial.ended:
            return
        best = {f"best.{name}": value for name, value in trial.best.items()}
        self._send_metrics(run, best, trial.best_epoch)
        self._client.set_tag(run, "status", trial.status)
        if trial.reason:
            self._client.set_tag(run, "reason", trial.reason)
        self._client.set_terminated(run, _STATUS.get(trial.status, "FINISHED"))
        self._ended.add(trial.trial)

    def _create(self, trial: TrialRecord) -> str:
        tags = {_PARENT: self._search_run, _TRIAL: trial.trial}
        run = self._client.create_run(self._experiment, tags=tags, run_name=trial.trial)
        self._runs[trial.trial] = run_id = run.info.run_id
        self._sent[trial.trial] = 0
        self._send_params(run_id, {"family": trial.family} | trial.params)
        return str(run_id)

    # ---- requests ----

    def _experiment_id(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self._client.create_experiment(name))

    def _find(self, search: SearchResult) -> str:
        """The run of a search that is resumed, "" where there is none."""
        folder = str(search.folder.resolve()).replace("'", "\\'")
        found = self._search_runs(f"tags.`{_FOLDER}` = '{folder}'")
        return found[0].info.run_id if found else ""

    def _read_trials(self) -> None:
        """What the server has of the search's trials; of those that had not ended, nothing."""
        for run in self._search_runs(f"tags.`{_PARENT}` = '{self._search_run}'"):
            name = run.data.tags.get(_TRIAL, "")
            if run.info.status in _ENDED:
                self._runs[name] = run.info.run_id
                self._ended.add(name)
            else:
                self._client.delete_run(run.info.run_id)

    def _search_runs(self, where: str) -> list[Any]:
        """All runs, newest first."""
        runs, page = [], None
        while page != "":
            found = self._client.search_runs(
                [self._experiment], where, order_by=["start_time DESC"], page_token=page
            )
            runs += list(found)
            page = found.token or ""
        return runs

    def _send_params(self, run: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        texts = [Param(name, str(value)[:_LONGEST]) for name, value in params.items()]
        for start in range(0, len(texts), _AT_ONCE):
            self._client.log_batch(run, params=texts[start : start + _AT_ONCE])

    def _send_metrics(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        values = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        if values:
            self._client.log_batch(run, metrics=values)


def _check_reachable(server: str) -> None:
    """Refuse a server that is not there, as MLflow would try for minutes."""
    if not server.startswith(("http://", "https://")):
        return
    try:
        urlopen(f"{server.rstrip('/')}/health", timeout=10).close()
    except HTTPError:
        pass  # it is there, and may want to know who asks
    except (OSError, ValueError) as error:
        raise RequestError(
            f"MLFLOW_TRACKING_URI must be a server that can be reached, but there is none "
            f"({getattr(error, 'reason', error)}): start it, or correct the address"
        ) from None


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Settings of sections as `section.name`."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
