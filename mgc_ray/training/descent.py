"""Training by gradient steps: what supervised training and pre-training share."""

import copy
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mgc_ray.config import TrainConfig

T = TypeVar("T")
ParameterGroups = list[tuple[list[nn.Parameter], float]]  # and their share of the learning rate

_STEPS_BETWEEN_NORMS = 8


class NonFiniteLossError(ArithmeticError):
    """Training has diverged; the message has the epoch and step."""


@dataclass(frozen=True)
class EpochOfSteps:
    """Of one epoch: the mean loss of its steps; `gradient_norm` is the mean of some of them."""

    train_loss: float
    lr: float
    gradient_norm: float


class Descent:
    """Optimiser, schedule, precision and moving average of the training of one module."""

    def __init__(
        self,
        module: nn.Module,
        settings: TrainConfig,
        device: torch.device,
        steps: int,
        groups: ParameterGroups | None = None,
        autocast: bool | None = None,
    ) -> None:
        self.module, self.steps, self._device = module, steps, device
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
        self.optimizer: torch.optim.Optimizer = kind(
            [
                {"params": part, "lr": settings.lr * share}
                for part, share in groups or [(list(module.parameters()), 1.0)]
            ],
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: share_of_lr(step / steps, settings)
        )
        self.precision = precision_of(device, autocast)
        self.averaged = MovingAverage(module, settings.averaging) if settings.averaging else None

    def epoch(
        self, batches: Iterable[T], loss_of: Callable[[T], Tensor | None], number: int
    ) -> EpochOfSteps:
        """Take one step per batch, except where `loss_of` gives None.

        Raises NonFiniteLossError at the end of an epoch in which a loss was no number.
        """
        losses = torch.zeros(self.steps, device=self._device)
        taken: list[int] = []
        norms: list[Tensor] = []
        lr = float(self.schedule.get_last_lr()[-1])
        for step, batch in enumerate(batches):
            loss = loss_of(batch)
            if loss is None:
                continue
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if step % _STEPS_BETWEEN_NORMS == 0:
                norms.append(_gradient_norm(self.module))
            self.optimizer.step()
            self.schedule.step()
            if self.averaged:
                self.averaged.update(self.schedule.last_epoch)
            losses[step] = loss.detach()
            taken.append(step)
        check_finite(losses, number)
        norm = float(torch.stack(norms).mean()) if norms else 0.0
        return EpochOfSteps(float(losses[taken].mean()) if taken else 0.0, lr, norm)


class MovingAverage:
    """A moving average of a module's weights and batch norm, which is evaluated and kept instead.

    `module` has it. Steps are counted by the caller, as a count on the device would be waited for.
    """

    def __init__(self, module: nn.Module, averaging: float) -> None:
        self.module = copy.deepcopy(module)
        for part in self.module.modules():
            if isinstance(part, nn.RNNBase):  # cuDNN wants all weights in one piece of memory
                part.flatten_parameters()
        self._averaging = averaging
        self._weights = _values(self.module, counts=False), _values(module, counts=False)
        self._counts = _values(self.module, counts=True), _values(module, counts=True)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the module after its step number `step`, from 1; the first is copied."""
        # a shorter memory at first: else the random weights would count for the first hundred steps
        decay = min(self._averaging, step / (9 + step)) if step > 1 else 0.0
        torch._foreach_lerp_(self._weights[0], self._weights[1], 1 - decay)
        if self._counts[0]:
            torch._foreach_copy_(self._counts[0], self._counts[1])


def _values(module: nn.Module, counts: bool) -> list[Tensor]:
    """Its parameters and buffers: batch norm's counts of batches, or all others."""
    values = (*module.parameters(), *module.buffers())
    return [value for value in values if value.is_floating_point() != counts]


def share_of_lr(epoch: float, settings: TrainConfig) -> float:
    """The learning rate at a (fractional) epoch from 0, as a share of its highest."""
    if epoch < settings.warmup_epochs:
        return (epoch + 0.01) / settings.warmup_epochs
    if settings.schedule == "constant":
        return 1.0
    left = max(settings.max_epochs - settings.warmup_epochs, 1)
    return 0.5 * (1 + math.cos(math.pi * min((epoch - settings.warmup_epochs) / left, 1.0)))


def precision_of(device: torch.device, autocast: bool | None) -> AbstractContextManager[Any]:
    """bf16 arithmetic where it is asked for, or (None) where it is faster."""
    if autocast is None:
        # A CPU without matrix units for bf16 converts back and forth and becomes slower.
        autocast = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else device.type == "cpu" and torch.cpu._is_amx_tile_supported()
        )
    return torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext()


def check_finite(losses: Tensor, epoch: int) -> None:
    """Look at the whole epoch once, so that no step waits for the device."""
    bad = torch.nonzero(~torch.isfinite(losses)).flatten()
    if len(bad):
        step = int(bad[0])
        raise NonFiniteLossError(
            f"loss is {float(losses[step])} in epoch {epoch}, step {step + 1} of {len(losses)}: "
            "a smaller lr may help"
        )


def _gradient_norm(module: nn.Module) -> Tensor:
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)
