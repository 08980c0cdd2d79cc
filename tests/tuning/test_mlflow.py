"""A search as a real tracking server of MLflow has it.

Needs the package mlflow, whose server cannot be installed beside this program's pyarrow: install it
with `--no-deps`, or put a folder that has it into PYTHONPATH.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from mgc_ray import RequestError
from mgc_ray.config import SearchConfig
from mgc_ray.results import (
    COMPLETED,
    FAILED,
    LEADERBOARD,
    OUT_OF_TIME,
    REPORT,
    STOPPED_EARLY,
    SearchResult,
    TrialRecord,
)
from mgc_ray.tuning.mlflow import MLflowCallback, _check_reachable
from mgc_ray.tuning.tracking import apart, load_callbacks

HAS_CLIENT = find_spec("mlflow") is not None
HAS_SERVER = HAS_CLIENT and all(map(find_spec, ("mlflow.server", "flask", "alembic")))
needs_server = pytest.mark.skipif(not HAS_SERVER, reason="mlflow's server is not installed")
EXPERIMENT = "mgc_ray"


class Server:
    """MLflow's own server on this machine, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                    *("--host", "127.0.0.1", "--port", str(self._port)),
                    *("--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"),
                    *("--artifacts-destination", str(self._folder / "artifacts")),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError):
                urlopen(f"{self.address}/health", timeout=5).close()
                return
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.2)

    def stop(self) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("mlflow"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from mlflow import MlflowClient

    return MlflowClient(server.address)


def curve(*accuracies: float) -> list[dict[str, float]]:
    names = ("track_accuracy", "chunk_accuracy", "macro_f1", "log_loss")
    return [{f"val_{name}": one for name in names} | {"val_loss": 1 - one} for one in accuracies]


def record(number: int, status: str, *accuracies: float, reason: str = "") -> TrialRecord:
    best = accuracies.index(max(accuracies)) + 1 if accuracies else 0
    params = {"lr": 0.001 * (number + 1), "bidirectional": True}
    name = f"gru-{number:04d}"
    return TrialRecord(
        name, "gru", params, status=status, reason=reason, best_epoch=best, curve=curve(*accuracies)
    )


def search_in(folder: Path, *records: TrialRecord, resumed: bool = False) -> SearchResult:
    """A search with these trials, as its folder has them."""
    config = SearchConfig(family=("gru",), name="own", results=str(folder))
    (folder / "own").mkdir(exist_ok=True)
    for one in records:
        one.write(folder / "own/trials" / one.trial)
    return SearchResult("own", config, "typed", "music", {"torch": "2"}, resumed=resumed)


def run_of(client: Any, search: SearchResult) -> Any:
    """The newest run of a search, with those of its trials by name in `trials`."""
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    folder = f"tags.`mgc_ray.folder` = '{search.folder.resolve()}'"
    (run, *_) = client.search_runs([experiment], folder, order_by=["start_time DESC"])
    within = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    trials = list(client.search_runs([experiment], within))
    by_name = {one.info.run_name: one for one in trials}
    assert len(by_name) == len(trials)
    return run, by_name


def points(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    """Step and value of each point of a metric."""
    found = client.get_metric_history(run.info.run_id, name)
    return sorted((one.step, one.value) for one in found)


@needs_server
@pytest.mark.slow  # the server takes a minute to start on a busy machine
def test_a_search_is_a_run_and_its_trials_are_runs_within(
    client: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search, running = search_in(tmp_path), record(0, "running")
    with apart(load_callbacks(["mlflow"])) as (callback,):
        callback.on_search_start(search)
        callback.on_trial_start(running)
        for epoch in curve(0.5, 0.75, 0.25):
            running.curve.append(epoch)
            callback.on_epoch(running)
        running.best_epoch, running.status = 2, COMPLETED
        callback.on_trial_end(running)
        others = [
            record(1, STOPPED_EARLY, 0.5),
            record(2, FAILED, reason="the loss is nan"),
            record(3, OUT_OF_TIME, 0.25),
        ]
        for one in others:
            callback.on_trial_start(replace(one, status="running", curve=[], reason=""))
            callback.on_trial_end(one)
        for name in (REPORT, LEADERBOARD):
            (search.folder / name).write_text(f"the {name}")
        finished = replace(search, finished=True).with_trials([running, *others])
        callback.on_search_end(finished)
    printed = capsys.readouterr()
    assert ("WARNING" in printed.err, printed.out) == (False, "")
    run, trials = run_of(client, search)
    assert (run.info.run_name, run.info.status) == ("own", "FINISHED")
    assert run.data.params["tuning.trials"] == "20"
    assert run.data.params["family"] == "['gru']"
    assert run.data.tags["best_trial"] == "gru-0000"
    assert run.data.tags["version.torch"] == "2"
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {REPORT, LEADERBOARD}
    assert {name: one.info.status for name, one in trials.items()} == {
        "gru-0000": "FINISHED",
        "gru-0001": "FINISHED",
        "gru-0002": "FAILED",
        "gru-0003": "KILLED",
    }
    first = trials["gru-0000"]
    assert first.data.params == {"family": "gru", "lr": "0.001", "bidirectional": "True"}
    accuracies = [(1, 0.5), (2, 0.75), (3, 0.25)]
    assert points(client, first, "val_track_accuracy") == accuracies
    assert points(client, first, "best.val_track_accuracy") == [(2, 0.75)]
    assert trials["gru-0001"].data.tags["status"] == STOPPED_EARLY
    assert trials["gru-0002"].data.tags["reason"] == "the loss is nan"


@needs_server
@pytest.mark.slow  # the server takes a minute to start on a busy machine
def test_a_search_that_is_resumed_continues_its_run(client: Any, tmp_path: Path) -> None:
    ended, unsent = record(0, COMPLETED, 0.5, 0.75), record(2, STOPPED_EARLY, 0.25)
    callback = MLflowCallback()
    callback.on_search_start(search_in(tmp_path))
    callback.on_trial_start(replace(ended, status="running", curve=[]))
    callback.on_trial_end(ended)
    callback.on_trial_start(record(1, "running"))
    callback.on_epoch(record(1, "running", 0.5))
    first, _ = run_of(client, search_in(tmp_path))

    # the driver was killed after it had written `unsent`, and before that was sent
    search = search_in(tmp_path, ended, unsent, resumed=True)
    again = MLflowCallback()
    again.on_search_start(search)
    again.on_trial_start(record(1, "running"))
    again.on_epoch(record(1, "running", 0.5))
    again.on_epoch(record(1, "running", 0.5, 0.625))
    last = record(1, COMPLETED, 0.5, 0.625)
    again.on_trial_end(last)
    again.on_search_end(replace(search, finished=True).with_trials([ended, last, unsent]))

    run, trials = run_of(client, search)
    assert run.info.run_id == first.info.run_id
    assert {one.info.status for one in (run, *trials.values())} == {"FINISHED"}
    assert sorted(trials) == ["gru-0000", "gru-0001", "gru-0002"]
    for name, expected in (
        ("gru-0000", [(1, 0.5), (2, 0.75)]),
        ("gru-0001", [(1, 0.5), (2, 0.625)]),
        ("gru-0002", [(1, 0.25)]),
    ):
        assert points(client, trials[name], "val_track_accuracy") == expected

    # another search of the same name, after the first was deleted, is another run
    MLflowCallback().on_search_start(search_in(tmp_path))
    newest, _ = run_of(client, search)
    assert newest.info.run_id != first.info.run_id


@needs_server
@pytest.mark.slow  # the server takes a minute to start on a busy machine
def test_what_happens_while_the_server_is_away_is_sent_later(
    server: Server, client: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search, one = search_in(tmp_path), record(0, "running")
    first, second = record(0, COMPLETED, 0.5, 0.75, 0.25), record(1, COMPLETED, 0.5)
    with apart(load_callbacks(["mlflow"])) as (callback,):
        callback.on_search_start(search)
        callback.on_trial_start(one)
        callback.on_epoch(replace(one, curve=first.curve[:1]))
        deadline = time.monotonic() + 60
        while not callback._heard.empty():  # type: ignore[attr-defined]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(2)
        server.stop()
        callback.on_epoch(replace(one, curve=first.curve[:2]))
        callback.on_trial_end(first)
        callback.on_trial_start(record(1, "running"))
        callback.on_trial_end(second)
        while not callback._heard.empty():  # type: ignore[attr-defined]
            time.sleep(0.1)
        server.start()
        callback.on_search_end(replace(search, finished=True).with_trials([first, second]))
    printed = capsys.readouterr().err
    assert printed.count("WARNING: the callback mlflow failed in on_epoch (") == 1
    assert printed.count("WARNING") == 1
    run, trials = run_of(client, search)
    assert {one.info.status for one in (run, *trials.values())} == {"FINISHED"}
    assert points(client, trials["gru-0000"], "val_loss") == [(1, 0.5), (2, 0.25), (3, 0.75)]
    assert points(client, trials["gru-0001"], "val_loss") == [(1, 0.5)]


@needs_server
@pytest.mark.slow  # the server takes a minute to start on a busy machine
def test_a_search_that_failed_is_a_failed_run(client: Any, tmp_path: Path) -> None:
    search, failed = search_in(tmp_path), record(0, FAILED, reason="no such file")
    callback = MLflowCallback()
    callback.on_search_start(search)
    callback.on_search_end(replace(search, failure="no such file").with_trials([failed]))
    run, trials = run_of(client, search)
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "no such file")
    assert trials["gru-0000"].info.status == "FAILED"


@pytest.mark.skipif(HAS_CLIENT, reason="mlflow is installed")
def test_without_mlflow_it_is_refused_with_what_to_install() -> None:
    with pytest.raises(RequestError, match=r'needs MLflow: pip install "mgc-ray\[mlflow\]"'):
        load_callbacks(["mlflow"])


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://no.such.machine.invalid"])
def test_a_server_that_is_not_there_is_refused_at_once(address: str) -> None:
    started = time.monotonic()
    with pytest.raises(RequestError, match="MLFLOW_TRACKING_URI must be a server that can be"):
        _check_reachable(address)
    assert time.monotonic() - started < 20
    _check_reachable("sqlite:///mlflow.db")  # nothing to reach
