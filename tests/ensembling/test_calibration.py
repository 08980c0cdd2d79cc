"""Temperature scaling, against numbers computed by hand."""

import numpy as np
import pytest

from mgc_ray.ensembling.calibration import calibration_error, fit_temperature, log_loss, temper


def test_temperature_of_1_changes_nothing_and_others_keep_the_order() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    assert temper(probs, 1.0) == pytest.approx(probs, abs=1e-9)
    for temperature in (0.2, 5.0):
        tempered = temper(probs, temperature)
        assert tempered.sum(1) == pytest.approx(1)
        assert (tempered.argmax(1) == probs.argmax(1)).all()


def test_temperature_of_one_half_squares_the_odds() -> None:
    assert temper(np.array([[0.8, 0.2]]), 0.5)[0] == pytest.approx([16 / 17, 1 / 17])


def test_log_loss_of_two_tracks() -> None:
    assert log_loss(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0])) == pytest.approx(
        (np.log(2) + np.log(4)) / 2
    )


def test_the_temperature_found_makes_confidence_equal_accuracy() -> None:
    # always 99 % sure and right three times of four: the best log-loss is at 75 %
    probs, true = np.tile([0.99, 0.01], (100, 1)), np.array([0, 0, 0, 1] * 25)
    temperature = fit_temperature(probs, true)
    assert temperature > 1
    assert temper(probs, temperature)[0, 0] == pytest.approx(0.75, abs=0.001)
    assert calibration_error(temper(probs, temperature), true) == pytest.approx(0, abs=0.001)
    assert calibration_error(probs, true) == pytest.approx(0.24)


def test_calibration_error_weighs_bins_by_their_tracks() -> None:
    # two tracks of 60 %, one right: off by 0.1; one of 90 %, right: off by 0.1; nobody cancels
    probs = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1]])
    assert calibration_error(probs, np.array([0, 1, 0])) == pytest.approx(0.1)
