"""Parallel coordinates of a family's settings: one line per trial, down to its score.

Each setting is a row, so that there is room for names and values on a narrow page, and the lines
are plotly's ordinary ones. Its `parcoords`, which optuna.visualization also uses, puts the settings
beside each other and draws with WebGL, of which a browser gives a page few contexts, or none: the
first of several plots on a page would be empty.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial

from mgc_ray.reporting.plots import BEST_COLOUR, COLOURS, QUIET_COLOUR, Plot, figure_of
from mgc_ray.reporting.table import Table, first_of
from mgc_ray.results import TrialRecord
from mgc_ray.task import score_cell, score_heading, score_value
from mgc_ray.terminal.command import count_of

_FEWEST = 5  # trials of a family, for a plot of its settings
_MOST = 6  # settings
_ROW = 66  # pixels
_NAME = 12  # characters of a line of a setting's name
_LABEL = 22  # characters of a value that are shown
_WIDTH = 56  # characters that fit below a row of a page of 500 pixels
_FEW = 8  # whole numbers, of which each has a tick
_LISTED = 50  # trials, in the table
_SCORE_TICKS = 3
_LARGEST = 1e15  # number that has a place on a scale


@dataclass(frozen=True)
class _Axis:
    """Where the values of a row are, 0..1 from left to right, and its labelled ticks."""

    places: dict[str, float]  # of each trial that has the setting
    ticks: list[tuple[float, str]]


def settings(
    family: str,
    trials: Sequence[FrozenTrial],
    records: Sequence[TrialRecord],
    importances: dict[str, float],
) -> Plot | None:
    """The trials of a family by their most important settings; None where there are too few.

    `trials`: of Optuna, which have the ranges of settings. `records`: best first. `importances`: {}
    where these are not known.
    """
    params, ranges = {}, {}
    for trial in trials:
        params[trial.user_attrs["trial"]] = trial.params
        ranges.update(trial.distributions)
    records = [record for record in records if record.usable and record.trial in params]
    names = [
        name
        for name in ranges
        if len({params[record.trial].get(name) for record in records} - {None}) > 1
    ]
    if len(records) < _FEWEST or not names:
        return None
    names.sort(key=lambda name: -importances.get(name, 0))  # else as the space suggests them
    values = {
        name: {r.trial: params[r.trial][name] for r in records if name in params[r.trial]}
        for name in names
    }
    shown = names[:_MOST]
    axes = [_axis(ranges[name], values[name]) for name in shown]
    heading = f"validation {score_heading(records[0].metric)}"
    rows = [
        _broken(name.replace("_", " "))
        + (f"<br>{importances[name]:.0%}" if name in importances else "")
        for name in shown
    ]
    texts = [  # of each trial at each row
        [
            *(f"{record.trial}: {_cell(values[name].get(record.trial))}" for name in shown),
            f"{record.trial}: {score_cell(record.best, record.metric)}",
        ]
        for record in records
    ]
    figure = _drawn([*axes, _score_axis(records)], [*rows, f"<b>{_broken(heading)}</b>"], texts)
    return Plot(
        f"Settings of {family}",
        f"Each line is one of {len(records)} trials of {family}; it goes through the trial's "
        f"settings to its {heading}. {_which(len(names), importances)} The best, "
        f"{records[0].trial}, has {score_cell(records[0].best, records[0].metric)}.",
        figure,
        Table(
            f"{count_of(len(records), 'trial')} of {family} with all of their settings"
            f"{first_of(_LISTED, records)}",
            ("trial", score_heading(records[0].metric), *(n.replace("_", " ") for n in names)),
            [
                (
                    record.trial,
                    score_cell(record.best, record.metric),
                    *(_cell(values[name].get(record.trial)) for name in names),
                )
                for record in records[:_LISTED]
            ],
        ),
    )


def _which(count: int, importances: dict[str, float]) -> str:
    """Which of a family's settings are shown, and why these."""
    if importances:
        which = f"The {_MOST} most important of {count}" if count > _MOST else "All that differ"
        return (
            f"{which}, with the share of each in what distinguishes the best tenth of the trials "
            "(PED-ANOVA)."
        )
    if count <= _MOST:
        return ""
    return (
        f"The first {_MOST} of {count} settings of its search space; which of them matter cannot "
        "be told from so few trials."
    )


def _drawn(
    axes: Sequence[_Axis], names: Sequence[str], texts: Sequence[Sequence[str]]
) -> go.Figure:
    """The figure; the last axis has all trials, best first, as `texts` has."""
    trials = list(axes[-1].places)
    quarter = max(2, math.ceil(len(trials) / 4))
    levels = [-row for row in range(len(axes))]
    figure = figure_of("", "")
    for name, shown, line, opacity in (
        ("other trials", slice(quarter, None), {"color": QUIET_COLOUR, "width": 1}, 0.45),
        ("best quarter", slice(1, quarter), {"color": COLOURS[0], "width": 1.5}, 0.8),
        (f"best: {trials[0]}", slice(0, 1), {"color": BEST_COLOUR, "width": 3}, 1),
    ):
        x: list[float | None] = []
        y: list[int | None] = []
        text: list[str] = []
        for trial, words in zip(trials[shown], texts[shown], strict=True):
            places = (axis.places.get(trial) for axis in axes)  # a gap where it has none
            x += [*(None if place is None else round(place, 4) for place in places), None]
            y += [*levels, None]
            text += [*words, ""]
        if x:
            figure.add_scatter(
                x=x,
                y=y,
                text=text,
                name=name,
                mode="lines+markers",
                line=line,
                marker_size=5,
                opacity=opacity,
                hovertemplate="%{text}<extra></extra>",
            )
    for level, axis in zip(levels, axes, strict=True):
        for place, label in _legible(axis.ticks):
            figure.add_annotation(
                x=place,
                y=level,
                text=label,
                showarrow=False,
                yshift=-12,
                xanchor="left" if place == 0 else "right" if place == 1 else "center",
                font_size=11,
                borderpad=0,
            )
    figure.update_xaxes(visible=False, range=[-0.03, 1.03], fixedrange=True)
    figure.update_yaxes(
        tickvals=levels,
        ticktext=list(names),
        range=[levels[-1] - 0.5, 0.35],
        automargin=True,
        zeroline=False,
        fixedrange=True,
    )
    figure.update_layout(height=80 + _ROW * len(axes), margin_b=10, margin_l=10)
    return figure


def _axis(distribution: BaseDistribution, values: dict[str, Any]) -> _Axis:
    """The row of a setting; `values` by trial."""
    ends = (getattr(distribution, "low", None), getattr(distribution, "high", None))
    if not all(map(_is_number, (*ends, *values.values()))):
        return _choices(getattr(distribution, "choices", ()), values)
    whole = isinstance(distribution, IntDistribution)
    # a search that goes on may have had other ranges before
    low, high = min(*ends, *values.values()), max(*ends, *values.values())
    if getattr(distribution, "log", False) and low > 0:
        start, end = math.log(low), math.log(high)
        return _Axis(
            {trial: (math.log(value) - start) / (end - start) for trial, value in values.items()},
            [(share, _cell(low * (high / low) ** share, 2, whole)) for share in (0, 0.5, 1)],
        )
    few = whole and high - low < _FEW
    shares = [i / (high - low) for i in range(int(high - low) + 1)] if few else [0, 0.5, 1]
    return _Axis(
        {trial: (value - low) / (high - low) for trial, value in values.items()},
        [(share, _cell(low + share * (high - low), 2, whole)) for share in shares],
    )


def _is_number(value: Any) -> bool:
    """Whether it can be placed between others; a stranger's journal may have anything."""
    return isinstance(value, int | float) and abs(value) < _LARGEST


def _choices(choices: Sequence[Any], values: dict[str, Any]) -> _Axis:
    """The row of a setting whose values have no scale: those that were tried, in their order."""
    tried = set(map(str, values.values()))
    used = [one for one in dict.fromkeys(map(str, (*choices, *values.values()))) if one in tried]
    place = {choice: i / max(len(used) - 1, 1) for i, choice in enumerate(used)}
    return _Axis(
        {trial: place[str(value)] for trial, value in values.items()},
        [(share, _shortened(choice)) for choice, share in place.items()],
    )


def _score_axis(records: Sequence[TrialRecord]) -> _Axis:
    """The last row: the best score on the right, whether a high or a low one is good."""
    scores = [score_value(record.best, record.metric) for record in records]
    best, worst = scores[0], max(scores, key=lambda score: abs(score - scores[0]))
    width = best - worst or 1.0
    places = [(score - worst) / width if best != worst else 1.0 for score in scores]
    ticks = [i / (_SCORE_TICKS - 1) for i in range(_SCORE_TICKS)] if best != worst else [1.0]
    return _Axis(
        {record.trial: place for record, place in zip(records, places, strict=True)},
        [(share, f"{worst + share * (best - worst):.3f}") for share in ticks],
    )


def _legible(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The ticks, from left to right, without those whose labels would touch others."""

    def span(place: float, label: str) -> tuple[float, float]:
        width = (len(label) + 1) / _WIDTH
        start = 0.0 if place == 0 else 1 - width if place == 1 else place - width / 2
        return start, start + width

    kept = list(ticks[:1])
    for tick in ticks[1:-1]:
        start, end = span(*tick)
        if span(*kept[-1])[1] <= start and end <= span(*ticks[-1])[0]:
            kept.append(tick)
    return kept + list(ticks[1:][-1:])


def _broken(name: str) -> str:
    return "<br>".join(textwrap.wrap(name, _NAME, break_long_words=False)) or name


def _shortened(label: str) -> str:
    return label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"


def _cell(value: Any, digits: int = 3, whole: bool = False) -> str:
    if value is None:
        return "–"
    if whole:
        return str(round(value))
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
