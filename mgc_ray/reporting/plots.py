"""A search's plots for plotly.js, as plain `{"data": [...], "layout": {...}}`, and their tables.

Each function returns a Plot or None where there is nothing to show. Colours of text and background
are the page's, which knows whether it is dark.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from mgc_ray.ensembling.calibration import calibration_error
from mgc_ray.reporting.content import Judged, Search
from mgc_ray.training.metrics import METRIC, confusion_matrix
from mgc_ray.tuning.records import FAILED, STOPPED_EARLY, TrialRecord

# of Okabe and Ito, which most colour-blind people can tell apart; without black, for dark pages
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A400")
_PERCENT = ".0%"
_FEWEST_LINES = 5  # trials of a family


@dataclass(frozen=True)
class Plot:
    """`says`: what it shows, for who does not see it. `head`, `rows`: the same as a table."""

    title: str
    says: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)

    @property
    def figure(self) -> dict[str, Any]:
        return {"data": self.data, "layout": self.layout}


def learning_curves(search: Search) -> Plot | None:
    """Validation accuracy of each trial by epoch; a cross where ASHA stopped it."""
    records = [record for record in search.records if record.curve]
    if not records:
        return None
    data: list[dict[str, Any]] = []
    for number, (family, group) in enumerate(_by_family(records)):
        colour = COLOURS[number % len(COLOURS)]
        x: list[int | None] = []
        y: list[float | None] = []
        names: list[str | None] = []
        sizes: list[int] = []
        for record in group:  # all in one line with gaps: a thousand lines would take seconds
            x += [*range(1, record.epochs + 1), None]
            y += [*(round(metrics[METRIC], 4) for metrics in record.curve), None]
            names += [*[record.trial] * record.epochs, None]
            sizes += [3 if record.epochs > 1 else 6] * (record.epochs + 1)  # one has no line
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": family,
                "legendgroup": family,
                "x": x,
                "y": y,
                "text": names,
                "line": {"color": colour, "width": 1},
                "marker": {"color": colour, "size": sizes},
                "opacity": 0.8,
                "hovertemplate": "%{text}<br>epoch %{x}: %{y:.1%}<extra></extra>",
            }
        )
    stopped = [record for record in records if record.status == STOPPED_EARLY]
    if stopped:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "stopped by ASHA",
                "x": [record.epochs for record in stopped],
                "y": [round(record.curve[-1][METRIC], 4) for record in stopped],
                "text": [record.trial for record in stopped],
                "marker": {"symbol": "x", "size": 7, "color": "#888888"},
                "hovertemplate": "%{text} stopped after epoch %{x}: %{y:.1%}<extra></extra>",
            }
        )
    best = records[0]
    return Plot(
        "Learning curves",
        f"Validation track accuracy of {len(records)} trials by epoch, {len(stopped)} of them "
        f"stopped early; the best, {best.trial}, has {best.accuracy:.1%} in epoch "
        f"{best.best_epoch}.",
        data,
        _layout("epoch", "validation track accuracy", tickformat=_PERCENT),
        ("trial", "status", "epochs", "best epoch", "accuracy there"),
        [
            (
                record.trial,
                record.status.replace("_", " "),
                str(record.epochs),
                str(record.best_epoch),
                f"{record.accuracy:.1%}",
            )
            for record in records
        ],
    )


def best_so_far(search: Search) -> Plot | None:
    """The best validation accuracy of all trials that had ended, over the search's time."""
    timed = [r for r in search.records if r.best and r.status != FAILED and r.trial in search.ends]
    if len(timed) < 2:
        return None
    timed.sort(key=lambda record: search.ends[record.trial])
    minutes = [round(search.ends[record.trial] / 60, 3) for record in timed]
    best = np.maximum.accumulate([record.accuracy for record in timed]).round(4).tolist()
    names = [record.trial for record in timed]
    points = {
        "type": "scatter",
        "mode": "markers",
        "name": "a trial",
        "x": minutes,
        "y": [round(record.accuracy, 4) for record in timed],
        "text": names,
        "marker": {"color": COLOURS[5], "size": 5},
        "hovertemplate": "%{text}: %{y:.1%} after %{x:.1f} min<extra></extra>",
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": minutes,
        "y": best,
        "line": {"shape": "hv", "color": COLOURS[4], "width": 2},
        "hovertemplate": "best after %{x:.1f} min: %{y:.1%}<extra></extra>",
    }
    rises = [i for i in range(len(best)) if not i or best[i] > best[i - 1]]
    return Plot(
        "Best so far",
        f"The best validation accuracy rose from {best[0]:.1%} to {best[-1]:.1%} within "
        f"{minutes[-1]:.1f} minutes; the last rise came after {minutes[rises[-1]]:.1f}."
        if best[-1] > best[0]
        else f"The first best validation accuracy, {best[0]:.1%}, was not surpassed in "
        f"{minutes[-1]:.1f} minutes.",
        [points, line],
        _layout("minutes since the first trial began", "validation track accuracy", _PERCENT),
        ("minutes", "best so far", "by"),
        [(f"{minutes[i]:.1f}", f"{best[i]:.1%}", names[i]) for i in rises],
    )


def parallel_coordinates(search: Search, family: str) -> Plot | None:
    """A line a trial of one family through all its settings to its accuracy, in three groups.

    Drawn as ordinary lines: plotly's own kind needs WebGL, of which a browser gives a page little.
    """
    records = [
        r
        for r in search.records
        if r.family == family and r.best and r.status != FAILED and r.params
    ]
    if len(records) < _FEWEST_LINES:
        return None
    axes = []
    for name in sorted({name for record in records for name in record.params}):
        values = [record.params.get(name) for record in records]
        if len({repr(value) for value in values}) > 1:
            axes.append(_axis(name, values))
    if not axes:
        return None
    names = [axis.name for axis in axes]
    accuracy = [record.accuracy for record in records]  # which fall
    axes.append(_axis("accuracy", accuracy, lambda value: f"{value:.1%}", linear=True))
    tenth, half = math.ceil(len(records) / 10), math.ceil(len(records) / 2)
    data = []
    for title, part, colour, width in (
        ("the other half", slice(half, None), "#999999", 0.7),
        ("the better half", slice(tenth, half), COLOURS[0], 1.0),
        ("the best tenth", slice(0, tenth), COLOURS[4], 2.2),
    ):
        x: list[int | None] = []
        y: list[float | None] = []
        text: list[str | None] = []
        for i in range(len(records))[part]:
            x += [*range(len(axes)), None]
            y += [*(round(axis.places[i], 4) for axis in axes), None]
            text += [
                *(f"{records[i].trial}: {axis.name} {axis.texts[i]}" for axis in axes),
                None,
            ]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": title,
                "x": x,
                "y": y,
                "text": text,
                "line": {"color": colour, "width": width},
                "marker": {"color": colour, "size": 3},
                "opacity": 0.75,
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    spoken = [axis.name.replace("_", " ") for axis in axes]
    layout = _layout("", "")
    layout["xaxis"] = {
        "tickvals": list(range(len(axes))),
        "ticktext": spoken,
        "tickangle": -40,
        "range": [-0.6, len(axes) - 0.4],
        "automargin": True,
        "showgrid": True,
        "zeroline": False,
    }
    layout["yaxis"] = {"visible": False, "range": [-0.06, 1.06]}
    layout["width"] = max(900, 78 * len(axes))
    layout["height"] = 460
    layout["margin"] = {"l": 20, "r": 20, "t": 20, "b": 90}
    layout["annotations"] = [
        {
            "x": number,
            "y": place,
            "text": label,
            "showarrow": False,
            "xanchor": "right",
            "xshift": -4,
            "font": {"size": 10},
        }
        for number, axis in enumerate(axes)
        for place, label in axis.labels
    ]
    return Plot(
        f"Settings of {family}",
        f"{len(records)} trials of {family} as lines through {len(names)} settings to their "
        "validation accuracy on the right; the legend shows and hides the best tenth, the better "
        "half and the others.",
        data,
        layout,
        ("trial", "accuracy", *spoken[:-1]),
        [
            (r.trial, f"{r.accuracy:.1%}", *(_in_short(r.params.get(name)) for name in names))
            for r in records[:50]
        ],
    )


@dataclass(frozen=True)
class _Axis:
    """`places` 0..1 of each trial, what stands there in words, and `labels` (place, text)."""

    name: str
    places: list[float]
    texts: list[str]
    labels: list[tuple[float, str]]


def _axis(
    name: str,
    values: Sequence[Any],
    spoken: Callable[[Any], str] | None = None,
    linear: bool = False,
) -> _Axis:
    """Numbers from the least to the greatest, kinds at equal distances; what is missing is below.

    A scale of numbers is logarithmic where most are far below the middle, as learning rates are.
    """
    spoken = spoken or _in_short
    texts = [spoken(value) for value in values]
    present = [v for v in values if v is not None]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in present) and (
        len(set(present)) > 1
    ):
        low, high = min(present), max(present)
        logarithmic = not linear and low > 0 and high / low >= 8
        logarithmic = logarithmic and float(np.median(present)) < (low + high) / 4
        scale = math.log if logarithmic else float
        bottom = 0.0 if len(present) == len(values) else 0.15

        def place(value: float) -> float:
            return bottom + (1 - bottom) * (scale(value) - scale(low)) / (scale(high) - scale(low))

        middle = math.sqrt(low * high) if logarithmic else (low + high) / 2
        told = sorted(set(present))
        if len(told) > 8 or min(place(b) - place(a) for a, b in pairwise(told)) < 0.08:
            told = [low, float(middle), high]
        labels = [(place(value), spoken(value)) for value in told]
        if bottom:
            labels.append((0.0, "not set"))
        return _Axis(name, [0.0 if v is None else place(v) for v in values], texts, labels)
    kinds = sorted(set(texts), key=_numbers_first)
    last = max(len(kinds) - 1, 1)
    shown = range(len(kinds)) if len(kinds) <= 8 else (0, len(kinds) - 1)
    return _Axis(
        name,
        [kinds.index(text) / last for text in texts],
        texts,
        [(i / last, kinds[i]) for i in shown],
    )


def importance(search: Search) -> Plot | None:
    """The share of each parameter, by family."""
    found = search.importances
    if not found:
        return None
    data, rows = [], []
    for number, (family, shares) in enumerate(sorted(found.items())):
        kept = sorted(shares.items(), key=lambda item: -item[1])[:12]
        rows += [(family, name, f"{share:.2f}") for name, share in kept]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": family,
                "x": [round(share, 4) for _, share in kept],
                "y": [f"{name} ({family})" if len(found) > 1 else name for name, _ in kept],
                "marker": {"color": COLOURS[number % len(COLOURS)]},
                "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
            }
        )
    layout = _layout("share of importance", "")
    layout["yaxis"] |= {"autorange": "reversed", "automargin": True}
    layout["height"] = 140 + 22 * len(rows)
    first = rows[0]
    return Plot(
        "What mattered",
        f"Hyperparameter importance by PED-ANOVA; for {first[0]} most of all {first[1]}, with a "
        f"share of {first[2]}.",
        data,
        layout,
        ("family", "setting", "share"),
        rows,
    )


def confusion(judged: Judged, genres: Sequence[str]) -> Plot:
    matrix = confusion_matrix(judged.predicted, judged.true, len(genres))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    off = np.where(np.eye(len(genres), dtype=bool), -1, matrix)
    row, column = divmod(int(off.argmax()), len(genres))
    layout = _layout("predicted", "true")
    layout["yaxis"] |= {"autorange": "reversed", "automargin": True}
    layout["xaxis"] |= {"automargin": True, "tickangle": -45}
    layout["height"] = 220 + 34 * len(genres)
    return Plot(
        "Confusion matrix",
        f"Of the {judged.part.replace('_', ' ')} tracks; no genre was taken for another more often "
        f"than {genres[row]} for {genres[column]} ({matrix[row, column]} times).",
        [
            {
                "type": "heatmap",
                "x": list(genres),
                "y": list(genres),
                "z": shares.round(4).tolist(),
                "text": matrix.tolist(),
                "texttemplate": "%{text}",
                "colorscale": "Viridis",
                "zmin": 0,
                "zmax": 1,
                "colorbar": {"tickformat": _PERCENT, "thickness": 12, "title": {"text": "of row"}},
                "hovertemplate": "%{y} taken for %{x}: %{text} (%{z:.0%})<extra></extra>",
            }
        ],
        layout,
        ("true \\ predicted", *genres),
        [
            (genre, *(str(n) for n in counts))
            for genre, counts in zip(genres, matrix.tolist(), strict=True)
        ],
    )


def calibration(judged: Judged) -> Plot:
    """Ten bins of the probability that the predicted genre got, and how often it was right."""
    confidence, right = judged.probs.max(1), judged.predicted == judged.true
    place = np.minimum((confidence * 10).astype(int), 9)
    rows, x, y, sizes = [], [], [], []
    for number in np.unique(place):
        inside = place == number
        said, was, count = confidence[inside].mean(), right[inside].mean(), int(inside.sum())
        x.append(round(float(said), 4))
        y.append(round(float(was), 4))
        sizes.append(count)
        rows.append(
            (f"{number * 10} to {number * 10 + 10} %", f"{said:.1%}", f"{was:.1%}", str(count))
        )
    error = calibration_error(judged.probs, judged.true)
    layout = _layout("probability that it gave", "share that was right", _PERCENT)
    layout["xaxis"] |= {"range": [0, 1.02], "tickformat": _PERCENT}
    layout["yaxis"] |= {"range": [0, 1.05]}
    return Plot(
        "Calibration",
        f"Whether probabilities mean what they say: on average they are {error:.1%} off "
        f"(expected calibration error of {len(right)} tracks).",
        [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "perfect",
                "x": [0, 1],
                "y": [0, 1],
                "line": {"dash": "dot", "color": "#888888"},
                "hoverinfo": "skip",
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "this ensemble",
                "x": x,
                "y": y,
                "text": [f"{count} tracks" for count in sizes],
                "marker": {
                    "size": [round(6 + 24 * math.sqrt(count / max(sizes)), 1) for count in sizes],
                    "color": COLOURS[0],
                },
                "hovertemplate": "said %{x:.0%}, right %{y:.0%} of %{text}<extra></extra>",
            },
        ],
        layout,
        ("said", "on average", "right", "tracks"),
        rows,
    )


def _by_family(records: Sequence[TrialRecord]) -> list[tuple[str, list[TrialRecord]]]:
    ordered = sorted(records, key=lambda record: record.family)
    return [(family, list(group)) for family, group in groupby(ordered, lambda r: r.family)]


def _numbers_first(text: str) -> tuple[int, float, str]:
    try:
        return 1, float(text), ""
    except ValueError:
        return (0, 0.0, "") if text == "–" else (2, 0.0, text)


def _in_short(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _layout(x: str, y: str, tickformat: str = "") -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}} | ({"tickformat": tickformat} if tickformat else {}),
        "margin": {"l": 70, "r": 20, "t": 20, "b": 60},
        "legend": {"orientation": "h", "y": 1.12},
        "hovermode": "closest",
        "height": 420,
    }
