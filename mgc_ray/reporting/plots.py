"""The plots of a report as plotly figures, each with a table of the same.

Each function returns a Plot, or None where there is nothing to show. The page sets the colours of
text, grid and background, as it knows whether it is dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial
from plotly.subplots import make_subplots

from mgc_ray.config import Metric
from mgc_ray.evaluation.metrics import calibration_bins
from mgc_ray.reporting.content import Table, trial_table
from mgc_ray.results import (
    COMPLETED,
    OUT_OF_TIME,
    STOPPED_EARLY,
    EpochMetrics,
    Metrics,
    Predictions,
    TrialRecord,
    in_words,
)
from mgc_ray.settings import Params
from mgc_ray.task import score_cell, score_heading, score_value
from mgc_ray.terminal.command import count_of

# of Okabe and Ito, which most colour-blind people can tell apart; without black, for dark pages
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A400")
_STATUS_COLOURS = {OUT_OF_TIME: COLOURS[3], STOPPED_EARLY: COLOURS[5], COMPLETED: COLOURS[1]}
_FEW_EPOCHS = 12  # of which each has a tick
_FEWEST = 5  # trials of a family, for a plot of its settings
_COLUMNS, _PANEL = 4, 180  # panels beside each other, and the height of one in pixels
_LISTED = 50  # trials of a family, in the table of its settings


@dataclass(frozen=True)
class Plot:
    """`summary`: what the plot shows, for those who do not see it."""

    title: str
    summary: str
    figure: go.Figure
    table: Table | None = None


def learning_curves(records: Sequence[TrialRecord]) -> Plot | None:
    """Validation score of each trial by epoch, with a cross where ASHA stopped it.

    `records`: best first.
    """
    records = [record for record in records if record.best]
    if not records:
        return None
    best, metric = records[0], records[0].metric
    heading = f"validation {score_heading(metric)}"
    figure = _figure("epoch", heading)
    if max(record.epochs for record in records) <= _FEW_EPOCHS:
        figure.update_xaxes(dtick=1)  # no ticks between epochs
    hover = "%{text}, epoch %{x}: %{y:.3f}<extra></extra>"
    families = sorted({record.family for record in records})
    for family, colour in zip(families, cycle(COLOURS)):
        # one line with gaps per family: a thousand lines would take seconds to draw
        epochs: list[int | None] = []
        scores: list[float | None] = []
        names: list[str] = []
        for record in records:
            if record.family == family:
                epochs += [*range(1, record.epochs + 1), None]
                scores += [*(_rounded(metrics, metric) for metrics in record.curve), None]
                names += [record.trial] * (record.epochs + 1)
        figure.add_scatter(
            x=epochs,
            y=scores,
            text=names,
            name=family,
            mode="lines+markers",
            line={"color": colour, "width": 1},
            marker_size=4,  # which also shows a trial of one epoch, that has no line
            opacity=0.8,
            hovertemplate=hover,
        )
    stopped = [record for record in records if record.status == STOPPED_EARLY]
    figure.add_scatter(
        x=[record.epochs for record in stopped],
        y=[_rounded(record.curve[-1], metric) for record in stopped],
        text=[record.trial for record in stopped],
        name="stopped by ASHA",
        mode="markers",
        marker={"symbol": "x", "size": 7, "color": "#888888"},
        hovertemplate=hover,
    )
    late = sum(record.status == OUT_OF_TIME for record in records)
    ended = f"{len(stopped)} of them stopped early"
    ended += f", {late} ended by the time limit" if late else ""
    return Plot(
        "Learning curves",
        f"{heading.capitalize()} of {count_of(len(records), 'trial')} by epoch, {ended}; the best, "
        f"{best.trial}, has {score_cell(best.best, metric)} in epoch {best.best_epoch}.",
        figure,
        trial_table("All trials that have a score, best first", records),
    )


def best_so_far(records: Sequence[TrialRecord], end_times: dict[str, float]) -> Plot | None:
    """The best validation score of all trials that had ended, over the time of the search.

    `records`: best first. `end_times`: seconds by trial.
    """
    timed = [record for record in records if record.usable and record.trial in end_times]
    if len(timed) < 2:
        return None
    metric = timed[0].metric
    order = sorted(range(len(timed)), key=lambda rank: end_times[timed[rank].trial])
    minutes = [round(end_times[timed[rank].trial] / 60, 3) for rank in order]
    best = [timed[rank] for rank in accumulate(order, min)]
    scores = [_rounded(record.best, metric) for record in best]
    improved = [i for i in range(len(best)) if not i or scores[i] != scores[i - 1]]
    cells = [score_cell(best[i].best, metric) for i in improved]
    heading = f"validation {score_heading(metric)}"
    figure = _figure("minutes since the first trial began", heading)
    figure.add_scatter(
        x=minutes,
        y=[_rounded(timed[rank].best, metric) for rank in order],
        text=[timed[rank].trial for rank in order],
        name="a trial",
        mode="markers",
        marker={"color": COLOURS[5], "size": 5},
        hovertemplate="%{text}: %{y:.3f} after %{x:.1f} min<extra></extra>",
    )
    figure.add_scatter(
        x=minutes,
        y=scores,
        name="best so far",
        mode="lines",
        line={"shape": "hv", "color": COLOURS[4], "width": 2},
        hovertemplate="best after %{x:.1f} min: %{y:.3f}<extra></extra>",
    )
    return Plot(
        "Best so far",
        f"The best {heading} went from {cells[0]} to {cells[-1]} within {minutes[-1]:.1f} minutes; "
        f"the last improvement came after {minutes[improved[-1]]:.1f}.",
        figure,
        Table(
            "Each improvement",
            ("minutes", "best so far", "trial"),
            [
                (f"{minutes[i]:.1f}", cell, best[i].trial)
                for i, cell in zip(improved, cells, strict=True)
            ],
        ),
    )


def settings(
    family: str, trials: Sequence[FrozenTrial], records: Sequence[TrialRecord]
) -> Plot | None:
    """The validation score of a family's trials by each of their settings, one panel per setting.

    `trials`: of Optuna, which have the ranges of settings. `records`: best first.
    """
    params, ranges = {}, {}
    for trial in trials:
        params[trial.user_attrs["trial"]] = trial.params
        ranges.update(trial.distributions)
    records = [record for record in records if record.usable and record.trial in params]
    names = [
        name
        for name in sorted(ranges)
        if len({params[record.trial].get(name) for record in records} - {None}) > 1
    ]
    if len(records) < _FEWEST or not names:
        return None
    metric = records[0].metric
    rows = math.ceil(len(names) / _COLUMNS)
    figure = make_subplots(
        rows,
        _COLUMNS,
        shared_yaxes="all",
        subplot_titles=[name.replace("_", " ") for name in names],
        horizontal_spacing=0.03,
        vertical_spacing=0.4 / rows,
        figure=_figure("", ""),
    )
    for i, name in enumerate(names):
        panel = {"row": i // _COLUMNS + 1, "col": i % _COLUMNS + 1}
        categorical = isinstance(ranges[name], CategoricalDistribution)
        for status, colour in _STATUS_COLOURS.items():
            if all(record.status != status for record in records):
                continue
            shown = [r for r in records if r.status == status and name in params[r.trial]]
            values = [params[record.trial][name] for record in shown]
            figure.add_scatter(
                x=[str(value) for value in values] if categorical else values,
                y=[_rounded(record.best, metric) for record in shown],
                text=[record.trial for record in shown],
                name=in_words(status),
                legendgroup=status,
                showlegend=i == 0,
                mode="markers",
                marker={"color": colour, "size": 5},
                opacity=0.7,
                hovertemplate=f"%{{text}}: {name} %{{x}}, %{{y:.3f}}<extra></extra>",
                **panel,
            )
        figure.update_xaxes(_axis(ranges[name]), **panel)
    figure.update_layout(width=1000, height=100 + _PANEL * rows, margin_t=70)
    heading = score_heading(metric)
    return Plot(
        f"Settings of {family}",
        f"Validation {heading} of {len(records)} trials of {family} by each of {len(names)} "
        f"settings; the best, {records[0].trial}, has {score_cell(records[0].best, metric)}.",
        figure,
        Table(
            f"The best {_LISTED} trials of {family}",
            ("trial", heading, *(name.replace("_", " ") for name in names)),
            [
                (
                    record.trial,
                    score_cell(record.best, metric),
                    *(_cell(params[record.trial].get(name)) for name in names),
                )
                for record in records[:_LISTED]
            ],
        ),
    )


def _axis(distribution: BaseDistribution) -> Params:
    """How plotly draws the axis of a setting."""
    if isinstance(distribution, CategoricalDistribution):
        choices = [str(choice) for choice in distribution.choices]
        return {"type": "category", "categoryorder": "array", "categoryarray": choices}
    if getattr(distribution, "log", False):
        return {"type": "log", "dtick": 1, "tickformat": "~g"}
    few = isinstance(distribution, IntDistribution) and distribution.high - distribution.low < 8
    return {"dtick": 1} if few else {}


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def importance(importances: dict[str, dict[str, float]]) -> Plot | None:
    """The share of each setting, by family."""
    if not importances:
        return None
    figure, rows = _figure("share of importance", ""), []
    for (family, shares), colour in zip(sorted(importances.items()), cycle(COLOURS)):
        largest = sorted(shares.items(), key=lambda item: -item[1])[:12]
        rows += [(family, name, f"{share:.2f}") for name, share in largest]
        figure.add_bar(
            x=[round(share, 4) for _, share in largest],
            y=[f"{name} ({family})" if len(importances) > 1 else name for name, _ in largest],
            orientation="h",
            name=family,
            marker_color=colour,
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(height=140 + 22 * len(rows))
    family, name, share = rows[0]
    return Plot(
        "Importance of settings",
        f"By PED-ANOVA; the most important one for {family} is {name}, with a share of {share}.",
        figure,
        Table("Share of each setting", ("family", "setting", "share"), rows),
    )


def confusion(part: str, metrics: Metrics) -> Plot:
    """How often each genre was predicted as each other one."""
    genres, matrix = metrics.genres, np.array(metrics.confusion_matrix)
    off_diagonal = np.where(np.eye(len(genres), dtype=bool), -1, matrix)
    row, column = divmod(int(off_diagonal.argmax()), len(genres))
    figure = _figure("predicted", "true")
    figure.add_heatmap(
        x=genres,
        y=genres,
        z=(matrix / np.maximum(matrix.sum(1, keepdims=True), 1)).round(4).tolist(),
        text=matrix.tolist(),
        texttemplate="%{text}",
        colorscale="Viridis",
        zmin=0,
        zmax=1,
        colorbar={"tickformat": ".0%", "thickness": 12, "title": {"text": "of row"}},
        hovertemplate="%{y} predicted as %{x}: %{text} (%{z:.0%})<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(automargin=True, tickangle=-45)
    figure.update_layout(height=220 + 34 * len(genres))
    return Plot(
        "Confusion matrix",
        f"Of the tracks ({in_words(part)}); the most frequent confusion is {genres[row]} predicted "
        f"as {genres[column]} ({count_of(matrix[row, column], 'track')}).",
        figure,
        Table(
            "Tracks by true genre (rows) and predicted genre (columns)",
            ("true \\ predicted", *genres),
            [
                (genre, *map(str, counts))
                for genre, counts in zip(genres, matrix.tolist(), strict=True)
            ],
        ),
    )


def calibration(metrics: Metrics, predictions: Predictions) -> Plot:
    """Ten bins of the probability of the predicted genre, and how often it was right."""
    bins = calibration_bins(predictions.probs, predictions.true)
    confidence, right, count = (column.tolist() for column in bins)
    figure = _figure("probability of the predicted genre", "share that was right")
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        name="perfect",
        mode="lines",
        line={"dash": "dot", "color": "#888888"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=np.round(confidence, 4).tolist(),
        y=np.round(right, 4).tolist(),
        text=[f"{tracks} tracks" for tracks in count],
        name="this ensemble",
        mode="lines+markers",
        marker={
            "size": [round(6 + 24 * math.sqrt(tracks / max(count)), 1) for tracks in count],
            "color": COLOURS[0],
        },
        hovertemplate="probability %{x:.0%}, right %{y:.0%} of %{text}<extra></extra>",
    )
    figure.update_xaxes(range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(range=[0, 1.05], tickformat=".0%")
    return Plot(
        "Calibration",
        "On average the probability of the predicted genre is off by "
        f"{metrics.calibration_error:.1%} (expected calibration error of {metrics.tracks} tracks).",
        figure,
        Table(
            "Tracks by the probability of the predicted genre, in ten bins",
            ("mean probability", "right", "tracks"),
            [
                (f"{p:.1%}", f"{share:.1%}", str(tracks))
                for p, share, tracks in zip(confidence, right, count, strict=True)
            ],
        ),
    )


def _rounded(metrics: EpochMetrics, metric: Metric) -> float:
    """A score as plots have it: more digits would only make the page larger."""
    return round(score_value(metrics, metric), 4)


def _figure(x: str, y: str) -> go.Figure:
    return go.Figure(
        layout={
            "template": "none",
            "font": {"family": "system-ui, sans-serif"},
            "xaxis": {"title": {"text": x}},
            "yaxis": {"title": {"text": y}},
            "margin": {"l": 70, "r": 20, "t": 40, "b": 60},
            "legend": {"orientation": "h", "yref": "container", "y": 1, "yanchor": "top"},
            "hovermode": "closest",
            "height": 420,
        }
    )
