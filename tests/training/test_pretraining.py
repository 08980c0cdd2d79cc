"""Learning without labels: the loss by hand, what is learnt, and what is refused."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks
from mgc_ray.models import train_fields
from mgc_ray.settings import Params
from mgc_ray.training.checkpoint import load_checkpoint, save_checkpoint
from mgc_ray.training.initial import initial_params
from mgc_ray.training.loop import train
from mgc_ray.training.pretraining import (
    RETRIEVAL,
    UNUSED,
    check_pretraining,
    contrastive_loss,
    pretrain,
)
from tests.conftest import make_chunks

SMALL: Params = {
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
    return replace(chunks, features={"array": chunks.features["array"] + own})


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


def test_another_pair_of_the_same_recording_does_not_count_as_different() -> None:
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
    found = [e.metrics[RETRIEVAL] for e in pretrain("cnn", params, recordings, "cpu", False)]
    assert found[-1] > found[0] + 0.1
    assert found[-1] > 10 / 47  # 24 recordings with 2 crops each: chance is 1 of 47


@pytest.mark.parametrize("name", UNUSED)
def test_a_setting_that_is_not_used_is_refused(name: str, recordings: Chunks) -> None:
    value = 3 if name in ("patience", "folds", "embedding_width") else 0.1
    message = f"pre-training does not use {name}: leave it out"
    with pytest.raises(RequestError, match=message):
        next(pretrain("cnn", SMALL | {name: value}, recordings))
    with pytest.raises(RequestError, match=message):
        check_pretraining("cnn", {name: value})


USED: Params = {
    "batch_size": 8,
    "features": "array",
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.5,
    "warmup_epochs": 1,
    "schedule": "cosine",
    "freq_mask": 0,
    "time_mask": 0.5,
    "masks": 4,
    "time_shift": 0.5,
    "pitch_shift": 2.0,
    "time_stretch": 0.2,
    "gain": 0.5,
    "tilt": 0.5,
    "crop": 0.4,
    "crops": 2,
    "seed": 1,
}


def test_each_setting_of_training_is_used_or_refused() -> None:
    assert USED.keys() | {*UNUSED, "max_epochs"} == train_fields()


@pytest.mark.parametrize("name", sorted(USED.keys() - {"features"}))
def test_each_other_setting_changes_what_is_learnt(name: str, recordings: Chunks) -> None:
    params = SMALL | {"max_epochs": 2, "batch_size": 16, "weight_decay": 0.1}

    def loss(**changed: object) -> float:
        *_, last = pretrain("cnn", params | changed, recordings, "cpu", False)
        assert last.number == 2
        return last.metrics["val_loss"]

    assert loss(**{name: USED[name]}) != loss()


def test_crops_that_would_show_the_same_are_refused(recordings: Chunks) -> None:
    message = r"crop must be at most 0\.5.*it is 1"
    with pytest.raises(RequestError, match=message):
        next(pretrain("gru", SMALL | {"crop": 1.0}, recordings))
    without = {name: value for name, value in SMALL.items() if name != "crop"}
    with pytest.raises(RequestError, match=message):  # the default of training
        next(pretrain("gru", without, recordings))


def test_a_family_that_starts_from_other_weights_is_refused(recordings: Chunks) -> None:
    with pytest.raises(RequestError, match="transfer starts from one: give another"):
        next(pretrain("transfer", {"crop": 0.25}, recordings))


def test_fewer_than_two_recordings_are_refused(recordings: Chunks) -> None:
    split = np.array(["valid"] + ["train"] * (len(recordings.split) - 1))
    few = replace(recordings, split=split)
    with pytest.raises(RequestError, match="needs 2 valid chunks or more, not 1"):
        next(pretrain("cnn", SMALL, few))


def test_pretrained_weights_are_those_that_training_starts_from(
    recordings: Chunks, tmp_path: Path
) -> None:
    params = SMALL | {"max_epochs": 2}
    *_, epoch = pretrain("cnn", params, recordings, "cpu", False)
    unlabelled = replace(recordings.info, genres=())
    save_checkpoint(tmp_path, epoch, "cnn", params, unlabelled, task="crops")
    with pytest.raises(RequestError, match="knows no genres, as it was pre-trained without"):
        load_checkpoint(tmp_path)
    started = next(
        train("transfer", initial_params(tmp_path) | {"freeze_epochs": 1}, recordings)
    ).classifier.network.backbone
    for name, value in epoch.classifier.network.state_dict().items():
        if name.startswith("convolutions."):
            assert started.state_dict()[name].equal(value), name


def test_the_same_seed_gives_the_same(recordings: Chunks) -> None:
    def losses(seed: int) -> list[float]:
        epochs = pretrain("cnn", SMALL | {"max_epochs": 2, "seed": seed}, recordings, "cpu", False)
        return [epoch.metrics["train_loss"] for epoch in epochs]

    assert losses(0) == losses(0) != losses(1)


def test_nothing_is_learnt_from_validation_recordings(recordings: Chunks) -> None:
    marked = recordings.features["array"].copy()
    marked[recordings.rows("valid")] += 1000.0
    other = replace(recordings, features={"array": marked})
    first = next(pretrain("cnn", SMALL, recordings, "cpu", False)).metrics["train_loss"]
    assert next(pretrain("cnn", SMALL, other, "cpu", False)).metrics["train_loss"] == first
    assert torch.isfinite(torch.tensor(first))


def test_a_family_that_learns_no_features_is_refused(recordings: Chunks) -> None:
    with pytest.raises(RequestError, match="discriminant computes them: give another --family"):
        next(pretrain("discriminant", {"crop": 0.25}, recordings))
