"""What labels mean: the score, the loss and the metrics, by numbers computed by hand."""

import math
from typing import get_args

import numpy as np
import pytest
import torch

from mgc_ray import task
from mgc_ray.config import Metric
from mgc_ray.task import WORST, Score, score

EPOCH = {
    "val_track_accuracy": 0.6,
    "val_macro_f1": 0.55,
    "val_log_loss": 1.2,
    "val_chunk_accuracy": 0.5,
    "val_loss": 1.5,
}


# --- the score ---


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("track_accuracy", (0.6, -1.5)),
        ("macro_f1", (0.55, -1.5)),
        ("log_loss", (-1.2, -1.5)),  # the lower loss is the better one
    ],
)
def test_the_higher_score_is_the_better_one(metric: Metric, expected: tuple[float, float]) -> None:
    assert score(EPOCH, metric) == expected


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("track_accuracy", {"val_track_accuracy": 0.7, "val_loss": 9.0}),
        ("macro_f1", {"val_macro_f1": 0.7, "val_loss": 9.0}),
        ("log_loss", {"val_log_loss": 1.1, "val_loss": 9.0}),
    ],
)
def test_the_metric_decides_before_the_loss_of_the_chunks(
    metric: Metric, better: dict[str, float]
) -> None:
    assert score(EPOCH | better, metric) > score(EPOCH, metric)
    others = [other for other in get_args(Metric) if other != metric]
    assert all(score(EPOCH | better, other) < score(EPOCH, other) for other in others)


@pytest.mark.parametrize("metric", get_args(Metric))
def test_a_tie_goes_to_the_lower_loss_of_the_chunks(metric: Metric) -> None:
    assert score(EPOCH | {"val_loss": 1.4}, metric) > score(EPOCH, metric)
    assert score(dict(EPOCH), metric) == score(EPOCH, metric)


@pytest.mark.parametrize("metric", get_args(Metric))
def test_every_epoch_is_better_than_none(metric: Metric) -> None:
    assert score(EPOCH | {"val_track_accuracy": 0.0, "val_log_loss": 27.0}, metric) > WORST
    assert max([WORST, Score(-27.0, -27.0)]) == Score(-27.0, -27.0)


def test_scores_in_words() -> None:
    words = {m: task.score_in_words(EPOCH, m) for m in get_args(Metric)}
    assert words == {
        "track_accuracy": "track accuracy 0.600",
        "macro_f1": "macro-F1 0.550",
        "log_loss": "log-loss 1.200",
    }
    for metric in get_args(Metric):
        heading, cell = task.score_heading(metric), task.score_cell(EPOCH, metric)
        assert f"{heading} {cell}" == words[metric]
        assert f"{task.score_value(EPOCH, metric):.3f}" == cell


# --- loss and probabilities ---


def test_the_loss_is_cross_entropy_of_shares_of_genres() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    target = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    expected = (-math.log(0.5) - 0.5 * math.log(0.1) - 0.5 * math.log(0.8)) / 2
    assert task.loss(logits, target, 0.0).item() == pytest.approx(expected, abs=1e-6)
    # a tenth of the target is spread over the three genres
    first = -(0.9 + 0.1 / 3) * math.log(0.5) - 2 * 0.1 / 3 * math.log(0.25)
    smoothed = task.loss(logits[:1], target[:1], 0.1).item()
    assert smoothed == pytest.approx(first, abs=1e-6)
    half = task.loss(logits.bfloat16(), target, 0.0)
    assert half.dtype == torch.float32


def test_probabilities_sum_to_one_in_double_precision() -> None:
    probs = task.probabilities(torch.tensor([[0.0, math.log(3.0)]]))
    assert probs.dtype == torch.float64
    assert probs[0].tolist() == pytest.approx([0.25, 0.75])


# --- metrics ---


def test_validation_metrics_of_three_tracks_by_hand() -> None:
    # track 0 (genre 0): two chunks, one right, together 0.55; track 2 (genre 1): one chunk, wrong;
    # track 3 (genre 1): one chunk, right; track 1 has no chunk
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    track, genre = np.array([0, 0, 2, 3]), np.array([0, 1, 1, 1])
    metrics, by_track, true = task.validation_metrics(probs, track, genre)
    assert by_track.tolist() == [pytest.approx([0.55, 0.45]), [0.6, 0.4], [0.3, 0.7]]
    assert true.tolist() == [0, 1, 1]
    assert metrics == pytest.approx(
        {
            "val_loss": -np.log([0.9, 0.2, 0.4, 0.7]).mean(),
            "val_track_accuracy": 2 / 3,
            "val_chunk_accuracy": 2 / 4,
            "val_macro_f1": 2 / 3,  # of both genres: 2 / (2 + 1)
            "val_log_loss": -np.log([0.55, 0.4, 0.7]).mean(),
        }
    )
    assert all(isinstance(value, float) for value in metrics.values())


def test_probabilities_that_are_no_numbers_give_a_loss_that_is_none() -> None:
    metrics, *_ = task.validation_metrics(
        np.array([[math.nan, 0.1], [0.5, 0.5]]), np.array([0, 1]), np.array([0, 1])
    )
    assert math.isnan(metrics["val_loss"])


def test_measured_metrics_by_hand() -> None:
    probs = np.array([[0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    true = np.array([0, 0, 2, 1])
    group = ["a", "a", "b", "c"]
    found = task.measure(probs, true, group, ("x", "y", "z"), chunks_right=5, chunks=8)
    assert found.track_accuracy == 0.5
    assert found.chunk_accuracy == 5 / 8
    assert found.log_loss == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.3]).mean())
    assert found.confusion_matrix == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    # x: 2 / (2 + 1 + 1); y: 0; z: 1
    assert found.macro_f1 == pytest.approx((1 / 2 + 0 + 1) / 3)
    # four bins of one track each: |0.8 - 1|, |0.5 - 0|, |0.7 - 1|, |0.6 - 0|
    assert found.calibration_error == pytest.approx((0.2 + 0.5 + 0.3 + 0.6) / 4)
    assert (found.tracks, found.chunks, found.genres) == (4, 8, ("x", "y", "z"))
    assert found.interval_95.method == "bootstrap over 3 groups"
    assert 0 <= found.interval_95.low < 0.5 < found.interval_95.high <= 1
    assert str(found).startswith("50.0% of 4 tracks (95 % interval ")
    assert str(found).endswith("chunks 62.5%, macro-F1 0.500")
