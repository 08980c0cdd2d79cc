"""Training: what it learns, what it reports, when it ends, and that it can be repeated."""

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mgc_ray import RequestError, task
from mgc_ray.config import Metric, TrainConfig
from mgc_ray.data.chunks import Chunks
from mgc_ray.data.features.array import Array
from mgc_ray.settings import Params
from mgc_ray.task import score
from mgc_ray.training.augment import augment
from mgc_ray.training.batches import batches
from mgc_ray.training.checkpoint import load_checkpoint, save_checkpoint
from mgc_ray.training.descent import NonFiniteLossError
from mgc_ray.training.epoch import Epoch, Training, predict_probs
from mgc_ray.training.loop import train
from tests.conftest import make_chunks
from tests.made_chunks import chunks_of_three

SMALL: Params = {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8, "max_epochs": 4}


ACCURACY = "val_track_accuracy"


def _run(params: Params, chunks: Chunks) -> list[Epoch]:
    return list(train("gru", SMALL | params, chunks, autocast=False))


@pytest.mark.parametrize("family", ["cnn", "lstm", "gru"])
def test_a_family_learns_what_can_be_learnt(family: str, chunks: Chunks) -> None:
    epochs = list(train(family, SMALL | {"max_epochs": 15, "lr": 3e-3}, chunks, autocast=False))
    assert max(epoch.metrics[ACCURACY] for epoch in epochs) > 0.8
    assert epochs[-1].metrics["train_loss"] < epochs[0].metrics["train_loss"]


def test_a_family_that_is_solved_takes_one_epoch(chunks: Chunks) -> None:
    epochs = list(train("discriminant", {}, chunks))
    assert [epoch.last for epoch in epochs] == [True]
    assert epochs[0].metrics[ACCURACY] > 0.8
    assert 0 <= epochs[0].metrics["train_loss"] <= epochs[0].metrics["val_loss"]


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
        "val_log_loss",
        "lr",
        "epoch_seconds",
        "chunks_per_second",
        "memory_mib",
        "gradient_norm",
    }


def test_the_same_seed_gives_the_same_metrics_and_another_does_not(chunks: Chunks) -> None:
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


@pytest.mark.parametrize("metric", get_args(Metric))
def test_the_best_epoch_is_that_of_the_best_score_by_the_metric(
    chunks: Chunks, metric: Metric
) -> None:
    params = SMALL | {"max_epochs": 8, "patience": 8, "lr": 3e-3}
    best = task.WORST
    for epoch in train("gru", params, chunks, autocast=False, metric=metric):
        assert epoch.best == (score(epoch.metrics, metric) > best)
        best = max(best, score(epoch.metrics, metric))


def _scripted(monkeypatch: pytest.MonkeyPatch, epochs: list[tuple[float, ...]]) -> None:
    """Let validation give these metrics: track accuracy, macro-F1, log-loss, loss of chunks."""
    remaining = iter(epochs)
    validation_metrics = task.validation_metrics

    def scripted(*args: np.ndarray) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        metrics, probs, true = validation_metrics(*args)
        names = (ACCURACY, "val_macro_f1", "val_log_loss", "val_loss")
        return metrics | dict(zip(names, next(remaining), strict=True)), probs, true

    monkeypatch.setattr(task, "validation_metrics", scripted)


@pytest.mark.parametrize(
    ("metric", "best"),
    [("track_accuracy", [1, 3]), ("macro_f1", [1, 2]), ("log_loss", [1, 2, 4])],
)
def test_each_metric_keeps_its_own_best_epochs(
    chunks: Chunks, monkeypatch: pytest.MonkeyPatch, metric: Metric, best: list[int]
) -> None:
    _scripted(
        monkeypatch,
        [(0.5, 0.3, 1.0, 1.0), (0.4, 0.6, 0.9, 2.0), (0.7, 0.5, 0.95, 3.0), (0.7, 0.6, 0.8, 4.0)],
    )
    epochs = train("gru", SMALL, chunks, metric=metric)
    assert [epoch.number for epoch in epochs if epoch.best] == best


def test_a_tie_goes_to_the_lower_loss_of_the_chunks(
    chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    equal = [(0.5, 0.5, 1.0, loss) for loss in (2.0, 2.5, 1.5, 1.5)]
    for metric in get_args(Metric):
        with monkeypatch.context() as patched:
            _scripted(patched, equal)
            epochs = list(train("gru", SMALL, chunks, metric=metric))
        assert [epoch.best for epoch in epochs] == [True, False, True, False]


def test_patience_counts_by_the_metric(chunks: Chunks, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = [(0.5 + i / 100, 0.5, 1.0 + i / 100, 1.0) for i in range(8)]  # by its log-loss
    params = SMALL | {"max_epochs": 8, "patience": 2}
    for metric, expected in (("track_accuracy", 8), ("log_loss", 3)):
        with monkeypatch.context() as patched:
            _scripted(patched, worse)
            epochs = list(train("gru", params, chunks, metric=metric))  # type: ignore[arg-type]
        assert len(epochs) == expected
        assert epochs[-1].last


def test_a_loss_that_is_no_number_ends_training_with_epoch_and_step(chunks: Chunks) -> None:
    poisoned = chunks.features["array"].copy()
    poisoned[chunks.rows("train")[3], 0, 0] = math.nan
    broken = dataclasses.replace(chunks, features={"array": poisoned})
    params = SMALL | {"mixup": 0.0, "masks": 0}
    # statistics of the damaged bands would spoil every step
    sound = chunks.band_statistics
    with pytest.raises(NonFiniteLossError, match=r"loss is nan in epoch 1, step \d of 5"):
        next(train("gru", params, broken, autocast=False, statistics=sound))


def test_a_loss_of_validation_that_is_no_number_ends_training(chunks: Chunks) -> None:
    poisoned = chunks.features["array"].copy()
    poisoned[chunks.rows("valid")[3], 0, 0] = math.nan
    broken = dataclasses.replace(chunks, features={"array": poisoned})
    with pytest.raises(NonFiniteLossError, match=r"validation loss is nan in epoch 1"):
        next(train("gru", SMALL, broken, autocast=False))


def test_standardisation_comes_from_the_training_part_alone(chunks: Chunks) -> None:
    shifted = chunks.features["array"].copy()
    shifted[chunks.rows("valid")] += 1000
    moved = dataclasses.replace(chunks, features={"array": shifted})
    classifier = next(train("gru", SMALL, moved)).classifier
    expected = chunks.features["array"][chunks.rows("train")].mean((0, 2))
    assert classifier.mean.numpy() == pytest.approx(expected, abs=1e-3)


def test_other_statistics_may_be_given(chunks: Chunks) -> None:
    given = {"array": (np.full(16, 3, np.float32), np.full(16, 5, np.float32))}
    classifier = next(train("gru", SMALL, chunks, statistics=given)).classifier
    assert classifier.mean.tolist() == [3] * 16
    assert classifier.deviation.tolist() == [5] * 16


def test_metrics_come_from_validation_chunks_alone(chunks: Chunks) -> None:
    """Where those are noise, no metric of validation may look good."""
    noise = chunks.features["array"].copy()
    noise[chunks.rows("valid")] = np.random.default_rng(0).normal(size=(18, 16, 12)) - 30
    noisy = dataclasses.replace(chunks, features={"array": noise})
    epochs = _run({"max_epochs": 10, "lr": 3e-3}, noisy)
    assert epochs[-1].metrics["train_loss"] < epochs[0].metrics["train_loss"]
    assert max(epoch.metrics["val_chunk_accuracy"] for epoch in epochs) < 0.7


def test_evaluation_is_float32_without_dropout_and_with_batch_norm_at_rest(chunks: Chunks) -> None:
    classifier = next(train("gru", SMALL | {"dropout": 0.5}, chunks)).classifier
    source = batches(chunks, ["array"], torch.device("cpu"))
    rows = chunks.rows("valid")
    classifier.train()
    once, again = (predict_probs(classifier, source, rows) for _ in range(2))
    assert np.array_equal(once, again)
    assert once.sum(1) == pytest.approx(1)


def test_uint8_spectrograms_train_without_a_float_copy(chunks: Chunks) -> None:
    as_bytes = (chunks.features["array"] * 4 + 200).clip(0, 255).astype(np.uint8)
    feature = Array(bands=16, frames=12, value_type="uint8")
    features = dataclasses.replace(chunks.info.features, columns={"array": feature})
    info = dataclasses.replace(chunks.info, features=features)
    small = dataclasses.replace(chunks, info=info, features={"array": as_bytes})
    epochs = _run({"max_epochs": 15, "lr": 3e-3}, small)
    assert max(epoch.metrics[ACCURACY] for epoch in epochs) > 0.8


def test_read_only_memory_is_enough(chunks: Chunks) -> None:
    chunks.features["array"].flags.writeable = False
    next(train("gru", SMALL, chunks))


def test_bfloat16_learns_as_well(chunks: Chunks) -> None:
    params = SMALL | {"max_epochs": 15, "lr": 3e-3}
    epochs = list(train("gru", params, chunks, autocast=True))
    assert max(epoch.metrics[ACCURACY] for epoch in epochs) > 0.8


def test_a_dataset_without_validation_chunks_is_refused() -> None:
    only_train = make_chunks()
    only_train.split[:] = "train"
    with pytest.raises(RequestError, match="training needs valid chunks"):
        next(train("gru", SMALL, only_train))


# --- several features ---


def test_a_trial_reads_only_the_features_of_its_setting() -> None:
    chunks = chunks_of_three()
    (epoch,) = _run({"features": "log_mel+mfcc", "max_epochs": 1}, chunks)
    assert epoch.classifier.names == ["log_mel", "mfcc"]
    batch = {name: torch.from_numpy(x[:4]) for name, x in chunks.features.items()}
    expected = epoch.classifier.probs(batch)
    assert epoch.classifier.probs(batch | {"chroma": batch["chroma"] + 100}).equal(expected)
    assert not epoch.classifier.probs(batch | {"mfcc": batch["mfcc"] + 100}).equal(expected)


def test_what_a_trial_reads_is_kept_by_a_checkpoint(tmp_path: Path) -> None:
    chunks = chunks_of_three()
    params = SMALL | {"features": "log_mel+mfcc", "max_epochs": 1}
    (epoch,) = _run(params, chunks)
    save_checkpoint(tmp_path, epoch, "gru", params, chunks.info)
    loaded = load_checkpoint(tmp_path)
    assert list(loaded.features.columns) == ["log_mel", "mfcc"]
    batch = {name: torch.from_numpy(x[:4]) for name, x in chunks.features.items()}
    assert loaded.classifier.probs(batch).equal(epoch.classifier.eval().probs(batch))


def test_a_network_learns_from_the_feature_that_has_the_genre() -> None:
    chunks = chunks_of_three()
    learnt = {
        features: max(
            epoch.metrics[ACCURACY]
            for epoch in _run({"features": features, "max_epochs": 15, "lr": 3e-3}, chunks)
        )
        for features in ("all", "chroma+mfcc")
    }
    assert learnt["all"] > 0.8
    assert learnt["chroma+mfcc"] < 0.7


def test_only_pitched_bands_are_transposed_and_get_another_level() -> None:
    still: Params = {"mixup": 0.0, "masks": 0, "max_epochs": 1}
    chunks = chunks_of_three()
    (plain,) = _run(still, chunks)
    (moved,) = _run(still | {"gain": 50.0, "tilt": 50.0}, chunks)
    assert plain.examples is not None
    assert moved.examples is not None
    assert plain.examples.shape == (4, 52, 12)
    differs = np.abs(moved.examples - plain.examples).max((0, 2)) > 1e-5
    assert differs.tolist() == [True] * 20 + [False] * 32
    classifier = plain.classifier
    steps = torch.arange(52.0).expand(2, 12, 52).transpose(1, 2)
    generator = torch.Generator().manual_seed(0)
    settings = dataclasses.replace(TrainConfig(), pitch_shift=4.0, masks=0)
    shifted = augment(steps, 12, settings, classifier.pitched_bands, generator)
    assert not torch.allclose(shifted[:, :20], steps[:, :20], atol=0.1)
    assert torch.allclose(shifted[:, 20:], steps[:, 20:], atol=1e-3)


# --- several batches at once, as on a GPU ---


def _training(chunks: Chunks, at_once: int, **params: Any) -> Training:
    training = Training("gru", SMALL | {"masks": 0} | params, chunks, "cpu", None)
    training._at_once = at_once
    return training


def test_batches_that_are_prepared_together_are_those_prepared_alone(chunks: Chunks) -> None:
    params = {"mixup": 0.4, "batch_size": 7}
    (alone, together) = (
        list(training.batches(training.rows["train"]))
        for training in (_training(chunks, at_once, **params) for at_once in (1, 4))
    )
    # 36 chunks: five batches, and one of one chunk
    assert [len(target) for _, target in together] == [7, 7, 7, 7, 7, 1]
    for ((x,), target), ((other,), expected) in zip(together, alone, strict=True):
        assert x.equal(other)
        assert target.equal(expected)


class _Calls(TorchDispatchMode):
    """Counts the operations, each of which is a launch or more on a GPU."""

    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
        self.count += 1
        return operation(*args, **(kwargs or {}))


def test_batches_that_are_prepared_together_take_a_fraction_of_the_calls(chunks: Chunks) -> None:
    params = {"masks": 2, "pitch_shift": 2.0, "gain": 0.2, "time_shift": 0.2, "batch_size": 4}
    counts = []
    for at_once in (1, 9):
        training = _training(chunks, at_once, **params)
        with _Calls() as calls:
            list(training.batches(training.rows["train"]))
        counts.append(calls.count)
    assert counts[1] < counts[0] / 4


def test_a_training_with_batches_prepared_together_resumes_exactly(
    chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_init = Training.__init__

    def init(self: Training, *args: Any) -> None:
        whole_init(self, *args)
        self._at_once = 3

    monkeypatch.setattr(Training, "__init__", init)
    params = SMALL | {"pitch_shift": 2.0, "crop": 0.5, "dropout": 0.3}
    whole = train("gru", params, chunks, autocast=False)
    losses, state = [], b""
    for epoch in whole:
        losses.append(epoch.metrics["train_loss"])
        if epoch.number == 2 and epoch.state:
            state = epoch.state({})
    rest = train("gru", params, chunks, autocast=False, state=state)
    assert [epoch.metrics["train_loss"] for epoch in rest] == losses[2:]


# --- the moving average ---


def test_the_average_of_the_weights_is_what_is_evaluated(chunks: Chunks) -> None:
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
