"""Who is compared with whom when ASHA decides."""

from types import SimpleNamespace

from mgc_ray.tuning.records import STOPPED_EARLY, TrialRecord
from mgc_ray.tuning.scheduler import AshaByFamily


def _decisions(*figures: tuple[str, float]) -> list[str]:
    """What is decided on trials of (family, figure after one epoch), one after the other."""
    scheduler = AshaByFamily(max_epochs=9, grace_period=1, reduction_factor=3)
    decisions = []
    for number, (family, figure) in enumerate(figures):
        trial = SimpleNamespace(config={"family": family}, trial_id=f"{family}-{number}")
        scheduler.on_trial_add(None, trial)
        result = {"epoch": 1, "best_so_far": figure}
        decisions.append(scheduler.on_trial_result(None, trial, result))
    return decisions


def test_trials_of_one_family_are_compared() -> None:
    figures = [("gru", 0.5), ("gru", 0.6), ("gru", 0.7), ("gru", 0.4)]
    assert _decisions(*figures)[-1] == "STOP"


def test_trials_of_different_families_are_not() -> None:
    figures = [("discriminant", figure) for figure in (0.7, 0.8, 0.9)]
    assert _decisions(*figures, ("gru", 0.2))[-1] == "CONTINUE"


def test_trials_of_a_search_that_goes_on_are_compared_with_those_before() -> None:
    """As if the search had not been interrupted, at every rung."""

    def record(number: int, *figures: float) -> TrialRecord:
        curve = [{"val_track_accuracy": figure} for figure in figures]
        return TrialRecord(f"gru-{number:04d}", "gru", {}, STOPPED_EARLY, curve=curve)

    earlier = [record(0, 0.5, 0.3, 0.8), record(1, 0.6), record(2, 0.7)]
    scheduler = AshaByFamily(9, 1, 3, earlier)
    trial = SimpleNamespace(config={"family": "gru"}, trial_id="new")
    scheduler.on_trial_add(None, trial)

    def decide(epoch: int, figure: float) -> str:
        return scheduler.on_trial_result(None, trial, {"epoch": epoch, "best_so_far": figure})

    assert decide(1, 0.71) == "CONTINUE"
    assert decide(2, 0.71) == "CONTINUE"
    assert decide(3, 0.79) == "STOP"  # one stood at 0.8 there
    other = SimpleNamespace(config={"family": "gru"}, trial_id="worse")
    scheduler.on_trial_add(None, other)
    assert scheduler.on_trial_result(None, other, {"epoch": 1, "best_so_far": 0.4}) == "STOP"
