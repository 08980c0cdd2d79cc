"""Parallel coordinates of a family's settings, of trials written here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mgc_ray.reporting import parallel
from mgc_ray.reporting.plots import Plot
from mgc_ray.results import FAILED, ranked
from tests.reporting.made_search import record

RANGES: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "layers": IntDistribution(1, 3),
    "schedule": CategoricalDistribution(["constant", "cosine"]),
    "bidirectional": CategoricalDistribution([True, False]),
    "dropout": FloatDistribution(0, 0.5),
    "hidden": IntDistribution(32, 512, log=True),
    "batch_size": IntDistribution(0, 100),
    "mixup": FloatDistribution(0, 1),
}


def settings(
    params: Sequence[dict[str, Any]],
    importances: dict[str, float] | None = None,
    ranges: dict[str, BaseDistribution] = RANGES,
    **changes: Any,
) -> Plot | None:
    """The settings of trials, of which trial i has the accuracy 0.3 + 0.05 i."""
    trials = [
        optuna.trial.create_trial(
            params=one,
            distributions={name: ranges[name] for name in one},
            value=0.0,
            user_attrs={"trial": f"gru-{number:04d}"},
        )
        for number, one in enumerate(params)
    ]
    records = [record(i, [0.3 + 0.05 * i], **changes) for i in range(len(params))]
    return parallel.settings("gru", trials, ranked(records), importances or {})


@dataclass
class Row:
    """What is drawn of a setting: the places of the trials in their order, and labels by place."""

    places: list[float | None]
    labels: dict[float, str]


def rows(plot: Plot | None) -> dict[str, Row]:
    """By the name at the left, without tags."""
    assert plot is not None
    assert plot.figure is not None
    layout = plot.figure.layout
    names = [
        text.replace("<br>", " ").replace("<b>", "").replace("</b>", "")
        for text in layout.yaxis.ticktext
    ]
    length = len(names) + 1  # with the gap behind each line
    lines = {}
    for trace in plot.figure.data:
        for start in range(0, len(trace.x), length):
            trial = trace.text[start].split(":")[0]
            lines[trial] = trace.x[start : start + length - 1]
            assert list(trace.y[start : start + length - 1]) == list(layout.yaxis.tickvals)
    return {
        name: Row(
            [lines[trial][row] for trial in sorted(lines)],
            {note.x: note.text for note in layout.annotations if note.y == -row},
        )
        for row, name in enumerate(names)
    }


def test_each_setting_is_a_row_on_the_scale_of_its_range_above_the_score() -> None:
    drawn = rows(
        settings(
            [
                {
                    "lr": 10.0**-power,
                    "layers": layers,
                    "schedule": schedule,
                    "bidirectional": schedule == "cosine",
                    "dropout": 0.1,
                }
                for power, layers, schedule in zip(
                    (4, 3.5, 3, 2.5, 2), (1, 2, 3, 2, 1), ["cosine", "constant"] * 3, strict=False
                )
            ]
        )
    )
    # in the order of the search space; dropout is the same for all
    assert list(drawn) == ["lr", "layers", "schedule", "bidirectional", "validation track accuracy"]
    assert drawn["lr"].places == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert drawn["lr"].labels == {0: "0.0001", 0.5: "0.001", 1: "0.01"}
    assert drawn["layers"].places == [0, 0.5, 1, 0.5, 0]
    assert drawn["layers"].labels == {0: "1", 0.5: "2", 1: "3"}
    assert drawn["schedule"].places == [1, 0, 1, 0, 1]
    assert drawn["schedule"].labels == {0: "constant", 1: "cosine"}
    assert drawn["bidirectional"].labels == {0: "True", 1: "False"}
    score = drawn["validation track accuracy"]
    assert score.places == pytest.approx([0, 0.25, 0.5, 0.75, 1])  # the best on the right
    assert score.labels == {0: "0.300", 0.5: "0.400", 1: "0.500"}


def test_of_a_log_loss_the_lowest_is_on_the_right() -> None:
    params = [{"dropout": 0.1 * number} for number in range(5)]
    drawn = rows(settings(params, metric="log_loss"))  # 1 - accuracy
    score = drawn["validation log-loss"]
    assert score.places == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert score.labels == {0: "0.700", 0.5: "0.600", 1: "0.500"}


ALL_DIFFER = [
    {
        "lr": 1e-3 + 1e-4 * i,
        "layers": 1 + i % 3,
        "schedule": ["constant", "cosine"][i % 2],
        "bidirectional": i % 2 == 0,
        "dropout": 0.1 * i,
        "hidden": 32 + i,
        "batch_size": i,
        "mixup": 0.1 * i,
    }
    for i in range(5)
]


def test_the_six_most_important_settings_are_shown_with_their_shares() -> None:
    shares = {"mixup": 0.4, "hidden": 0.3, "lr": 0.1, "layers": 0.1, "dropout": 0.06}
    plot = settings(ALL_DIFFER, shares | {"schedule": 0.04, "batch_size": 0.0})
    assert list(rows(plot))[:-1] == [
        *("mixup 40%", "hidden 30%", "lr 10%", "layers 10%", "dropout 6%", "schedule 4%")
    ]
    assert plot is not None
    assert "The 6 most important of 8, with the share of each" in plot.summary
    assert plot.table is not None
    assert len(plot.table.head) == 2 + 8  # all of them


def test_without_importances_the_first_six_of_the_space_are_shown() -> None:
    plot = settings(ALL_DIFFER)
    assert list(rows(plot))[:-1] == list(RANGES)[:6]
    assert plot is not None
    assert "The first 6 of 8 settings of its search space; which of them matter" in plot.summary


def test_the_best_trial_has_a_line_of_its_own() -> None:
    plot = settings([{"dropout": 0.05 * number} for number in range(9)])
    assert plot is not None
    assert plot.figure is not None
    others, quarter, best = plot.figure.data
    assert best.name == "best: gru-0008"
    assert len(best.x) == 3  # two rows and a gap
    assert len(quarter.x) == 2 * 3  # with the best one three of nine trials
    assert len(others.x) == 6 * 3
    assert best.line.width > quarter.line.width > others.line.width
    assert list(best.text) == ["gru-0008: 0.4", "gru-0008: 0.700", ""]


def test_a_trial_without_a_setting_has_a_gap() -> None:
    plot = settings(
        [
            {"lr": 1e-3 * (1 + number), "dropout": 0.1 * number}
            if number < 3
            else {"lr": 1e-3 * (1 + number)}
            for number in range(5)
        ]
    )
    assert rows(plot)["dropout"].places == pytest.approx([0, 0.2, 0.4, None, None])
    assert plot is not None
    assert plot.table is not None
    assert plot.table.rows[0] == ("gru-0004", "0.500", "0.005", "–")


def test_labels_that_would_touch_others_are_left_out() -> None:
    choices = [f"musicnn[mean,penultimate,{number}]" for number in range(8)]
    ranges: dict[str, BaseDistribution] = {"features": CategoricalDistribution(choices)}
    plot = settings([{"features": choice} for choice in choices], ranges=ranges)
    labels = rows(plot)["features"].labels
    assert list(labels) == [0, 1]
    assert labels[0] == "musicnn[mean,penultim…"
    assert plot is not None
    assert plot.table is not None
    assert choices[0] in {cell for row in plot.table.rows for cell in row}  # whole


def test_values_outside_of_the_last_range_are_on_the_scale() -> None:
    """A search that goes on may have had a wider range before."""
    drawn = rows(settings([{"batch_size": value} for value in (0, 25, 50, 75, 100)]))
    assert drawn["batch size"].places == [0, 0.25, 0.5, 0.75, 1]
    narrow: dict[str, BaseDistribution] = {"mixup": FloatDistribution(0, 1)}
    axis = parallel._axis(narrow["mixup"], {"a": 0.0, "b": 2.0})
    assert axis.places == {"a": 0, "b": 1}
    assert axis.ticks[-1] == (1, "2")


@pytest.mark.parametrize(
    ("range_", "values", "labels"),
    [
        (CategoricalDistribution(["a", "b"]), ["b", "c", "a"], ["a", "b", "c"]),  # other choices
        (CategoricalDistribution([1, "1"]), [1, "1", 1], ["1"]),
        (FloatDistribution(0, 1), [0.5, "old", 0.1], ["0.5", "old", "0.1"]),
        (FloatDistribution(0, 1), [math.nan, math.inf, 0.1], ["nan", "inf", "0.1"]),
        (IntDistribution(1, 10**400), [1, 2, 3], ["1", "2", "3"]),
        (IntDistribution(1, 9, log=True), [0, 4, 8], ["0", "4", "9"]),
    ],
)
def test_any_values_of_a_strangers_journal_have_a_place(
    range_: BaseDistribution, values: list[Any], labels: list[str]
) -> None:
    axis = parallel._axis(range_, dict(zip("xyz", values, strict=True)))
    assert [label for _, label in axis.ticks] == labels
    assert all(0 <= place <= 1 for place in axis.places.values())


def test_trials_that_are_all_equally_good() -> None:
    trials = [{"dropout": 0.1 * number} for number in range(5)]
    equal = [record(number, [0.5]) for number in range(5)]
    made = [
        optuna.trial.create_trial(
            params=one,
            distributions={"dropout": RANGES["dropout"]},
            value=0.0,
            user_attrs={"trial": f"gru-{number:04d}"},
        )
        for number, one in enumerate(trials)
    ]
    drawn = rows(parallel.settings("gru", made, ranked(equal), {}))
    assert drawn["validation track accuracy"].labels == {1: "0.500"}
    assert set(drawn["validation track accuracy"].places) == {1}


def test_few_trials_and_a_single_configuration_have_no_plot() -> None:
    assert settings([{"lr": 1e-3 * (1 + number)} for number in range(4)]) is None
    assert settings([{"lr": 1e-3}] * 5) is None
    assert settings([{"lr": 1e-3 * (1 + number)} for number in range(5)], status=FAILED) is None
