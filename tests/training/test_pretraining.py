"""Learning without labels: the loss by hand, and that something is learnt that helps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks
from mgc_ray.training.pretraining import METRIC, contrastive_loss, pretrain
from tests.conftest import make_chunks

SMALL = {
    "blocks": 2,
    "channels": 4,
    "hidden": 8,
    "batch_size": 16,
    "max_epochs": 12,
    "crop": 0.25,
    "lr": 3e-3,
    "freq_mask": 2,
}


@pytest.fixture
def recordings() -> Chunks:
    """Long chunks, each with bands of its own that are louder from its beginning to its end."""
    chunks = make_chunks(tracks_per_genre=24, chunks_per_track=1, frames=48)
    random = np.random.default_rng(5)
    own = random.normal(size=(len(chunks.track), 16, 1)).astype(np.float32) * 0.4
    return replace(chunks, spectrograms=chunks.spectrograms + own)


def test_the_loss_of_two_recordings_by_hand() -> None:
    first, second, recording = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.arange(2)
    perfect = torch.stack([first, second, first, second])
    # for each: e^10 for the partner, e^0 for both crops of the other recording
    expected = -math.log(math.exp(10) / (math.exp(10) + 2))
    assert contrastive_loss(perfect, recording).item() == pytest.approx(expected, abs=1e-6)
    # crossed: the other recording's crop is just like it, the partner and the third are not
    crossed = torch.stack([first, second, second, first])
    expected = -math.log(1 / (math.exp(10) + 2))
    assert contrastive_loss(crossed, recording).item() == pytest.approx(expected)


def test_another_pair_of_the_same_recording_is_no_wrong_answer() -> None:
    first = torch.tensor([1.0, 0.0])
    same = first.expand(4, 2)
    # both pairs are of one recording: the partner is all that is left to choose
    assert contrastive_loss(same, torch.tensor([3, 3])).item() == pytest.approx(0.0)


@pytest.mark.parametrize("family", ["cnn", "lstm", "gru", "attention"])
def test_every_family_can_be_pretrained(family: str, recordings: Chunks) -> None:
    params = {k: v for k, v in SMALL.items() if family != "attention" or k != "hidden"}
    losses = [e.metrics["train_loss"] for e in pretrain(family, params, recordings, "cpu", False)]
    assert losses[-1] < losses[0] - 0.05


def test_crops_of_one_recording_are_found_again(recordings: Chunks) -> None:
    params = SMALL | {"max_epochs": 20}
    found = [e.metrics[METRIC] for e in pretrain("cnn", params, recordings, "cpu", False)]
    assert found[-1] > found[0] + 0.1
    assert found[-1] > 10 / 47  # 24 recordings with 2 crops each: chance is 1 of 47


def test_crops_that_would_show_the_same_are_refused(recordings: Chunks) -> None:
    with pytest.raises(RequestError, match=r"crop must be at most 0\.5.*it is 1"):
        next(pretrain("gru", SMALL | {"crop": 1.0}, recordings))


def test_the_same_seed_gives_the_same(recordings: Chunks) -> None:
    def losses(seed: int) -> list[float]:
        epochs = pretrain("cnn", SMALL | {"max_epochs": 2, "seed": seed}, recordings, "cpu", False)
        return [epoch.metrics["train_loss"] for epoch in epochs]

    assert losses(0) == losses(0) != losses(1)


def test_frames_of_validation_recordings_do_not_teach(recordings: Chunks) -> None:
    marked = recordings.spectrograms.copy()
    marked[recordings.rows("valid")] += 1000.0
    other = replace(recordings, spectrograms=marked)
    first = next(pretrain("cnn", SMALL, recordings, "cpu", False)).metrics["train_loss"]
    assert next(pretrain("cnn", SMALL, other, "cpu", False)).metrics["train_loss"] == first
    assert torch.isfinite(torch.tensor(first))


def test_a_family_that_learns_no_features_is_refused(recordings: Chunks) -> None:
    with pytest.raises(RequestError, match="discriminant computes them: take another --family"):
        next(pretrain("discriminant", {"crop": 0.25}, recordings))
