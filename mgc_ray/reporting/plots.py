"""The plots of a report as plotly figures, each with a table of the same.

Each function returns a Plot, or None where there is nothing to show. The page sets the colours of
text, grid and background, as it knows whether it is dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle

import numpy as np
import plotly.graph_objects as go

from mgc_ray.config import Metric
from mgc_ray.ensembling.calibrate import ENOUGH_TRACKS
from mgc_ray.evaluation.metrics import calibration_bins
from mgc_ray.reporting.table import Table
from mgc_ray.results import (
    OUT_OF_TIME,
    STOPPED_EARLY,
    EpochMetrics,
    Metrics,
    Predictions,
    TrialRecord,
)
from mgc_ray.task import score_cell, score_heading, score_value
from mgc_ray.terminal.command import count_of

# of Okabe and Ito, which most colour-blind people can tell apart, the bright ones darker: at least
# three times as bright or dark as a light page and a dark one
COLOURS = ("#0072B2", "#B87A00", "#009E73", "#CC79A7", "#2F8FC9", "#8F8000")
BEST_COLOUR = "#D55E00"  # of the best trial
QUIET_COLOUR = "#7A869A"
_FEW_EPOCHS = 12  # of which each has a tick


@dataclass(frozen=True)
class Plot:
    """`summary`: what the plot shows, for those who do not see it; all where there is no figure."""

    title: str
    summary: str
    figure: go.Figure | None = None
    table: Table | None = None


def learning_curves(records: Sequence[TrialRecord]) -> Plot | None:
    """Validation score of each trial by epoch, how some were ended, and the best trial.

    None where no trial has a second epoch. `records`: best first.
    """
    records = [record for record in records if record.best]
    if not records or max(record.epochs for record in records) < 2:
        return None
    best, metric = records[0], records[0].metric
    heading = f"validation {score_heading(metric)}"
    figure = figure_of("epoch", heading)
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
    for status, name, symbol in (
        (STOPPED_EARLY, "stopped early by ASHA", "x"),
        (OUT_OF_TIME, "ended by the time limit", "square-open"),
    ):
        ended = [record for record in records if record.status == status]
        if ended:
            figure.add_scatter(
                x=[record.epochs for record in ended],
                y=[_rounded(record.curve[-1], metric) for record in ended],
                text=[record.trial for record in ended],
                name=name,
                mode="markers",
                marker={"symbol": symbol, "size": 8, "color": QUIET_COLOUR},
                hovertemplate=hover,
            )
    figure.add_scatter(
        x=list(range(1, best.epochs + 1)),
        y=[_rounded(metrics, metric) for metrics in best.curve],
        text=[best.trial] * best.epochs,
        name=f"best: {best.trial}",
        mode="lines+markers",
        line={"color": BEST_COLOUR, "width": 3},
        marker={
            "symbol": ["star" if epoch == best.best_epoch else "circle" for epoch in _epochs(best)],
            "size": [15 if epoch == best.best_epoch else 5 for epoch in _epochs(best)],
        },
        hovertemplate=hover,
    )
    return Plot(
        "Learning curves",
        f"{heading.capitalize()} of {count_of(len(records), 'trial')} by epoch; the best, "
        f"{best.trial}, has {score_cell(best.best, metric)} in epoch {best.best_epoch} (star).",
        figure,
    )


def _epochs(record: TrialRecord) -> range:
    return range(1, record.epochs + 1)


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
    figure = figure_of("minutes since the first trial began", heading)
    figure.update_xaxes(rangemode="tozero")
    figure.add_scatter(
        x=minutes,
        y=[_rounded(timed[rank].best, metric) for rank in order],
        text=[timed[rank].trial for rank in order],
        name="a trial",
        mode="markers",
        marker={"color": COLOURS[0], "size": 6},
        hovertemplate="%{text}: %{y:.3f} after %{x:.1f} min<extra></extra>",
    )
    figure.add_scatter(
        x=minutes,
        y=scores,
        name="best so far",
        mode="lines",
        line={"shape": "hv", "color": BEST_COLOUR, "width": 2},
        hovertemplate="best after %{x:.1f} min: %{y:.3f}<extra></extra>",
    )
    return Plot(
        "Best so far",
        f"The best {heading}, {cells[-1]}, came after {minutes[improved[-1]]:.1f} of "
        f"{minutes[-1]:.1f} minutes"
        + (f"; the first trial that ended has {cells[0]}." if len(cells) > 1 else "."),
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


def calibration(metrics: Metrics, predictions: Predictions) -> Plot:
    """Ten bins of the probability of the predicted genre, and how often it was right.

    Without a figure where there are few tracks, or all are in one bin.
    """
    title = "Calibration"
    if metrics.tracks < ENOUGH_TRACKS:
        few = f"{metrics.tracks} of the {ENOUGH_TRACKS} that it takes"
        return Plot(title, f"Too few songs for calibration: {few}.")
    bins = calibration_bins(predictions.probs, predictions.true)
    confidence, right, count = (column.tolist() for column in bins)
    summary = (
        "On average the probability of the predicted genre is off by "
        f"{metrics.calibration_error:.1%} (expected calibration error of {metrics.tracks} tracks)."
    )
    if len(count) == 1:
        mean = f"It is {confidence[0]:.0%} on average, and {right[0]:.0%} are right."
        return Plot(title, f"{summary} {mean}")
    figure = figure_of("probability of the predicted genre", "share that was right")
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        name="perfect",
        mode="lines",
        line={"dash": "dot", "color": QUIET_COLOUR},
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
        title,
        f"{summary} The size of a dot is the number of tracks.",
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


def figure_of(x: str, y: str) -> go.Figure:
    """An empty figure with these titles of its axes."""
    return go.Figure(
        layout={
            "template": "none",
            "font": {"family": "system-ui, sans-serif", "size": 13},
            "xaxis": {"title": {"text": x}},
            "yaxis": {"title": {"text": y}},
            "margin": {"l": 60, "r": 15, "t": 20, "b": 50},
            # above the plot, which makes room for as many lines as it takes
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "hovermode": "closest",
            "height": 420,
        }
    )
