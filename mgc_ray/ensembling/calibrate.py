"""Temperature scaling: probabilities that are as sure as they are right.

Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017. The fit is shrunk
towards 1 (no change): a dozen tracks that happen to be right would otherwise make a model sure of
everything.
"""

import numpy as np
from scipy.optimize import minimize_scalar

from mgc_ray.evaluation.metrics import apply_temperature, log_loss

ENOUGH_TRACKS = 50  # fewer cannot show that a model is too unsure
_RANGE = (0.1, 10.0)  # of temperatures
_EXPECTED = 0.5  # deviation of a temperature's logarithm, before any track is known


def fit_temperature(probs: np.ndarray, true: np.ndarray) -> float:
    """The most probable temperature for tracks that no member was trained on.

    probs [tracks, genres], true [tracks]. The logarithm's prior is normal around 0; fewer than
    ENOUGH_TRACKS only make a model less sure (a temperature of 1 or more).
    """

    def loss(logarithm: float) -> float:
        temperature = float(np.exp(logarithm))
        evidence = len(true) * log_loss(apply_temperature(probs, temperature), true)
        return evidence + (logarithm / _EXPECTED) ** 2 / 2

    low, high = np.log(_RANGE)
    if len(true) < ENOUGH_TRACKS:
        low = 0.0
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))
