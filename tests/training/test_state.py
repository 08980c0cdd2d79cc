"""A training that is interrupted and resumed ends where it would have ended."""

import itertools

import pytest
import torch

from mgc_ray.data.chunks import Chunks
from mgc_ray.settings import Params
from mgc_ray.training.epoch import Epoch
from mgc_ray.training.loop import train
from mgc_ray.training.state import StateError, read_progress

SMALL: Params = {
    "channels": 4,
    "blocks": 2,
    "hidden": 8,
    "batch_size": 8,
    "lr": 3e-3,
    "max_epochs": 4,
}


def _epochs(chunks: Chunks, params: Params, state: bytes | None = None) -> list[Epoch]:
    return list(train("gru", SMALL | params, chunks, autocast=False, state=state))


def _weights(epoch: Epoch) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in epoch.classifier.state_dict().items()}


def _metrics(epoch: Epoch) -> dict[str, float]:
    timed = ("epoch_seconds", "chunks_per_second", "memory_mib")
    return {name: value for name, value in epoch.metrics.items() if name not in timed}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"dropout": 0.5, "crop": 0.5, "crops": 2, "pitch_shift": 2.0},
        {"averaging": 0.9},
        {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup_epochs": 1},
    ],
)
def test_resuming_gives_the_epochs_that_would_have_come(chunks: Chunks, params: Params) -> None:
    whole = _epochs(chunks, params)
    training = train("gru", SMALL | params, chunks, autocast=False)
    first, second = itertools.islice(training, 2)
    assert second.state
    state = second.state({"seen": [1, 2]})
    next(training)  # the state is of the second epoch, whatever came after it
    torch.manual_seed(99)  # and of another process, whose random numbers are others
    rest = _epochs(chunks, params, state)
    assert [epoch.number for epoch in rest] == [3, 4]
    assert [_metrics(e) for e in [first, second, *rest]] == [_metrics(e) for e in whole]
    assert [epoch.best for epoch in rest] == [epoch.best for epoch in whole[2:]]
    for name, value in _weights(whole[-1]).items():
        assert torch.equal(value, rest[-1].classifier.state_dict()[name]), name
    assert read_progress(state)["notes"] == {"seen": [1, 2]}


def test_patience_continues_to_count(chunks: Chunks) -> None:
    params = {"max_epochs": 30, "patience": 3, "lr": 1e-9}
    whole = _epochs(chunks, params)
    assert len(whole) < 30
    training = train("gru", SMALL | params, chunks, autocast=False)
    *_, before = itertools.islice(training, len(whole) - 1)
    assert before.state
    assert [e.last for e in _epochs(chunks, params, before.state(None))] == [True]


def test_the_best_score_so_far_is_kept_whatever_the_metric(chunks: Chunks) -> None:
    whole = list(train("gru", SMALL, chunks, autocast=False, metric="log_loss"))
    first = next(train("gru", SMALL, chunks, autocast=False, metric="log_loss"))
    assert first.state
    rest = list(
        train("gru", SMALL, chunks, autocast=False, state=first.state(None), metric="log_loss")
    )
    assert [epoch.best for epoch in rest] == [epoch.best for epoch in whole[1:]]


@pytest.mark.parametrize("damage", ["cut", "empty", "other settings", "no state"])
def test_what_is_no_state_of_this_training_is_refused(chunks: Chunks, damage: str) -> None:
    epoch = next(train("gru", SMALL, chunks, autocast=False))
    assert epoch.state
    state = {
        "cut": epoch.state(None)[:2000],
        "empty": b"",
        "other settings": epoch.state(None),
        "no state": b"\0" * 100,
    }[damage]
    params = SMALL | ({"hidden": 16} if damage == "other settings" else {})
    with pytest.raises(StateError):
        next(train("gru", params, chunks, autocast=False, state=state))
