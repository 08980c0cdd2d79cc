"""Training: what it learns, what it reports, when it ends, and that it is the same again."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks
from mgc_ray.data.spectrogram import BandGroups, LogMel
from mgc_ray.training.batches import ResidentBatches
from mgc_ray.training.checkpoint import load_checkpoint, save_checkpoint
from mgc_ray.training.config import TrainConfig, configure
from mgc_ray.training.loop import (
    METRIC,
    Epoch,
    NonFiniteLossError,
    predict_probs,
    share_of_lr,
    train,
)
from tests.conftest import make_chunks

SMALL = {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8, "max_epochs": 4}


def _run(params: dict[str, object], chunks: Chunks) -> list[Epoch]:
    return list(train("gru", SMALL | params, chunks, autocast=False))


@pytest.mark.parametrize("family", ["cnn", "lstm", "gru"])
def test_a_family_learns_what_can_be_learnt(family: str, chunks: Chunks) -> None:
    epochs = list(train(family, SMALL | {"max_epochs": 15, "lr": 3e-3}, chunks, autocast=False))
    assert max(epoch.metrics[METRIC] for epoch in epochs) > 0.8
    assert epochs[-1].metrics["train_loss"] < epochs[0].metrics["train_loss"]


def test_a_family_that_is_solved_takes_one_epoch(chunks: Chunks) -> None:
    epochs = list(train("discriminant", {}, chunks))
    assert [epoch.last for epoch in epochs] == [True]
    assert epochs[0].metrics[METRIC] > 0.8
    assert 0 <= epochs[0].metrics["train_loss"] <= epochs[0].metrics["val_loss"]


def test_a_family_may_have_other_defaults_of_training() -> None:
    assert configure("gru", {})[1].freq_mask == 16
    assert configure("discriminant", {})[1].freq_mask == 0
    assert configure("discriminant", {"freq_mask": 8})[1].freq_mask == 8


def test_one_epoch_at_a_time(chunks: Chunks) -> None:
    first = next(train("gru", SMALL, chunks))
    assert first.number == 1
    assert first.best
    assert not first.last
    assert set(first.metrics) == {
        "train_loss",
        "val_loss",
        "val_track_accuracy",
        "val_chunk_accuracy",
        "val_macro_f1",
        "lr",
        "epoch_seconds",
        "chunks_per_second",
        "memory_mib",
        "gradient_norm",
    }


def test_the_same_seed_gives_the_same_figures_and_another_does_not(chunks: Chunks) -> None:
    def losses(seed: int) -> list[float]:
        return [epoch.metrics["val_loss"] for epoch in _run({"seed": seed}, chunks)]

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_training_ends_at_max_epochs(chunks: Chunks) -> None:
    epochs = _run({"patience": 100}, chunks)
    assert [epoch.last for epoch in epochs] == [False, False, False, True]


def test_training_stops_early_when_nothing_improves(chunks: Chunks) -> None:
    epochs = _run({"max_epochs": 50, "patience": 3, "lr": 1e-12}, chunks)
    best = max(epoch.number for epoch in epochs if epoch.best)
    assert len(epochs) == best + 3
    assert epochs[-1].last


def test_best_is_the_highest_accuracy_so_far_and_ties_go_to_the_lower_loss(
    chunks: Chunks,
) -> None:
    best = (-1.0, 0.0)
    for epoch in _run({"max_epochs": 8, "patience": 8, "lr": 3e-3}, chunks):
        score = (epoch.metrics[METRIC], -epoch.metrics["val_loss"])
        assert epoch.best == (score > best)
        best = max(best, score)


def test_a_loss_that_is_no_number_ends_training_with_epoch_and_step(chunks: Chunks) -> None:
    poisoned = chunks.spectrograms.copy()
    poisoned[chunks.rows("train")[3], 0, 0] = math.nan
    broken = dataclasses.replace(chunks, spectrograms=poisoned)
    # band statistics of broken data would poison every step; take those of the sound data
    broken.__dict__["band_statistics"] = chunks.band_statistics
    with pytest.raises(NonFiniteLossError, match=r"loss is nan in epoch 1, step \d of 5"):
        next(train("gru", SMALL | {"mixup": 0.0, "masks": 0}, broken, autocast=False))


def test_standardisation_comes_from_the_training_part_alone(chunks: Chunks) -> None:
    shifted = chunks.spectrograms.copy()
    shifted[chunks.rows("valid")] += 1000
    moved = dataclasses.replace(chunks, spectrograms=shifted)
    classifier = next(train("gru", SMALL, moved)).classifier
    expected = chunks.spectrograms[chunks.rows("train")].mean((0, 2))
    assert classifier.mean.numpy() == pytest.approx(expected, abs=1e-3)


def test_figures_come_from_validation_chunks_alone(chunks: Chunks) -> None:
    """With the training chunks unlearnable, nothing that is told may look good."""
    noise = chunks.spectrograms.copy()
    noise[chunks.rows("valid")] = np.random.default_rng(0).normal(size=(18, 16, 12)) - 30
    epochs = _run({"max_epochs": 10, "lr": 3e-3}, dataclasses.replace(chunks, spectrograms=noise))
    assert epochs[-1].metrics["train_loss"] < epochs[0].metrics["train_loss"]
    assert max(epoch.metrics["val_chunk_accuracy"] for epoch in epochs) < 0.7


def test_evaluation_is_float32_and_at_rest(chunks: Chunks) -> None:
    classifier = next(train("gru", SMALL | {"dropout": 0.5}, chunks)).classifier
    x = ResidentBatches(chunks.spectrograms, torch.device("cpu"))
    rows = chunks.rows("valid")
    classifier.train()
    once, again = predict_probs(classifier, x, rows), predict_probs(classifier, x, rows)
    assert np.array_equal(once, again)
    assert once.sum(1) == pytest.approx(1)


def test_uint8_spectrograms_train_without_a_float_copy(chunks: Chunks) -> None:
    as_bytes = (chunks.spectrograms * 4 + 200).clip(0, 255).astype(np.uint8)
    epochs = list(
        train(
            "gru",
            SMALL | {"max_epochs": 15, "lr": 3e-3},
            dataclasses.replace(chunks, spectrograms=as_bytes),
        )
    )
    assert max(epoch.metrics[METRIC] for epoch in epochs) > 0.8


def test_read_only_memory_is_enough(chunks: Chunks) -> None:
    chunks.spectrograms.flags.writeable = False
    next(train("gru", SMALL, chunks))


def test_bfloat16_learns_as_well(chunks: Chunks) -> None:
    params = SMALL | {"max_epochs": 15, "lr": 3e-3}
    epochs = list(train("gru", params, chunks, autocast=True))
    assert max(epoch.metrics[METRIC] for epoch in epochs) > 0.8


def test_a_dataset_without_validation_chunks_is_refused() -> None:
    only_train = make_chunks()
    only_train.split[:] = "train"
    with pytest.raises(RequestError, match="training needs valid chunks"):
        next(train("gru", SMALL, only_train))


def test_learning_rate_warms_up_and_follows_the_cosine() -> None:
    settings = TrainConfig(max_epochs=10, warmup_epochs=2, schedule="cosine")
    assert share_of_lr(0, settings) == pytest.approx(0.005)
    assert share_of_lr(1, settings) == pytest.approx(0.505)
    assert share_of_lr(2, settings) == 1
    assert share_of_lr(6, settings) == pytest.approx(0.5)
    assert share_of_lr(10, settings) == pytest.approx(0)


def test_defaults_are_the_published_baselines() -> None:
    _, settings = configure("gru", {})
    assert (settings.optimizer, settings.lr, settings.max_epochs) == ("adam", 0.001, 30)


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"hiden: no setting of family 'gru'.*hidden"):
        configure("gru", {"hiden": 3})


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [("lr", 0, "above 0"), ("optimizer", "sgd", "adam or adamw"), ("time_mask", 2, "0 to 1")],
)
def test_an_invalid_setting_is_refused_with_the_rule(name: str, value: object, rule: str) -> None:
    with pytest.raises(RequestError, match=f"{name} must be .*{rule}.* but it is {value!r}"):
        configure("gru", {name: value})


@pytest.fixture
def grouped() -> Chunks:
    """Chunks of 12 bands of chroma, which say nothing of the genre, and 7 of spectral contrast."""
    chunks = make_chunks(bands=19)
    chunks.spectrograms[:, :12] = np.random.default_rng(1).normal(size=(len(chunks.track), 12, 12))
    features = BandGroups(("chroma", "contrast"), LogMel(chunk_samples=11 * 256))
    return dataclasses.replace(chunks, info=dataclasses.replace(chunks.info, features=features))


def test_a_trial_sees_the_groups_it_names_and_nothing_else(grouped: Chunks) -> None:
    (epoch,) = _run({"groups": "contrast", "max_epochs": 1}, grouped)
    assert epoch.classifier.kept.tolist() == list(range(12, 19))
    x = torch.from_numpy(grouped.spectrograms[:4])
    expected = epoch.classifier.probs(x)
    x[:, :12] += 100
    assert epoch.classifier.probs(x).equal(expected)
    x[:, 12:] += 100
    assert not epoch.classifier.probs(x).equal(expected)


def test_groups_are_kept_by_a_checkpoint(grouped: Chunks, tmp_path: Path) -> None:
    (epoch,) = _run({"groups": "contrast", "max_epochs": 1}, grouped)
    params = SMALL | {"groups": "contrast"}
    save_checkpoint(tmp_path, epoch, "gru", params, grouped.info)
    x = torch.from_numpy(grouped.spectrograms[:4])
    again = load_checkpoint(tmp_path).classifier
    assert again.probs(x).equal(epoch.classifier.eval().probs(x))


def test_a_group_that_the_dataset_lacks_is_refused(grouped: Chunks) -> None:
    with pytest.raises(RequestError, match=r"it has chroma, contrast, but groups is 'mfcc'"):
        _run({"groups": "mfcc"}, grouped)
    with pytest.raises(RequestError, match=r"groups is 'chroma\+chroma'"):
        _run({"groups": "chroma+chroma"}, grouped)


def test_the_average_of_the_weights_is_what_is_judged(chunks: Chunks) -> None:
    plain = _run({"max_epochs": 3}, chunks)
    averaged = _run({"max_epochs": 3, "averaging": 0.9}, chunks)
    # the same steps, so the same training; but another model at the end
    assert [e.metrics["train_loss"] for e in averaged] == [e.metrics["train_loss"] for e in plain]
    last, mean = plain[-1].classifier.state_dict(), averaged[-1].classifier.state_dict()
    assert not torch.equal(last["network.head.1.weight"], mean["network.head.1.weight"])
    assert torch.equal(last["mean"], mean["mean"])


def test_the_average_forgets_where_it_began(chunks: Chunks) -> None:
    """Its weights lie near the last ones after few steps already, whatever the decay."""
    plain = _run({"max_epochs": 4}, chunks)[-1].classifier.network.head[1].weight
    mean = _run({"max_epochs": 4, "averaging": 0.999}, chunks)[-1].classifier.network.head[1].weight
    first = _run({"max_epochs": 1}, chunks)[-1].classifier.network.head[1].weight
    assert (mean - plain).norm() < (first - plain).norm()
