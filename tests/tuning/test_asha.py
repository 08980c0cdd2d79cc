"""Which trials ASHA compares with one another."""

from types import SimpleNamespace
from typing import Any

import pytest

from mgc_ray.config import Metric, TuneConfig
from mgc_ray.results import STOPPED_EARLY, TrialRecord
from mgc_ray.tuning.asha import AshaByFamily

CONFIG = TuneConfig(max_epochs=9, grace_period=1, reduction_factor=3)


def _decisions(*scores: tuple[str, float]) -> list[str]:
    """What is decided on trials of (family, score after one epoch), one after the other."""
    scheduler = AshaByFamily(CONFIG)
    decisions = []
    for number, (family, score) in enumerate(scores):
        trial = SimpleNamespace(config={"family": family}, trial_id=f"{family}-{number}")
        scheduler.on_trial_add(None, trial)
        result = {"epoch": 1, "best_so_far": score}
        decisions.append(scheduler.on_trial_result(None, trial, result))
    return decisions


def test_trials_of_one_family_are_compared() -> None:
    scores = [("gru", 0.5), ("gru", 0.6), ("gru", 0.7), ("gru", 0.4)]
    assert _decisions(*scores)[-1] == "STOP"


def test_trials_of_different_families_are_not_compared() -> None:
    scores = [("discriminant", score) for score in (0.7, 0.8, 0.9)]
    assert _decisions(*scores, ("gru", 0.2))[-1] == "CONTINUE"


def _record(number: int, metric: Metric, *values: float) -> TrialRecord:
    key = {"track_accuracy": "val_track_accuracy", "log_loss": "val_log_loss"}[metric]
    curve = [{key: value, "val_loss": 1.0} for value in values]
    return TrialRecord(f"gru-{number:04d}", "gru", {}, metric, STOPPED_EARLY, curve=curve)


@pytest.mark.parametrize("metric", ["track_accuracy", "log_loss"])
def test_trials_of_a_resumed_search_are_compared_with_those_before(metric: Metric) -> None:
    """As if the search had not been interrupted, at every rung."""

    def value_of(accuracy: float) -> float:
        return accuracy if metric == "track_accuracy" else 1.3 - accuracy  # in the same order

    def score_of(accuracy: float) -> float:
        return accuracy if metric == "track_accuracy" else accuracy - 1.3  # higher is better

    earlier = [
        _record(number, metric, *map(value_of, accuracies))
        for number, accuracies in enumerate([(0.5, 0.3, 0.8), (0.6,), (0.7,)])
    ]
    scheduler = AshaByFamily(CONFIG, earlier)

    def decide(trial: Any, epoch: int, accuracy: float) -> str:
        report = {"epoch": epoch, "best_so_far": score_of(accuracy)}
        return scheduler.on_trial_result(None, trial, report)

    good, poor = (SimpleNamespace(config={"family": "gru"}, trial_id=i) for i in ("good", "poor"))
    scheduler.on_trial_add(None, good)
    assert decide(good, 1, 0.71) == "CONTINUE"
    assert decide(good, 2, 0.71) == "CONTINUE"
    assert decide(good, 3, 0.79) == "STOP"  # an earlier one had 0.8 there
    scheduler.on_trial_add(None, poor)
    assert decide(poor, 1, 0.4) == "STOP"
