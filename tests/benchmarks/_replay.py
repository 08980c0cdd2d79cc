"""A table of real curves and a simulated cluster on which searches of it are replayed.

Nothing is trained. The searchers and schedulers are the real ones and are called in the order in
which Tune's controller calls them; only the clock, the workers and the trials are stand-ins.
"""

import csv
import heapq
import itertools
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from mgc_ray.config import TrainConfig
from mgc_ray.results import COMPLETED, STOPPED_EARLY, TrialRecord
from mgc_ray.settings import Params
from mgc_ray.tuning.searcher import OptunaSearcher

ACCURACY = "val_track_accuracy"
MAX_EPOCHS = 27
PATIENCE = TrainConfig().patience
_COST = ("batch_size", "blocks", "channels")  # what an epoch's seconds depend on
_TOP = 5  # trials whose expected accuracy is looked at: an ensemble has about so many
_TIE = 1e-4  # times the loss: far less than one track is worth


@dataclass(frozen=True)
class Row:
    """One configuration: what its training reports, epoch by epoch."""

    number: int
    seconds: float  # per epoch
    results: list[dict[str, Any]]
    expected: float  # see Table


class Table:
    """The stored curves.

    A row's best accuracy is partly luck, and a search picks the luckiest. So each row also has an
    `expected` accuracy that its own luck has no part in: what the other rows predict for it, by a
    linear model of all parameters and their pairs, fitted without that row.
    """

    def __init__(self, path: Path, grid: dict[str, list[Any]]) -> None:
        self._scales = {name: (min(values), max(values)) for name, values in grid.items()}
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        params = [{name: float(row[name]) for name in grid} for row in rows]
        self._points = np.array([self._point(p) for p in params])
        # the machine was not always quiet: the median of all rows with the same cost
        costs = [tuple(p[name] for name in _COST) for p in params]
        seconds = defaultdict(list)
        for cost, row in zip(costs, rows, strict=True):
            seconds[cost].append(float(row["seconds_an_epoch"]))
        results = [_results(row) for row in rows]
        self.accuracies = np.array([r[-1]["best_so_far"] for r in results])
        levels = [[grid[name].index(p[name]) for name in grid] for p in params]
        self.expected, self.explained = _left_out(np.array(levels), self.accuracies)
        self._rows = [
            Row(i, float(np.median(seconds[cost])), *rest)
            for i, (cost, *rest) in enumerate(zip(costs, results, self.expected, strict=True))
        ]
        self.best = float(self.accuracies.max())

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, params: dict[str, Any], used: set[int]) -> Row:
        """The nearest row that is not used up."""
        far = ((self._points - self._point(params)) ** 2).sum(1)
        far[list(used)] = np.inf
        return self._rows[int(far.argmin())]

    def _point(self, params: dict[str, Any]) -> list[float]:
        """Between 0 and 1 in every direction."""
        point = []
        for name, ends in self._scales.items():
            scale = np.log if name == "lr" else float
            low, high, value = (scale(x) for x in (*ends, params[name]))
            point.append(float((value - low) / (high - low)))
        return point


def _results(row: dict[str, str]) -> list[dict[str, Any]]:
    """What training would report: it ends at the table's last epoch or when patience runs out."""
    accuracy, chunks, loss = (
        [float(value) for value in row[name].split()]
        for name in (ACCURACY, "val_chunk_accuracy", "val_loss")
    )
    results: list[dict[str, Any]] = []
    best, waited = (-1.0, 0.0), 0
    for i, score in enumerate(zip(accuracy, [-value for value in loss], strict=True)):
        waited = 0 if score > best else waited + 1
        is_best, best = score > best, max(score, best)
        finished = waited >= PATIENCE or i + 1 == len(accuracy)
        metrics = {
            ACCURACY: accuracy[i],
            "val_chunk_accuracy": chunks[i],
            "val_loss": loss[i],
            "best_so_far": best[0],
            "best_with_loss": best[0] + _TIE * best[1],  # a tie goes to the lower loss
            "best_chunks": max(chunks[: i + 1]),
            "least_loss": -min(loss[: i + 1]),
        }
        # the program's searcher reads a TrialReport, the others the metrics themselves
        report = {"epoch": i + 1, "metrics": metrics, "best": is_best, "finished": finished}
        results.append(report | metrics | {"training_iteration": i + 1})
        if finished:
            break
    return results


def _left_out(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Each row's prediction by a linear model of single levels and pairs of them, fitted to all
    other rows, and the share of the variance that these predictions explain.
    """
    levels = [keys[:, i, None] == np.arange(1, keys[:, i].max() + 1) for i in range(keys.shape[1])]
    pairs = [
        (a[:, :, None] & b[:, None, :]).reshape(len(keys), -1)
        for a, b in itertools.combinations(levels, 2)
    ]
    x = np.concatenate([np.ones((len(keys), 1)), *levels, *pairs], axis=1).astype(float)
    hat = x @ np.linalg.pinv(x)
    left = 1 - np.diag(hat)
    residual = (values - hat @ values) / np.where(left < 1e-9, 1, left)
    return values - residual, float(1 - residual.var() / values.var())


class Engine(Protocol):
    """A way to search, as the simulated cluster sees it."""

    def suggest(self, name: str) -> Params: ...
    def continues(self, name: str, result: dict[str, Any]) -> bool: ...


class TuneEngine:
    """A searcher and a scheduler, called as Tune's controller calls them."""

    def __init__(
        self, searcher: Searcher, scheduler: TrialScheduler, fixed: Params | None = None
    ) -> None:
        self._searcher = searcher
        self._scheduler = scheduler
        self._fixed = fixed or {}  # what the space does not suggest
        self._trials: dict[str, Any] = {}
        self._records: dict[str, TrialRecord] = {}

    def suggest(self, name: str) -> Params:
        config = self._searcher.suggest(name)
        self._trials[name] = SimpleNamespace(trial_id=name)
        self._records[name] = TrialRecord(config.get("trial", name), "", {})
        self._scheduler.on_trial_add(None, self._trials[name])
        return self._fixed | config.get("params", config)

    def continues(self, name: str, result: dict[str, Any]) -> bool:
        trial, record = self._trials[name], self._records[name]
        record.curve.append(result["metrics"])
        decision = self._scheduler.on_trial_result(None, trial, result)
        if decision != TrialScheduler.STOP:
            # the controller does not pass on the result at which the scheduler stops
            self._searcher.on_trial_result(name, result)
            if not result["finished"]:
                return True
        self._scheduler.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(name, result=result)
        if isinstance(self._searcher, OptunaSearcher):  # by the program's trial log
            record.status = COMPLETED if result["finished"] else STOPPED_EARLY
            self._searcher.on_trial_end(record)
        del self._trials[name], self._records[name]
        return False


@dataclass(frozen=True)
class Trace:
    """What a search has after each epoch it spent."""

    best: np.ndarray  # the best accuracy so far
    expected: np.ndarray  # mean of the configurations of the best five trials (see Table)
    seconds: np.ndarray  # on the simulated cluster
    trials: int


def simulate(
    engine: Engine,
    table: Table,
    workers: int,
    epochs: float = np.inf,
    trials: float = np.inf,
    again: bool = False,
) -> Trace:
    """A search on so many workers, each with one trial at a time, until its epochs or trials are
    spent.

    No row of the table is run a second time before all have been, unless `again`: a search in a
    continuous space never meets the very same outcome twice, and ASHA would let the equal copies go
    on to the end.
    """
    used: set[int] = set()
    running: list[tuple[float, int, Row, int]] = []  # when its next epoch ends, trial, row, epoch
    scores: dict[int, tuple[float, float, float]] = {}  # of trials: accuracy, -loss, expected
    spent: list[tuple[float, float, float]] = []
    started, free, now = 0, workers, 0.0
    while len(spent) < epochs:
        while free and started < trials:
            row = table.row(engine.suggest(f"t{started}"), used)
            if not again:
                used.add(row.number)
            if len(used) == len(table):
                used.clear()
            heapq.heappush(running, (now + row.seconds, started, row, 0))
            started, free = started + 1, free - 1
        if not running:
            break
        now, trial, row, epoch = heapq.heappop(running)
        result = dict(row.results[epoch])
        score = (result[ACCURACY], -result["val_loss"], row.expected)
        scores[trial] = max(scores.get(trial, score), score)
        top = heapq.nlargest(_TOP, scores.values())
        spent.append((top[0][0], sum(expected for *_, expected in top) / len(top), now))
        if engine.continues(f"t{trial}", result):
            heapq.heappush(running, (now + row.seconds, trial, row, epoch + 1))
        else:
            free += 1
    return Trace(*np.array(spent).T, started)
