"""What the plots of a report show, of trials written here."""

from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from mgc_ray.reporting import plots
from mgc_ray.results import (
    FAILED,
    OUT_OF_TIME,
    STOPPED_EARLY,
    TEST,
    Metrics,
    Predictions,
    TrialRecord,
    ranked,
)
from mgc_ray.task import measure
from tests.reporting.made_search import GENRES, record


def traces(plot: plots.Plot | None) -> dict[str, Any]:
    assert plot is not None
    assert plot.figure is not None
    return {trace.name: trace for trace in plot.figure.data}


def test_learning_curves_show_every_epoch_and_mark_the_best_trial() -> None:
    plot = plots.learning_curves(ranked([record(0, [0.1, 0.4, 0.2]), record(1, [0.3])]))
    drawn = traces(plot)
    assert list(drawn) == ["gru", "best: gru-0000"]  # no trial was stopped
    assert list(drawn["gru"].x) == [1, 2, 3, None, 1, None]  # with a gap after each trial
    assert list(drawn["gru"].y) == [0.1, 0.4, 0.2, None, 0.3, None]
    assert drawn["gru"].mode == "lines+markers"  # a trial of one epoch has no line, but a marker
    best = drawn["best: gru-0000"]
    assert list(best.y) == [0.1, 0.4, 0.2]
    assert list(best.marker.symbol) == ["circle", "star", "circle"]  # its best epoch
    assert best.line.width > drawn["gru"].line.width
    assert plot is not None
    assert "of 2 trials by epoch; the best, gru-0000, has 0.400 in epoch 2 (star)" in plot.summary


def test_what_the_time_limit_ended_is_not_called_stopped_by_asha() -> None:
    records = [
        record(0, [0.1, 0.5]),
        record(1, [0.3], status=STOPPED_EARLY),
        record(2, [0.2, 0.2], status=OUT_OF_TIME),
    ]
    drawn = traces(plots.learning_curves(ranked(records)))
    stopped, late = drawn["stopped early by ASHA"], drawn["ended by the time limit"]
    assert (*stopped.x, *stopped.y, *stopped.text) == (1, 0.3, "gru-0001")
    assert (*late.x, *late.y, *late.text) == (2, 0.2, "gru-0002")
    assert stopped.marker.symbol != late.marker.symbol


def test_each_epoch_has_a_tick_where_there_are_few() -> None:
    for epochs, tick in ((2, 1), (30, None)):
        plot = plots.learning_curves([record(0, [0.1] * epochs)])
        assert plot is not None
        assert plot.figure is not None
        assert plot.figure.layout.xaxis.dtick == tick


def test_trials_without_a_second_epoch_have_no_learning_curves() -> None:
    assert plots.learning_curves([record(0, [], status=FAILED)]) is None
    assert plots.learning_curves([record(0, [0.5]), record(1, [0.4])]) is None  # no curve


ENDED = {"gru-0000": 60.0, "gru-0001": 120.0, "gru-0002": 180.0, "gru-0003": 240.0}


@pytest.mark.parametrize(
    ("metric", "best"),
    [("track_accuracy", [0.2, 0.5, 0.5, 0.6]), ("log_loss", [0.8, 0.5, 0.5, 0.4])],
)
def test_best_so_far_is_by_the_metric_of_the_search(metric: Any, best: list[float]) -> None:
    records: list[TrialRecord] = [
        record(number, [accuracy], metric=metric)
        for number, accuracy in enumerate((0.2, 0.5, 0.3, 0.6))
    ]
    plot = plots.best_so_far(ranked(records), ENDED)
    points, line = traces(plot).values()
    assert list(line.x) == [1, 2, 3, 4]  # minutes
    assert list(line.y) == pytest.approx(best)
    assert list(points.text) == sorted(ENDED)
    assert plot is not None
    assert f"came after 4.0 of 4.0 minutes; the first trial that ended has {best[0]:.3f}." in (
        plot.summary
    )
    assert plot.table is not None
    assert [row[2] for row in plot.table.rows] == ["gru-0000", "gru-0001", "gru-0003"]


def test_best_so_far_needs_two_trials_that_did_not_fail() -> None:
    records = [record(0, [0.2]), record(1, [0.5], status=FAILED)]
    assert plots.best_so_far(ranked(records), ENDED) is None


def predictions_of(probs: np.ndarray, true: np.ndarray) -> tuple[Metrics, Predictions]:
    groups = np.arange(len(true)).astype(str)
    metrics = measure(probs, true, groups, GENRES, len(true), len(true))
    return metrics, Predictions("ensemble", TEST, groups, groups, true, probs)


def test_calibration_of_an_ensemble() -> None:
    probs = np.array([[0.94, 0.06], [0.85, 0.15], [0.85, 0.15], [0.3, 0.7]])
    metrics, predictions = predictions_of(np.tile(probs, (13, 1)), np.tile([0, 0, 1, 1], 13))
    plot = plots.calibration(metrics, predictions)
    curve = traces(plot)["this ensemble"]
    assert list(curve.x) == pytest.approx([0.7, 0.85, 0.94])
    assert list(curve.y) == [1, 0.5, 1]
    assert "off by 26.5%" in plot.summary  # (0.3 + 2 * 0.35 + 0.06) / 4


def test_few_songs_have_no_calibration() -> None:
    predictions = predictions_of(np.tile([0.9, 0.1], (49, 1)), np.zeros(49, int))
    plot = plots.calibration(*predictions)
    assert plot.figure is None
    assert plot.summary == "Too few songs for calibration: 49 of the 50 that it takes."


def test_probabilities_in_one_bin_are_no_curve() -> None:
    predictions = predictions_of(np.tile([0.91, 0.09], (50, 1)), np.array([0] * 48 + [1] * 2))
    plot = plots.calibration(*predictions)
    assert plot.figure is None
    assert plot.summary.endswith("It is 91% on average, and 96% are right.")


def luminance(colour: str) -> float:
    """The relative luminance of #rrggbb, by WCAG 2."""
    shares = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(shares <= 0.03928, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("colour", [*plots.COLOURS, plots.BEST_COLOUR, plots.QUIET_COLOUR])
@pytest.mark.parametrize("ground", ["#ffffff", "#14181f"])
def test_lines_can_be_seen_on_light_and_dark_pages(colour: str, ground: str) -> None:
    assert f"--ground: {ground};" in files("mgc_ray.reporting").joinpath("page.html").read_text()
    dark, light = sorted((luminance(colour), luminance(ground)))
    assert (light + 0.05) / (dark + 0.05) >= 3  # WCAG's for what is not text


def test_a_name_cannot_end_the_script_that_holds_a_figure() -> None:
    evil = replace(record(0, [0.5, 0.6]), trial="</script>-0000")
    plot = plots.learning_curves([evil])
    assert plot is not None
    assert plot.figure is not None
    assert "<" not in plot.figure.to_json()
