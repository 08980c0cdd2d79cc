"""The steps that training and pre-training share: optimiser, schedule, average, divergence."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mgc_ray.config import TrainConfig
from mgc_ray.training.descent import (
    Descent,
    MovingAverage,
    NonFiniteLossError,
    precision_of,
    share_of_lr,
)
from tests.waits import waits

CPU = torch.device("cpu")


class _One(nn.Module):
    """A single weight, 0 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


def _descent(module: _One, steps: int, **settings: Any) -> Descent:
    return Descent(module, TrainConfig(**settings), CPU, steps, autocast=False)


def test_adam_steps_by_the_learning_rate_against_the_gradient() -> None:
    # with a constant gradient every step of Adam is as long as the learning rate
    module = _One()
    done = _descent(module, 3, lr=0.5).epoch([1.0, 1.0, 1.0], lambda g: g * module.weight, 1)
    assert module.weight.item() == pytest.approx(-1.5, abs=1e-4)
    assert done.lr == 0.5
    assert done.train_loss == pytest.approx((0 - 0.5 - 1.0) / 3, abs=1e-4)
    assert done.gradient_norm == 1.0  # of the first of eight steps


def test_a_batch_without_a_loss_takes_no_step_and_is_left_out_of_the_mean() -> None:
    module = _One()

    def loss_of(batch: float) -> Tensor | None:
        return module.weight + 4.0 if batch else None

    descent = _descent(module, 3, lr=1.0)
    done = descent.epoch([1.0, 0.0, 1.0], loss_of, 1)
    assert module.weight.item() == pytest.approx(-2.0, abs=1e-4)
    assert done.train_loss == pytest.approx((4.0 + 3.0) / 2, abs=1e-4)
    assert descent.schedule.last_epoch == 2
    assert _descent(_One(), 1).epoch([0.0], lambda batch: None, 1).train_loss == 0


def test_the_learning_rate_warms_up_and_follows_the_cosine() -> None:
    settings = TrainConfig(max_epochs=10, warmup_epochs=2, schedule="cosine")
    assert share_of_lr(0, settings) == pytest.approx(0.005)
    assert share_of_lr(1, settings) == pytest.approx(0.505)
    assert share_of_lr(2, settings) == 1
    assert share_of_lr(6, settings) == pytest.approx(0.5)
    assert share_of_lr(10, settings) == pytest.approx(0)


def test_the_schedule_continues_from_epoch_to_epoch() -> None:
    module = _One()
    descent = _descent(module, 2, lr=1.0, max_epochs=2, schedule="cosine")
    rates = [descent.epoch([1.0, 1.0], lambda g: g * module.weight, n).lr for n in (1, 2)]
    assert rates == pytest.approx([1.0, 0.5])
    # steps at a quarter of the cosine each: 1, 0.5 (1 + cos 45°), 0.5, 0.5 (1 + cos 135°)
    shares = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert module.weight.item() == pytest.approx(-sum(shares), abs=1e-4)


def test_parts_of_a_module_may_have_a_share_of_the_learning_rate() -> None:
    module = nn.ModuleList([_One(), _One()])
    parts = [(list(module[i].parameters()), share) for i, share in enumerate((1.0, 0.1))]
    descent = Descent(module, TrainConfig(lr=1.0), CPU, 1, parts, autocast=False)
    descent.epoch([1.0], lambda g: sum(p for p in module.parameters()) * g, 1)
    assert [p.item() for p in module.parameters()] == pytest.approx([-1.0, -0.1], abs=1e-4)


def test_the_moving_average_by_hand() -> None:
    # weights -1, -2, -3 after the steps; the first is copied, then decays are 2/11 and 3/12
    module = _One()
    descent = _descent(module, 3, lr=1.0, averaging=0.9)
    descent.epoch([1.0, 1.0, 1.0], lambda g: g * module.weight, 1)
    second = 2 / 11 * -1 + 9 / 11 * -2
    assert descent.averaged
    averaged: Tensor = descent.averaged.module.weight  # type: ignore[assignment]
    assert averaged.item() == pytest.approx(3 / 12 * second + 9 / 12 * -3, abs=1e-4)
    assert _descent(module, 1).averaged is None


def test_the_average_follows_batch_norm_and_waits_for_nothing() -> None:
    module = nn.BatchNorm1d(2)
    average = MovingAverage(module, 0.9)
    for step, mean in enumerate((4.0, 8.0), start=1):
        module.running_mean.fill_(mean)
        module.num_batches_tracked.fill_(step)
        average.update(step)
    assert average.module.running_mean.tolist() == pytest.approx([4 + 9 / 11 * 4] * 2)
    assert int(average.module.num_batches_tracked) == 2
    on_device = MovingAverage(nn.BatchNorm1d(2, device="meta"), 0.9)
    with waits() as found:
        on_device.update(1)
        on_device.update(2)
    assert found == []


def test_the_weights_of_averaged_recurrent_layers_are_in_one_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flattened: list[nn.Module] = []
    monkeypatch.setattr(nn.GRU, "flatten_parameters", lambda self: flattened.append(self))
    module = nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2))
    flattened.clear()
    average = MovingAverage(module, 0.9)
    assert average.module[1] in flattened  # type: ignore[index]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_is_reported_with_epoch_and_step(value: float) -> None:
    module = _One()
    descent = _descent(module, 3)
    with pytest.raises(NonFiniteLossError, match=f"loss is {value} in epoch 7, step 2 of 3: a sm"):
        descent.epoch([1.0, value, 1.0], lambda g: module.weight * 0 + g, 7)


def test_precision_is_bfloat16_where_it_is_asked_for() -> None:
    with precision_of(CPU, True):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16
    with precision_of(CPU, False):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
