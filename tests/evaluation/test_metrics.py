"""Metrics against numbers computed by hand and by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mgc_ray.evaluation.metrics import (
    accuracy,
    apply_temperature,
    calibration_bins,
    calibration_error,
    confusion_matrix,
    log_loss,
    macro_f1,
    precision_recall_f1,
    track_probs,
)


def test_macro_f1_of_four_items() -> None:
    # genre 0: TP 1, FP 1, FN 1 -> 1/2; genre 1: TP 1, FP 1, FN 0 -> 2/3; genre 2: FN 1 -> 0
    true, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    assert macro_f1(predicted, true, 3) == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_macro_f1_leaves_out_a_genre_that_is_neither_present_nor_predicted() -> None:
    assert macro_f1(np.array([0, 1]), np.array([0, 1]), 5) == 1.0


def test_macro_f1_equals_scikit_learns() -> None:
    random = np.random.default_rng(0)
    true, predicted = random.integers(0, 7, 300), random.integers(0, 7, 300)
    assert macro_f1(predicted, true, 7) == pytest.approx(f1_score(true, predicted, average="macro"))


def test_precision_and_recall_of_each_genre() -> None:
    # of 4 tracks of genre 0 three are right; genre 1 is predicted twice, once right; 2 is absent
    precision, recall, f1 = precision_recall_f1(np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]]))
    np.testing.assert_allclose(precision, [3 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(recall, [3 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(f1, [3 / 4, 1 / 2, np.nan])


def test_the_confusion_matrix_has_true_genres_in_rows() -> None:
    assert confusion_matrix(np.array([1, 1, 0]), np.array([0, 1, 0]), 2).tolist() == [
        [1, 1],
        [0, 1],
    ]


def test_a_tracks_probabilities_are_the_mean_of_its_chunks() -> None:
    probs = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]])
    tracks, means = track_probs(probs, np.array([7, 7, 3]))
    assert tracks.tolist() == [3, 7]
    assert means.tolist() == [[0.2, 0.8], [0.75, 0.25]]


@pytest.mark.parametrize("lengths", [(2, 3), (0, 0)])
def test_arrays_of_different_length_or_empty_ones_are_refused(lengths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"have {lengths[0]}, {lengths[1]}"):
        accuracy(*map(np.zeros, lengths))


def test_the_log_loss_of_two_tracks() -> None:
    assert log_loss(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0])) == pytest.approx(
        (np.log(2) + np.log(4)) / 2
    )


def test_the_log_loss_of_a_probability_of_0_is_finite_and_of_no_number_is_none() -> None:
    assert log_loss(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(-np.log(1e-12))
    assert np.isnan(log_loss(np.array([[0.5, 0.5], [np.nan, 0.5]]), np.array([0, 1])))


# --- temperature and calibration ---


def test_a_temperature_of_1_changes_nothing_and_others_keep_the_order() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    assert apply_temperature(probs, 1.0) == pytest.approx(probs, abs=1e-9)
    for temperature in (0.2, 5.0):
        scaled = apply_temperature(probs, temperature)
        assert scaled.sum(1) == pytest.approx(1)
        assert (scaled.argmax(1) == probs.argmax(1)).all()


def test_a_temperature_of_one_half_squares_the_odds() -> None:
    assert apply_temperature(np.array([[0.8, 0.2]]), 0.5)[0] == pytest.approx([16 / 17, 1 / 17])


def test_a_temperature_acts_on_the_last_axis() -> None:
    probs = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 4))
    for i in range(2):
        expected = apply_temperature(probs[i], 0.7)
        assert apply_temperature(probs, 0.7)[i] == pytest.approx(expected)


def test_bins_of_confidence_by_hand() -> None:
    # 0.55 and 0.58 are in one bin, one of them right; 1.0 is in the last, and right
    probs = np.array([[0.55, 0.45], [0.42, 0.58], [1.0, 0.0]])
    confidence, right, count = calibration_bins(probs, np.array([0, 0, 0]))
    assert confidence == pytest.approx([0.565, 1.0])
    assert right.tolist() == [0.5, 1.0]
    assert count.tolist() == [2, 1]


def test_the_calibration_error_weights_bins_by_their_tracks() -> None:
    # two tracks of 60 %, one right: off by 0.1; one of 90 %, right: off by 0.1; nothing cancels
    probs = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1]])
    assert calibration_error(probs, np.array([0, 1, 0])) == pytest.approx(0.1)
