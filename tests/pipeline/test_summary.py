"""What a search prints at its end, and what `show` prints of a trial."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mgc_ray.pipeline import summary
from mgc_ray.pipeline.summary import print_ensemble, print_summary, time_limit_in_words
from mgc_ray.results import COMPLETED, OUT_OF_TIME, STOPPED_EARLY, Member, SearchResult
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


@pytest.mark.parametrize(
    ("statuses", "trials", "limit", "words"),
    [
        ([COMPLETED, STOPPED_EARLY], 2, None, ""),
        ([COMPLETED, STOPPED_EARLY], 2, 180.0, ""),
        (
            [COMPLETED, *[OUT_OF_TIME] * 2],
            3,
            180.0,
            "the time limit of 180 s ended 2 of 3 trials: ",
        ),
        (
            [STOPPED_EARLY, OUT_OF_TIME],
            5,
            90.5,
            "the time limit of 90.5 s ended 1 of 5 trials and left 3 unstarted: ",
        ),
    ],
)
def test_what_a_time_limit_ended_is_said(
    tmp_path: Path, statuses: list[str], trials: int, limit: float | None, words: str
) -> None:
    said = time_limit_in_words(_search(tmp_path / "s", statuses, trials, limit))
    assert said == (f"{words}more by a longer --time-limit" if words else "")


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


def test_the_folds_of_a_trial_are_one_member_in_words(tmp_path: Path, printed: io.StringIO) -> None:
    result = _search(tmp_path / "s", [COMPLETED], 1, None)
    assert result.ensemble
    members = [Member(f"gru-0000-fold{n}", 0.3) for n in (1, 2)] + [Member("cnn-0001", 0.4)]
    print_ensemble(replace(result.ensemble, members=tuple(members)))
    assert (
        printed.getvalue().splitlines()[1]
        == "Ensemble of gru-0000 (0.60, 2 folds), cnn-0001 (0.40)"
    )
