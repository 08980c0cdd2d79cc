"""Temperature scaling: probabilities that are as sure as they are right.

Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017.
"""

import numpy as np
from scipy.optimize import minimize_scalar

from mgc_ray.evaluation.metrics import apply_temperature, log_loss

_RANGE = (0.1, 10.0)  # of temperatures


def fit_temperature(probs: np.ndarray, true: np.ndarray) -> float:
    """The temperature of the lowest log-loss for tracks that no member was trained on.

    probs [tracks, genres], true [tracks].
    """
    best = minimize_scalar(
        lambda logarithm: log_loss(apply_temperature(probs, float(np.exp(logarithm))), true),
        bounds=np.log(_RANGE),
        method="bounded",
    )
    return float(np.exp(best.x))
