"""Temperature scaling, against numbers computed by hand."""

import numpy as np
import pytest

from mgc_ray.ensembling.calibrate import ENOUGH_TRACKS, fit_temperature
from mgc_ray.evaluation.metrics import apply_temperature, calibration_error, log_loss

MANY = 100_000  # tracks, for which the prior does not matter


def test_the_temperature_makes_confidence_equal_accuracy() -> None:
    # always 99 % sure and right three times of four: the best log-loss is at 75 %
    probs, true = np.tile([0.99, 0.01], (MANY, 1)), np.tile([0, 0, 0, 1], MANY // 4)
    temperature = fit_temperature(probs, true)
    # odds of 99 to odds of 3
    assert temperature == pytest.approx(np.log(99) / np.log(3), rel=1e-3)
    scaled = apply_temperature(probs, temperature)
    assert scaled[0, 0] == pytest.approx(0.75, abs=0.001)
    assert calibration_error(scaled, true) == pytest.approx(0, abs=0.001)
    assert calibration_error(probs, true) == pytest.approx(0.24)


def test_too_little_confidence_of_many_tracks_is_sharpened() -> None:
    probs, true = np.tile([0.6, 0.4], (MANY, 1)), np.tile([0] * 9 + [1], MANY // 10)
    temperature = fit_temperature(probs, true)
    assert temperature == pytest.approx(np.log(1.5) / np.log(9), rel=1e-2)


def test_a_dozen_tracks_that_are_right_make_no_model_surer() -> None:
    """They once made 55 % into 95 %, for the wrong genre of the next song."""
    probs = np.tile([0.55, 0.25, 0.2], (12, 1))
    temperature = fit_temperature(probs, np.zeros(12, int))
    assert temperature == pytest.approx(1, abs=1e-4)
    assert apply_temperature(probs, temperature)[0, 0] == pytest.approx(0.55, abs=1e-4)
    # a dozen that are wrong do make it less sure
    assert fit_temperature(probs, np.full(12, 2)) > 1.3


@pytest.mark.parametrize("right", [0.5, 0.9])
def test_the_fewer_tracks_the_closer_the_temperature_is_to_one(right: float) -> None:
    distances = []
    for tracks in (ENOUGH_TRACKS, 200, 1000, 10_000):
        probs, true = np.tile([0.7, 0.3], (tracks, 1)), np.zeros(tracks, int)
        true[round(right * tracks) :] = 1
        distances.append(abs(np.log(fit_temperature(probs, true))))
    assert distances == sorted(distances)
    assert 0 < distances[0] < 0.9 * distances[-1]


@pytest.mark.parametrize(("true", "limit"), [(0, 0.1), (1, 10.0)])
def test_the_temperature_stays_within_its_limits(true: int, limit: float) -> None:
    # always right would be made infinitely sure, always wrong not sure at all
    probs = np.tile([0.6, 0.4], (MANY, 1))
    assert fit_temperature(probs, np.full(MANY, true)) == pytest.approx(limit, rel=0.01)


def test_no_other_temperature_has_a_lower_log_loss_for_many_tracks() -> None:
    random = np.random.default_rng(3)
    probs, true = random.dirichlet([1, 1, 1, 1], 20_000), random.integers(0, 4, 20_000)
    best = log_loss(apply_temperature(probs, fit_temperature(probs, true)), true)
    for temperature in np.geomspace(0.1, 10, 50):
        assert log_loss(apply_temperature(probs, temperature), true) >= best - 1e-4
