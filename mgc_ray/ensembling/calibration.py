"""Probabilities that mean what they say: temperature scaling, and how far off they are.

Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017.
"""

import numpy as np
from scipy.optimize import minimize_scalar

_BINS = 10
_RANGE = (0.1, 10.0)  # of temperatures


def temper(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [..., genres] sharper (temperature below 1) or softer; the order stays."""
    logarithm = np.log(np.maximum(probs, 1e-12)) / temperature
    powers = np.exp(logarithm - logarithm.max(-1, keepdims=True))
    tempered: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return tempered


def fit_temperature(probs: np.ndarray, true: np.ndarray) -> float:
    """The temperature of the least log-loss for tracks that no member was trained on.

    probs [tracks, genres], true [tracks].
    """
    found = minimize_scalar(
        lambda logarithm: log_loss(temper(probs, float(np.exp(logarithm))), true),
        bounds=np.log(_RANGE),
        method="bounded",
    )
    return float(np.exp(found.x))


def log_loss(probs: np.ndarray, true: np.ndarray) -> float:
    """Mean of -log of the probability of what is true, probs [tracks, genres]."""
    return float(-np.log(np.maximum(probs[np.arange(len(true)), true], 1e-12)).mean())


def calibration_error(probs: np.ndarray, true: np.ndarray) -> float:
    """How far confidence and accuracy are apart, 0..1: the mean over ten bins of confidence."""
    confidence, right = probs.max(1), probs.argmax(1) == true
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, confidence, _BINS) - np.bincount(bins, right, _BINS)
    return float(np.abs(gaps).sum() / len(true))
