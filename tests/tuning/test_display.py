"""What a search shows: in a log, and on a narrow terminal."""

import io

import pytest
from rich.console import Console

from mgc_ray.config import Metric, TuneConfig
from mgc_ray.results import COMPLETED, FAILED, RUNNING, TrialRecord
from mgc_ray.tuning import display
from mgc_ray.tuning.display import Display, best_table, changed_settings, clock, main_settings

CONFIG = TuneConfig(trials=3)


def _record(number: int, status: str = COMPLETED, reason: str = "") -> TrialRecord:
    curve = [
        {"val_track_accuracy": 0.5 + number / 10, "val_log_loss": 1.5 / number, "val_loss": 1.0}
    ]
    params = {"lr": 0.002, "hidden": 64, "schedule": "cosine"}
    return TrialRecord(
        f"gru-000{number}",
        "gru",
        params,
        status=status,
        reason=reason,
        seconds=1.0,
        best_epoch=1,
        curve=curve,
    )


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the display prints on a terminal of 50 columns."""
    text = io.StringIO()
    monkeypatch.setattr(display, "console", Console(file=text, width=50, highlight=False))
    return text


@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        ("track_accuracy", ("track accuracy 0.600", "track accuracy 0.700")),
        ("log_loss", ("log-loss 1.500", "log-loss 0.750")),
    ],
)
def test_a_narrow_terminal_loses_no_name_and_no_figure(
    printed: io.StringIO, metric: Metric, scores: tuple[str, str]
) -> None:
    table = best_table(
        [_record(1), _record(2)], metric, lambda r: changed_settings(r.params, {"hidden": 64})
    )
    display.console.print(table)
    assert printed.getvalue() == (
        f"gru-0001  {scores[0]}, 1 epoch, completed\n"
        "  lr 0.002, schedule cosine\n"
        f"gru-0002  {scores[1]}, 1 epoch, completed\n"
        "  lr 0.002, schedule cosine\n"
    )


def test_a_wide_terminal_has_a_table_with_the_metric_above_its_column(
    printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "console", Console(file=printed, width=100, highlight=False))
    display.console.print(best_table([_record(2)], "log_loss", lambda _: "lr 0.002"))
    heading, row = (line.split() for line in printed.getvalue().splitlines())
    assert heading == ["trial", "log-loss", "epochs", "status", "changed", "settings"]
    assert row == ["gru-0002", "0.750", "1", "completed", "lr", "0.002"]


def test_a_log_has_one_line_for_each_end_with_its_reason(printed: io.StringIO) -> None:
    display.console.soft_wrap = True
    with Display(CONFIG, "track_accuracy", [], {"gru": {}}) as shown:
        failed = _record(1, FAILED, "the loss is NaN")
        shown.on_trial_start(failed)
        shown.on_trial_end(failed)
    assert printed.getvalue() == (
        "[1/3] gru-0001 failed after 1 epoch: the loss is NaN, lr 0.002, hidden 64, schedule "
        "cosine\n"
    )


def test_a_log_shows_now_and_then_that_the_search_is_alive(
    printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    display.console.soft_wrap = True
    running = _record(1, RUNNING)
    with Display(CONFIG, "track_accuracy", [], {"gru": {}}) as shown:
        shown.on_trial_start(running)
        shown.on_epoch(running)
        assert printed.getvalue() == ""
        monkeypatch.setattr(display, "_SECONDS_BETWEEN_LINES", 0.0)
        shown.on_epoch(running)
    assert printed.getvalue() == (
        "0 of 3 trials done (0 completed, 0 stopped early, 0 failed), 1 running; running: "
        "gru-0001 epoch 2\n"
    )


def test_after_its_last_epoch_a_trial_is_still_in_it(
    printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    display.console.soft_wrap = True
    monkeypatch.setattr(display, "_SECONDS_BETWEEN_LINES", 0.0)
    running = _record(1, RUNNING)
    config = TuneConfig(trials=3, max_epochs=1)
    with Display(config, "track_accuracy", [], {"gru": {}}) as shown:
        shown.on_trial_start(running)
        shown.on_epoch(running)
    assert printed.getvalue().endswith("running: gru-0001 epoch 1\n")


def test_only_settings_that_are_not_at_their_defaults_are_shown() -> None:
    defaults = {"lr": 0.001, "bidirectional": True, "batch_size": 32, "schedule": "constant"}
    chosen = {"lr": 0.000423, "bidirectional": False, "batch_size": 32, "schedule": "cosine"}
    assert changed_settings(chosen, defaults) == "lr 0.00042, not bidirectional, schedule cosine"
    assert changed_settings(defaults, defaults) == "the defaults"


def test_durations_are_shown_as_on_a_clock() -> None:
    assert [clock(s) for s in (5, 75, 3725)] == ["0:05", "1:15", "1:02:05"]


def test_main_settings_are_three_the_most_important_first() -> None:
    defaults = {"lr": 0.001, "hidden": 128, "blocks": 4, "dropout": 0.3}
    chosen = {"hidden": 64, "blocks": 5, "dropout": 0.5, "lr": 0.002}
    assert main_settings(chosen, defaults) == "lr 0.002, hidden 64, blocks 5, 1 more"
    assert main_settings(chosen, defaults, ["dropout", "blocks"]) == (
        "dropout 0.5, blocks 5, hidden 64, 1 more"
    )
    assert main_settings({"lr": 0.001, "hidden": 64}, defaults) == "hidden 64"
    assert main_settings(defaults, defaults) == "the defaults"
