"""What the plots of a report show, of trials written here."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mgc_ray.reporting import plots
from mgc_ray.results import (
    FAILED,
    OUT_OF_TIME,
    STOPPED_EARLY,
    TEST,
    Predictions,
    TrialRecord,
    ranked,
)
from mgc_ray.task import measure
from tests.reporting.made_search import GENRES, record

RANGES: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "layers": IntDistribution(1, 2),
    "schedule": CategoricalDistribution(["constant", "cosine"]),
    "bidirectional": CategoricalDistribution([True, False]),
    "dropout": FloatDistribution(0, 0.5),
}


def settings(params: Sequence[dict[str, Any]]) -> plots.Plot | None:
    """The settings plot of trials, of which trial i has the accuracy 0.3 + 0.05 i."""
    trials = [
        optuna.trial.create_trial(
            params=one,
            distributions={name: RANGES[name] for name in one},
            value=0.0,
            user_attrs={"trial": f"gru-{number:04d}"},
        )
        for number, one in enumerate(params)
    ]
    records = [record(number, [0.3 + 0.05 * number]) for number in range(len(params))]
    return plots.settings("gru", trials, ranked(records))


def panel(figure: go.Figure, setting: str) -> tuple[dict[str, tuple[Any, float]], Any]:
    """What a panel shows of each trial, (value, score), and its horizontal axis."""
    number = [title.text for title in figure.layout.annotations].index(setting) + 1
    axis = f"x{number if number > 1 else ''}"
    points = {
        name: (x, y)
        for trace in figure.data
        if trace.xaxis == axis
        for name, x, y in zip(trace.text, trace.x, trace.y, strict=True)
    }
    return points, figure.layout[f"xaxis{number}"]


def test_each_setting_has_a_panel_with_its_values_on_the_scale_of_its_range() -> None:
    plot = settings(
        [
            {
                "lr": 10.0**-power,
                "layers": layers,
                "schedule": schedule,
                "bidirectional": schedule == "cosine",
                "dropout": 0.1,
            }
            for power, layers, schedule in zip(
                (4, 3.5, 3, 2.5, 2), (1, 2, 1, 2, 1), ["cosine", "constant"] * 3, strict=False
            )
        ]
    )
    assert plot is not None
    points, axis = panel(plot.figure, "lr")
    assert points["gru-0000"] == (1e-4, 0.3)
    assert points["gru-0004"] == (1e-2, 0.5)
    assert axis.type == "log"
    points, axis = panel(plot.figure, "layers")
    assert points["gru-0001"] == (2, 0.35)
    assert axis.dtick == 1
    points, axis = panel(plot.figure, "schedule")
    assert points["gru-0000"] == ("cosine", 0.3)
    assert axis.categoryarray == ("constant", "cosine")
    points, _ = panel(plot.figure, "bidirectional")
    assert points["gru-0000"] == ("True", 0.3)
    titles = [title.text for title in plot.figure.layout.annotations]
    assert "dropout" not in titles  # it is the same for all
    assert plot.table is not None
    assert plot.table.head == (
        *("trial", "track accuracy"),
        *("bidirectional", "layers", "lr", "schedule"),
    )
    assert plot.table.rows[0] == ("gru-0004", "0.500", "True", "1", "0.01", "cosine")


def test_a_trial_without_a_setting_is_left_out_of_its_panel_alone() -> None:
    plot = settings(
        [
            {"lr": 1e-3 * (1 + number), "dropout": 0.1 * number}
            if number < 3
            else {"lr": 1e-3 * (1 + number)}
            for number in range(5)
        ]
    )
    assert plot is not None
    assert len(panel(plot.figure, "lr")[0]) == 5
    assert set(panel(plot.figure, "dropout")[0]) == {"gru-0000", "gru-0001", "gru-0002"}
    assert plot.table is not None
    assert plot.table.rows[0][2] == "–"  # dropout of gru-0004


def test_few_trials_and_a_single_configuration_have_no_settings_plot() -> None:
    assert settings([{"lr": 1e-3 * (1 + number)} for number in range(4)]) is None
    assert settings([{"lr": 1e-3}] * 5) is None


def test_learning_curves_show_every_epoch_and_where_trials_were_stopped() -> None:
    records = ranked([record(0, [0.1, 0.4]), record(1, [0.3], status=STOPPED_EARLY)])
    plot = plots.learning_curves(records)
    assert plot is not None
    curves, stopped = plot.figure.data
    assert list(curves.x) == [1, 2, None, 1, None]  # with a gap after each trial
    assert list(curves.y) == [0.1, 0.4, None, 0.3, None]
    assert curves.mode == "lines+markers"  # a trial of one epoch has no line, but a marker
    assert (*stopped.x, *stopped.y, *stopped.text) == (1, 0.3, "gru-0001")
    assert "of 2 trials by epoch, 1 of them stopped early; the best" in plot.summary
    late = plots.learning_curves([*records, record(2, [0.2], status=OUT_OF_TIME)])
    assert late is not None
    assert list(late.figure.data[1].text) == ["gru-0001"]  # ASHA did not stop the other one
    assert "1 of them stopped early, 1 ended by the time limit; the best" in late.summary
    assert plot.figure.layout.xaxis.dtick == 1
    long = plots.learning_curves([record(0, [0.1] * 30)])
    assert long is not None
    assert long.figure.layout.xaxis.dtick is None
    assert "the best, gru-0000, has 0.400 in epoch 2" in plot.summary


def test_trials_without_an_epoch_have_no_learning_curves() -> None:
    assert plots.learning_curves([record(0, [], status=FAILED)]) is None


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
    assert plot is not None
    points, line = plot.figure.data
    assert list(line.x) == [1, 2, 3, 4]  # minutes
    assert list(line.y) == pytest.approx(best)
    assert list(points.text) == sorted(ENDED)
    assert plot.table is not None
    assert [row[2] for row in plot.table.rows] == ["gru-0000", "gru-0001", "gru-0003"]


def test_best_so_far_needs_two_trials_that_did_not_fail() -> None:
    records = [record(0, [0.2]), record(1, [0.5], status=FAILED)]
    assert plots.best_so_far(ranked(records), ENDED) is None


def test_the_importance_of_settings_by_family() -> None:
    plot = plots.importance({"gru": {"lr": 0.7, "dropout": 0.3}, "cnn": {"lr": 1.0}})
    assert plot is not None
    cnn, gru = plot.figure.data
    assert cnn.y == ("lr (cnn)",)
    assert gru.y == ("lr (gru)", "dropout (gru)")
    assert gru.x == (0.7, 0.3)
    assert plots.importance({}) is None


def test_confusion_matrix_and_calibration_of_an_ensemble() -> None:
    probs = np.array([[0.94, 0.06], [0.85, 0.15], [0.85, 0.15], [0.3, 0.7]])
    true = np.array([0, 0, 1, 1])
    groups = np.array(["a", "b", "c", "d"])
    metrics = measure(probs, true, groups, GENRES, 3, 4)
    confusion = plots.confusion(TEST, metrics)
    (heatmap,) = confusion.figure.data
    assert [list(row) for row in heatmap.text] == [[2, 0], [1, 1]]
    assert [list(row) for row in heatmap.z] == [[1, 0], [0.5, 0.5]]
    assert "the most frequent confusion is rock predicted as blues (1 track)" in confusion.summary
    predictions = Predictions("ensemble", TEST, groups, groups, true, probs)
    calibration = plots.calibration(metrics, predictions)
    _, curve = calibration.figure.data
    assert list(curve.x) == pytest.approx([0.7, 0.85, 0.94])
    assert list(curve.y) == [1, 0.5, 1]
    assert "off by 26.5%" in calibration.summary  # (0.3 + 2 * 0.35 + 0.06) / 4


def test_a_name_cannot_end_the_script_that_holds_a_figure() -> None:
    evil = replace(record(0, [0.5, 0.6]), trial="</script>-0000")
    plot = plots.learning_curves([evil])
    assert plot is not None
    assert "<" not in plot.figure.to_json()
