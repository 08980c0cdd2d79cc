"""What a search shows: in a log, and on a narrow terminal."""

import io

import pytest
from rich.console import Console

from mgc_ray.tuning import display
from mgc_ray.tuning.records import COMPLETED, FAILED, TrialRecord


def record(number: int, status: str = COMPLETED, reason: str = "") -> TrialRecord:
    curve = [{"val_track_accuracy": 0.5 + number / 10, "val_loss": 1.0}]
    params = {"lr": 0.002, "hidden": 64, "schedule": "cosine"}
    return TrialRecord(f"gru-000{number}", "gru", params, status, reason, 1.0, "", 1, curve)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(display, "console", Console(file=text, width=50, highlight=False))
    return text


def test_a_narrow_terminal_loses_no_name_and_no_figure(said: io.StringIO) -> None:
    table = display.best_table(
        [record(1), record(2)], lambda r: display.settings_in_words(r.params, {"hidden": 64})
    )
    display.console.print(table)
    assert said.getvalue() == (
        "gru-0001  0.600 of tracks, 1 epoch, completed\n"
        "  lr 0.002, schedule cosine\n"
        "gru-0002  0.700 of tracks, 1 epoch, completed\n"
        "  lr 0.002, schedule cosine\n"
    )


def test_a_log_tells_each_end_once_with_its_reason(said: io.StringIO) -> None:
    display.console.soft_wrap = True
    with display.Display(3, [], {"gru": {}}, None) as shown:
        failed = record(1, FAILED, "the loss is NaN")
        shown.on_start(failed)
        shown.on_end(failed)
    assert said.getvalue() == (
        "[1/3] gru-0001 failed after 1 epoch: the loss is NaN, lr 0.002, hidden 64, schedule "
        "cosine\n"
    )


def test_a_log_shows_now_and_then_that_the_search_lives(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    display.console.soft_wrap = True
    running = record(1, "running")
    with display.Display(3, [], {"gru": {}}, None) as shown:
        shown.on_start(running)
        shown.on_epoch(running)
        assert said.getvalue() == ""
        monkeypatch.setattr(display, "_SECONDS_BETWEEN_LINES", 0.0)
        shown.on_epoch(running)
    assert said.getvalue() == (
        "0 of 3 trials done (0 completed, 0 stopped early, 0 failed), 1 running; running: "
        "gru-0001 epoch 2\n"
    )
