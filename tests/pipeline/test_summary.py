"""What a search prints at its end, and what `show` prints of a trial."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mgc_ray.pipeline import summary
from mgc_ray.pipeline.summary import print_summary
from mgc_ray.results import COMPLETED, OUT_OF_TIME, SearchResult
from tests.reporting.made_search import record, write_search

PREDICTED = [("a", "A", 0, 0.1), ("b", "B", 1, 0.9), ("c", "C", 1, 0.4)]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed on a terminal of 100 columns."""
    text = io.StringIO()
    monkeypatch.setattr(summary, "console", Console(file=text, width=100, highlight=False))
    return text


def _search(folder: Path, statuses: list[str], trials: int, limit: float | None) -> SearchResult:
    settings = {"lr": 0.01, "hidden": 64, "blocks": 3, "dropout": 0.5, "channels": 8}
    records = [
        record(number, [0.5 + number / 100], status=status, params=settings)
        for number, status in enumerate(statuses)
    ]
    result = write_search(folder, PREDICTED, records)
    tuning = replace(result.config.tuning, trials=trials, time_limit=limit)
    return replace(result, config=replace(result.config, tuning=tuning)).with_trials(records)


def test_a_leaderboard_fits_a_hundred_columns_with_three_settings_per_trial(
    tmp_path: Path, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _search(tmp_path / "s", [COMPLETED, OUT_OF_TIME], 2, 60.0)
    monkeypatch.setattr(summary, "_example", lambda dataset: "a.wav")
    print_summary(result)
    lines = printed.getvalue().splitlines()
    row = next(line for line in lines if line.startswith("gru-0001"))
    assert row.split(maxsplit=5)[1:] == [
        *("0.510", "1", "out", "of"),
        "time  lr 0.01, hidden 64, blocks 3, 2 more",
    ]
    assert "the time limit of 60 s ended 1 of 2 trials: more by a longer --time-limit" in lines
    board = lines[: next(n for n, line in enumerate(lines) if line.startswith("2 trials"))]
    assert max(map(len, board[2:])) <= 100
