"""What labels mean: every track has one genre.

Loss, probabilities, metrics, and the score by which everything is ranked - epochs, trials, refitted
configurations - are defined here and nowhere else.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mgc_ray.config import Metric
from mgc_ray.evaluation.intervals import bootstrap_interval
from mgc_ray.evaluation.metrics import (
    accuracy,
    calibration_error,
    confusion_matrix,
    log_loss,
    macro_f1,
    track_probs,
)
from mgc_ray.results import FOLDS, EpochMetrics, Metrics

if TYPE_CHECKING:
    from torch import Tensor

_KEY: dict[Metric, str] = {
    "track_accuracy": "val_track_accuracy",
    "macro_f1": "val_macro_f1",
    "log_loss": "val_log_loss",
}
_WORDS: dict[Metric, str] = {
    "track_accuracy": "track accuracy",
    "macro_f1": "macro-F1",
    "log_loss": "log-loss",
}
LEAKY = "LEAKY: chunks of one song on both sides of the split"


class Score(NamedTuple):
    """How good an epoch is: the higher `value` is the better one, then the higher `tie`."""

    value: float
    tie: float


WORST = Score(-np.inf, -np.inf)


def score(metrics: EpochMetrics, metric: Metric) -> Score:
    """The score of an epoch by a metric; ties go to the lower loss of the chunks."""
    value = metrics[_KEY[metric]]
    return Score(-value if metric == "log_loss" else value, -metrics["val_loss"])


def scores_so_far(curve: Sequence[EpochMetrics], metric: Metric) -> list[float]:
    """What a trial is ranked by after each epoch: the best so far, or of folds the latest."""
    scores: list[float] = []
    for metrics in curve:
        value = score(metrics, metric).value
        scores.append(value if FOLDS in metrics or not scores else max(value, scores[-1]))
    return scores


def score_in_words(metrics: EpochMetrics, metric: Metric) -> str:
    """E.g. `track accuracy 0.667`."""
    return f"{_WORDS[metric]} {metrics[_KEY[metric]]:.3f}"


def score_heading(metric: Metric) -> str:
    """E.g. `track accuracy`, above a column of `score_cell`."""
    return _WORDS[metric]


def score_value(metrics: EpochMetrics, metric: Metric) -> float:
    """The metric itself: of a log-loss the lower one is better."""
    return metrics[_KEY[metric]]


def score_cell(metrics: EpochMetrics, metric: Metric) -> str:
    return f"{score_value(metrics, metric):.3f}"


def loss(logits: "Tensor", target: "Tensor", label_smoothing: float) -> "Tensor":
    """Cross-entropy of logits [B, C] and targets [B, C], shares of genres that sum to 1."""
    import torch.nn.functional as F

    return F.cross_entropy(logits.float(), target, label_smoothing=label_smoothing)


def probabilities(logits: "Tensor") -> "Tensor":
    """Logits [B, C] -> probabilities float64 [B, C]."""
    return in_double(logits.softmax(1))


def in_double(x: "Tensor") -> "Tensor":
    """As float64, on the CPU where the device has none: an Apple GPU."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def validation_metrics(
    chunk_probs: np.ndarray, track: np.ndarray, track_genre: np.ndarray
) -> tuple[EpochMetrics, np.ndarray, np.ndarray]:
    """Metrics of an epoch, and the tracks' probabilities [K, C] and genres [K].

    `chunk_probs` [N, C], `track` [N] indices into `track_genre`.
    """
    present, probs = track_probs(chunk_probs, track)
    true, predicted = track_genre[present], probs.argmax(1)
    chunk_true = track_genre[track]
    metrics = {
        "val_loss": log_loss(chunk_probs, chunk_true),
        "val_track_accuracy": accuracy(predicted, true),
        "val_chunk_accuracy": accuracy(chunk_probs.argmax(1), chunk_true),
        "val_macro_f1": macro_f1(predicted, true, chunk_probs.shape[1]),
        "val_log_loss": log_loss(probs, true),
    }
    return metrics, probs, true


def measure(
    probs: np.ndarray,
    true: np.ndarray,
    group: Sequence[str] | np.ndarray,
    genres: Sequence[str],
    chunks_right: int,
    chunks: int,
) -> Metrics:
    """Metrics of tracks from their probabilities [K, C], true genres [K] and groups [K].

    `chunks_right` of all `chunks` of these tracks are predicted right.
    """
    predicted = probs.argmax(1)
    return Metrics(
        track_accuracy=accuracy(predicted, true),
        interval_95=bootstrap_interval(predicted == true, np.asarray(group)),
        chunk_accuracy=chunks_right / chunks,
        macro_f1=macro_f1(predicted, true, len(genres)),
        log_loss=log_loss(probs, true),
        calibration_error=calibration_error(probs, true),
        tracks=len(true),
        chunks=chunks,
        genres=tuple(genres),
        confusion_matrix=confusion_matrix(predicted, true, len(genres)).tolist(),
    )
