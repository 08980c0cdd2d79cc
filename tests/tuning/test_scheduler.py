"""Who is compared with whom when ASHA decides."""

from types import SimpleNamespace

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
