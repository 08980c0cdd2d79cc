"""A search that is killed again and again and resumed, and what must hold all the way."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from mgc_ray.results import load_search, read_records
from mgc_ray.tuning.searcher import load_studies
from tests.pipeline.making import without_other_clusters

Moment = float | Callable[[Path], bool]  # seconds after the start, or what the folder then shows


def killed_search(folder: Path, *options: str) -> None:
    """Search in `folder` until a trial has ended, then kill the driver."""
    search = subprocess.Popen(
        [sys.executable, "-m", "mgc_ray.search", *options],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=without_other_clusters(),
    )
    deadline = time.monotonic() + 200
    while not list(folder.glob("results/*/trials/*/trial.json")):
        assert search.poll() is None, search.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    search.send_signal(signal.SIGKILL)
    search.communicate()


class KilledSearch:
    """`python -m mgc_ray.search OPTIONS --name killed` in FOLDER, killed at given moments.

    `ended`: trials that had ended when the driver was killed, with the time of their record, which
    must never change; `running`: how many states of running trials each kill left behind.
    """

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self._folder = folder
        self._options = [*options, "--name", "killed"]
        self.search = folder / "results" / "killed"
        self.kills: list[float] = []
        self.ended: dict[str, int] = {}
        self.running: list[int] = []
        self.output = ""

    def run(self, moments: Sequence[Moment]) -> None:
        """Kill the driver at each of the moments, then let the search finish."""
        for moment in moments:
            if self._start(moment):
                return
            self._note_what_is_there()
        assert self._start(None)

    def check(self, trials: int) -> None:
        """What must hold of the finished search, whenever it was killed."""
        with (self.search / "leaderboard.csv").open() as file:
            rows = [row["trial"] for row in csv.DictReader(file)]
        numbers = sorted(int(row.rsplit("-", 1)[1]) for row in rows)
        assert len(rows) == len(set(numbers)) == trials, rows
        self._note_what_is_there()  # no finished trial was run again
        assert set(self.ended) == set(rows)
        known_to_optuna = Counter(
            trial.user_attrs["trial"]
            for study in load_studies(self.search / "study.journal").values()
            for trial in study.get_trials()
            if trial.state.is_finished()
        )
        assert known_to_optuna == Counter(rows)
        for record in read_records(self.search / "trials"):
            assert 1 <= record.best_epoch <= record.epochs
            assert record.ended
        assert not list(self.search.rglob("state.safetensors"))
        assert not list(self._folder.rglob(".*.tmp"))
        result = load_search(self.search)
        assert result.finished
        assert result.test
        assert (self.search / "ensemble" / "ensemble.json").exists()
        assert result.predictions.of("ensemble", "test")

    def _start(self, moment: Moment | None) -> bool:
        """Start or resume the search; whether it finished before the moment."""
        resumes = (self.search / "search.json").exists()
        options = ["--resume", "killed"] if resumes else self._options
        output = self._folder / "output.txt"
        started = time.monotonic()
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "mgc_ray.search", *options],
                cwd=self._folder,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        while process.poll() is None and not self._has_come(moment, time.monotonic() - started):
            time.sleep(0.002)
        finished = process.poll() is not None
        if not finished:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.kills.append(time.monotonic() - started)
        self.output = output.read_text()
        if finished and process.returncode:
            raise AssertionError(f"exit status {process.returncode}:\n{self.output[-3000:]}")
        return finished

    def _has_come(self, moment: Moment | None, seconds: float) -> bool:
        assert seconds < 900, "the search hangs"
        if moment is None:
            return False
        return moment(self.search) if callable(moment) else seconds > moment

    def _note_what_is_there(self) -> None:
        for path in self.search.glob("trials/*/trial.json"):
            changed = path.stat().st_mtime_ns
            assert self.ended.setdefault(path.parent.name, changed) == changed, path
        self.running.append(len(list(self.search.rglob("state.safetensors"))))
