"""Temperature scaling, against numbers computed by hand."""

import numpy as np
import pytest

from mgc_ray.ensembling.calibrate import fit_temperature
from mgc_ray.evaluation.metrics import apply_temperature, calibration_error, log_loss


def test_the_temperature_makes_confidence_equal_accuracy() -> None:
    # always 99 % sure and right three times of four: the best log-loss is at 75 %
    probs, true = np.tile([0.99, 0.01], (100, 1)), np.array([0, 0, 0, 1] * 25)
    temperature = fit_temperature(probs, true)
    # odds of 99 to odds of 3
    assert temperature == pytest.approx(np.log(99) / np.log(3), rel=1e-3)
    scaled = apply_temperature(probs, temperature)
    assert scaled[0, 0] == pytest.approx(0.75, abs=0.001)
    assert calibration_error(scaled, true) == pytest.approx(0, abs=0.001)
    assert calibration_error(probs, true) == pytest.approx(0.24)


def test_too_little_confidence_is_sharpened() -> None:
    probs, true = np.tile([0.6, 0.4], (100, 1)), np.array([0] * 9 + [1]).repeat(10)
    temperature = fit_temperature(probs, true)
    assert temperature == pytest.approx(np.log(1.5) / np.log(9), rel=1e-3)


@pytest.mark.parametrize(("true", "limit"), [(0, 0.1), (1, 10.0)])
def test_the_temperature_stays_within_its_limits(true: int, limit: float) -> None:
    # always right would be made infinitely sure, always wrong not sure at all
    probs = np.tile([0.6, 0.4], (10, 1))
    assert fit_temperature(probs, np.full(10, true)) == pytest.approx(limit, rel=0.01)


def test_no_other_temperature_has_a_lower_log_loss() -> None:
    random = np.random.default_rng(3)
    probs, true = random.dirichlet([1, 1, 1, 1], 60), random.integers(0, 4, 60)
    best = log_loss(apply_temperature(probs, fit_temperature(probs, true)), true)
    for temperature in np.geomspace(0.1, 10, 50):
        assert log_loss(apply_temperature(probs, temperature), true) >= best - 1e-9
