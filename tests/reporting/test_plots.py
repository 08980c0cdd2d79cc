"""What the plots of a report draw, of trials written here."""

import json
from pathlib import Path
from typing import Any

import pytest

from mgc_ray.reporting.content import Search
from mgc_ray.reporting.plots import Plot, learning_curves, parallel_coordinates
from mgc_ray.tuning.records import COMPLETED, STOPPED_EARLY, TrialRecord

LR = (1e-4, 2e-4, 4e-4, 8e-4, 1e-3, 2e-3, 1e-2)
HIDDEN = (64, 128, 256, 64, 128, 256, 64)


def write_search(folder: Path, params: list[dict[str, Any]], epochs: int = 2) -> Search:
    """A search whose trials have these settings, each better than the one before it."""
    for number, one in enumerate(params):
        accuracy = 0.3 + 0.05 * number
        TrialRecord(
            trial=f"gru-{number:04d}",
            family="gru",
            params=one,
            status=COMPLETED if epochs > 1 else STOPPED_EARLY,
            reason="",
            seconds=1.0,
            best_epoch=epochs,
            curve=[{"val_track_accuracy": accuracy, "val_loss": 1.0}] * epochs,
        ).write(folder / "trials" / f"gru-{number:04d}")
    (folder / "search.json").write_text(json.dumps({"request": {}}))
    return Search(folder)


def places(plot: Plot, axis: str) -> dict[str, float]:
    """Where each trial's line crosses an axis."""
    names = plot.layout["xaxis"]["ticktext"]
    where = names.index(axis)
    return {
        words.split(":")[0]: y
        for group in plot.data
        for x, y, words in zip(group["x"], group["y"], group["text"], strict=True)
        if x == where
    }


def labels(plot: Plot, axis: str) -> dict[str, float]:
    where = plot.layout["xaxis"]["ticktext"].index(axis)
    return {one["text"]: one["y"] for one in plot.layout["annotations"] if one["x"] == where}


def test_numbers_lie_on_their_axis_by_value(tmp_path: Path) -> None:
    params = [{"lr": lr, "hidden": hidden} for lr, hidden in zip(LR, HIDDEN, strict=True)]
    plot = parallel_coordinates(write_search(tmp_path, params), "gru")
    assert plot is not None
    hidden = places(plot, "hidden")
    assert hidden["gru-0000"] == 0
    assert hidden["gru-0001"] == pytest.approx((128 - 64) / (256 - 64), abs=1e-4)
    assert hidden["gru-0002"] == 1
    assert labels(plot, "hidden") == pytest.approx({"64": 0, "128": 1 / 3, "256": 1})
    lr = places(plot, "lr")  # two powers of ten, most of them small
    assert lr["gru-0004"] == pytest.approx(0.5)
    assert labels(plot, "lr")["0.001"] == pytest.approx(0.5)
    accuracy = places(plot, "accuracy")
    assert accuracy["gru-0003"] == pytest.approx(0.5, abs=1e-3)


def test_what_a_trial_does_not_have_lies_below_all_numbers(tmp_path: Path) -> None:
    params: list[dict[str, Any]] = [
        {"schedule": "cosine", "warmup_epochs": number} for number in range(3)
    ]
    params += [{"schedule": "constant"}] * 3
    plot = parallel_coordinates(write_search(tmp_path, params), "gru")
    assert plot is not None
    warmup = places(plot, "warmup epochs")
    assert warmup["gru-0003"] == 0 < warmup["gru-0000"] < warmup["gru-0001"]
    assert labels(plot, "warmup epochs")["not set"] == 0
    assert labels(plot, "schedule") == {"constant": 0, "cosine": 1}


def test_a_trial_of_one_epoch_can_be_seen(tmp_path: Path) -> None:
    short = learning_curves(write_search(tmp_path / "short", [{}], epochs=1))
    long = learning_curves(write_search(tmp_path / "long", [{}], epochs=4))
    assert short is not None
    assert long is not None
    sizes = [plot.data[0]["marker"]["size"][0] for plot in (short, long)]
    assert sizes[0] > sizes[1]
    for plot in (short, long):
        assert len(plot.data[0]["marker"]["size"]) == len(plot.data[0]["x"])
