"""Refitting on folds: who has seen what, and that nothing done is done again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mgc_ray.data.chunks import Chunks
from mgc_ray.ensembling.folds import fit_fold, fold_folder, is_done, read_refitted, start_refit
from mgc_ray.training.checkpoint import load_checkpoint

CPU = torch.device("cpu")
PARAMS = {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8, "max_epochs": 3, "seed": 0}


@pytest.fixture
def fold_of(chunks: Chunks) -> np.ndarray:
    return np.arange(len(chunks.tracks)) % 3


def _refit(folder: Path, chunks: Chunks, fold_of: np.ndarray, folds: tuple[int, ...]) -> None:
    content = start_refit(folder, "gru", PARAMS, epochs=2, count=3, score=(0.5, -1.0))
    for fold in folds:
        fit_fold(folder, fold, content, chunks, fold_of, CPU)


def test_every_chunk_is_predicted_by_the_model_of_its_own_fold(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    _refit(tmp_path / "gru-0001", chunks, fold_of, (0, 1, 2))
    (refitted,) = read_refitted(tmp_path)
    assert refitted.complete
    assert refitted.rows.tolist() == list(range(len(chunks.track)))
    probs = refitted.out_of_fold(refitted.rows)
    for fold, folder in enumerate(refitted.folds):
        model = load_checkpoint(folder)
        rows = np.flatnonzero(fold_of[chunks.track] == fold)
        expected = model.classifier.probs(torch.from_numpy(chunks.spectrograms[rows])).detach()
        assert probs[rows] == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_model_has_seen_all_folds_but_its_own(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    spectrograms = chunks.spectrograms.copy()
    spectrograms[fold_of[chunks.track] == 1] += 1000.0  # would be seen in the mean of the bands
    marked = Chunks(chunks.info, chunks.track, chunks.split, chunks.tracks, spectrograms)
    _refit(tmp_path / "gru-0001", marked, fold_of, (0, 1))
    (refitted,) = read_refitted(tmp_path)
    means = [float(load_checkpoint(f).classifier.mean.mean()) for f in refitted.folds]
    assert means[0] > 300
    assert means[1] == pytest.approx(-29.3, abs=0.5)


def test_training_is_as_long_as_asked_whatever_the_fold_left_out_says(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    _refit(tmp_path / "gru-0001", chunks, fold_of, (0,))
    assert load_checkpoint(fold_folder(tmp_path / "gru-0001", 0)).epoch == 2


def test_an_unfinished_refit_is_known_as_such(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    folder = tmp_path / "gru-0001"
    _refit(folder, chunks, fold_of, (0,))
    assert is_done(folder, 0)
    assert not is_done(folder, 1)
    (refitted,) = read_refitted(tmp_path)
    assert not refitted.complete
    with pytest.raises(ValueError, match=f"must cover {len(chunks.track)} chunks"):
        refitted.out_of_fold(np.arange(len(chunks.track)))


def test_a_track_in_no_fold_is_always_trained_on_and_never_judged(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    without = np.where(np.arange(len(fold_of)) < 4, -1, fold_of)
    spectrograms = chunks.spectrograms.copy()
    spectrograms[without[chunks.track] < 0] += 1000.0  # seen in the mean of the bands
    marked = Chunks(chunks.info, chunks.track, chunks.split, chunks.tracks, spectrograms)
    _refit(tmp_path / "gru-0001", marked, without, (0, 1, 2))
    (refitted,) = read_refitted(tmp_path)
    assert refitted.rows.tolist() == np.flatnonzero(without[chunks.track] >= 0).tolist()
    assert all(float(load_checkpoint(f).classifier.mean.mean()) > 200 for f in refitted.folds)
