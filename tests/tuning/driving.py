"""A search's driver and its trials step by step, without Ray and without training.

What they write, in which order, is the program's own: records, weights, states, the journal, and
what is sent to a storage. A trial has EPOCHS epochs; its scores are decided by its number.
"""

import csv
import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import torch
from safetensors.torch import save

from mgc_ray.config import ClusterConfig, SearchConfig
from mgc_ray.data.files import atomic_write, write_json
from mgc_ray.data.storage import SharedFolder, Storage, next_claim
from mgc_ray.pipeline.continued import fetch_search
from mgc_ray.results import (
    JOURNAL,
    LEADERBOARD,
    SEARCH,
    SearchResult,
    TrialRecord,
    load_search,
    read_records,
)
from mgc_ray.settings import Params
from mgc_ray.training.checkpoint import is_checkpoint
from mgc_ray.tuning.attempts import begin_attempt
from mgc_ray.tuning.callbacks import TrialLog
from mgc_ray.tuning.recovery import ended_trials
from mgc_ray.tuning.searcher import OptunaSearcher, forget_lost, load_studies
from mgc_ray.tuning.trial import STATE, TrialReport, _KeptState

EPOCHS, KEEP = 2, 2


def space(trial: optuna.Trial) -> Params:
    return {"dropout": trial.suggest_float("dropout", 0.0, 0.5)}


class Driver:
    """The driver of a search, from its start or its resumption on; it dies where it is dropped."""

    def __init__(self, search: SharedFolder) -> None:
        self.search = search
        (search.folder / "trials").mkdir(parents=True, exist_ok=True)
        self.earlier = ended_trials(search)
        forget_lost(search.folder / JOURNAL, self.earlier)
        for record in self.earlier:
            search.delete(f"trials/{record.trial}/{STATE}")
        self.searcher = OptunaSearcher(
            search.folder / JOURNAL, {"gru": space}, 0, earlier=self.earlier
        )
        self.log = TrialLog(search, "track_accuracy", "split", KEEP, self.earlier, [self.searcher])
        self.running: list[Trial] = []
        self.asked = 0

    def start(self) -> "Trial":
        """Start the next trial; it reports what an earlier driver heard of it."""
        self.asked += 1
        trial = Trial(self, f"tune-{self.asked}")
        self.running.append(trial)
        return trial

    @property
    def ended(self) -> set[str]:
        return {name for name, record in self.log.records.items() if record.ended}


class Trial:
    """A trial on a node: `epoch` trains, writes and reports; `end` is what the driver does then."""

    def __init__(self, driver: Driver, tune_id: str) -> None:
        self._driver = driver
        suggestion = driver.searcher.suggest(tune_id)
        self.name = suggestion["trial"]
        self._tune = SimpleNamespace(
            trial_id=tune_id,
            config=suggestion,
            last_result={},
            run_metadata=SimpleNamespace(metric_analysis={}, metric_n_steps={}),
        )
        self._run()

    def _run(self) -> None:
        """Begin in a new process, from the last state."""
        self._driver.log.on_trial_start(0, [], self._tune)
        self._attempt = begin_attempt(self._driver.search, "trials", self.name)
        self._trials = self._attempt.files
        params = self._tune.config["params"]
        self._kept = _KeptState(self._trials, f"{self.name}/{STATE}", params)
        self.resumed_at = len(self._kept.reported)
        self.epochs = 0
        for report in self._kept.reported:
            self._report(report)

    def run_again(self) -> "Trial":
        """Run again elsewhere, as its node is taken for dead; what goes on if that was frozen."""
        frozen = copy(self)
        self._run()
        return frozen

    def epoch(self) -> None:
        self._attempt.check()
        number = self.epochs + 1
        score = ((7 * int(self.name[-4:]) + number) % 10) / 10
        best = number == 1 or score > self._tune.last_result["best_so_far"]
        if best:
            folder = self._trials.folder / self.name / "checkpoint"
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "config.json", {"trial": self.name})
            with atomic_write(folder / "model.safetensors") as temporary:
                header = {"trial": self.name, "epoch": str(number)}
                temporary.write_bytes(save({"weights": torch.zeros(3)}, metadata=header))
            self._trials.send(f"{self.name}/checkpoint")
        names = ("track_accuracy", "chunk_accuracy", "macro_f1", "log_loss", "loss")
        metrics = {f"val_{name}": score for name in names}
        so_far = score if best else self._tune.last_result["best_so_far"]
        last = number == EPOCHS
        report = TrialReport(number, metrics, best, so_far, last)
        epoch = SimpleNamespace(number=number, last=last, state=_state)
        self._kept._next = 0.0  # of each epoch, however short
        self._kept.add(epoch, report)  # type: ignore[arg-type]
        self._report(report)

    def end(self) -> None:
        self._driver.running.remove(self)
        self._driver.searcher.on_trial_complete(self._tune.trial_id)
        self._driver.log.on_trial_complete(0, [], self._tune)
        self._attempt.end()

    def step(self) -> None:
        """The next thing that a trial does."""
        if self.epochs < EPOCHS:
            self.epoch()
        else:
            self.end()

    def _report(self, report: TrialReport) -> None:
        self.epochs = report.epoch
        result = {
            name: getattr(report, name) for name in ("epoch", "metrics", "best", "best_so_far")
        }
        result["finished"] = report.finished
        self._tune.last_result = result
        self._driver.searcher.on_trial_result(self._tune.trial_id, result)
        self._driver.log.on_trial_result(0, [], self._tune, result)


def _state(notes: Any) -> bytes:
    return save({"weights": torch.zeros(3)}, metadata={"progress": json.dumps({"notes": notes})})


def begin(results: Path, storage: Storage) -> SharedFolder:
    """What a driver of the search `a` does first: a new one, or one that resumes it anywhere."""
    fetch_search(storage, "a", results / "a")
    cluster = ClusterConfig(storage=storage.uri)
    config = SearchConfig(family=("gru",), results=str(results), name="a", cluster=cluster)
    resumed = (results / "a" / SEARCH).exists()
    result = SearchResult("a", config, "typed", "music", {})
    earlier = load_search(results / "a").claims if resumed else ()
    claim = next_claim(storage, "a")
    (results / "a").mkdir(parents=True, exist_ok=True)
    replace(result, claims=(*earlier, claim.name)).write()
    claim.take(over=resumed)
    search = SharedFolder(results / "a", storage, "a", claim)
    search.send(SEARCH)
    return search


def run(search: SharedFolder, trials: int) -> Driver:
    """Continue a search until so many trials have ended, two at a time."""
    driver = Driver(search)
    while len(driver.ended) < trials:
        while len(driver.running) < min(2, trials - len(driver.ended)):
            driver.start()
        driver.running[-1].step()  # so that trials do not end in their order
    for name in (LEADERBOARD, JOURNAL):  # as at the end of a search
        search.send(name)
    return driver


def check(folder: Path) -> list[TrialRecord]:
    """What must hold of a search between two drivers, or after its end; its records."""
    records = read_records(folder / "trials")
    names = [record.trial for record in records]
    assert ended_for_optuna(folder) == sorted(names)
    for record in records:
        place = folder / "trials" / record.trial
        assert record.epochs == EPOCHS
        assert not (place / STATE).exists()
        weights = place / "checkpoint"
        assert is_checkpoint(weights) or not list(weights.glob("*"))  # one was deleted
    return records


def ended_for_optuna(folder: Path) -> list[str]:
    """The names of the trials that the study knows as ended, sorted."""
    studies = load_studies(folder / JOURNAL)
    trials = [trial for study in studies.values() for trial in study.get_trials()]
    return sorted(t.user_attrs["trial"] for t in trials if t.state.is_finished())


def on_leaderboard(folder: Path) -> list[str]:
    """The names of the trials on the leaderboard, sorted."""
    with (folder / LEADERBOARD).open(newline="") as file:
        return sorted(row["trial"] for row in csv.DictReader(file))
