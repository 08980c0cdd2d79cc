"""Metrics from predicted and true genre indices, and from probabilities.

K tracks, N chunks, C genres. Accuracy, F1 and calibration error are shares, 0..1. A track's
probabilities are the mean of its chunks'.
"""

import numpy as np

_SMALLEST = 1e-12  # probability below which no logarithm is taken
_BINS = 10  # of confidence


def track_probs(chunk_probs: np.ndarray, track: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the chunks' probabilities [N, C] by track index [N].

    Returns the indices of the tracks that have chunks, ascending [K], and probabilities [K, C].
    """
    present, position = np.unique(track, return_inverse=True)
    total = np.zeros((len(present), chunk_probs.shape[1]))
    np.add.at(total, position, chunk_probs)
    return present, total / np.bincount(position)[:, None]


def apply_temperature(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [..., C] sharper (temperature below 1) or softer; their order stays.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    logarithm = np.log(np.maximum(probs, _SMALLEST)) / temperature
    powers = np.exp(logarithm - logarithm.max(-1, keepdims=True))
    scaled: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return scaled


def accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    check_same_length(predicted, true)
    return float(np.mean(predicted == true))


def confusion_matrix(predicted: np.ndarray, true: np.ndarray, genres: int) -> np.ndarray:
    """Counts [true genre, predicted genre], int64."""
    check_same_length(predicted, true)
    matrix = np.zeros((genres, genres), np.int64)
    np.add.at(matrix, (true, predicted), 1)
    return matrix


def precision_recall_f1(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each genre of a confusion matrix [C] each; NaN where there is nothing to divide by.

    F1 = 2 TP / (2 TP + FP + FN) of a genre that is present but never right is 0.
    """
    right, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore"):
        return right / predicted, right / true, 2 * right / (true + predicted)


def macro_f1(predicted: np.ndarray, true: np.ndarray, genres: int) -> float:
    """Mean F1 over the genres, without those that are neither present nor predicted."""
    *_, f1 = precision_recall_f1(confusion_matrix(predicted, true, genres))
    return float(np.nanmean(f1))


def log_loss(probs: np.ndarray, true: np.ndarray) -> float:
    """Mean of -log of the probability of the true genre; probs [K, C], NaN where any is none."""
    if not np.isfinite(probs).all():
        return float("nan")
    return float(-np.log(np.maximum(probs[np.arange(len(true)), true], _SMALLEST)).mean())


def calibration_bins(
    probs: np.ndarray, true: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten bins of confidence: mean confidence, accuracy and count of each that is not empty."""
    confidence, right = probs.max(1), probs.argmax(1) == true
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    count = np.bincount(place, minlength=_BINS)
    used = count > 0
    mean_confidence = np.bincount(place, confidence, _BINS)[used] / count[used]
    return mean_confidence, np.bincount(place, right, _BINS)[used] / count[used], count[used]


def calibration_error(probs: np.ndarray, true: np.ndarray) -> float:
    """How far confidence and accuracy are apart, 0..1: the mean over ten bins of confidence."""
    confidence, right, count = calibration_bins(probs, true)
    return float((np.abs(confidence - right) * count).sum() / len(true))


def check_same_length(a: np.ndarray, b: np.ndarray) -> None:
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"both need one length of at least 1, but they have {len(a)}, {len(b)}")
