"""Train one configuration, an epoch at a time; the caller decides whether to continue.

    for epoch in train("gru", {"lr": 3e-4}, chunks):
        print(epoch.number, epoch.metrics["val_track_accuracy"])

Batches come from batches.py and are augmented whole on the device; nothing waits for the device
within an epoch. Families whose weights are solved for have epochs of another kind, see solved.py.
"""

import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mgc_ray import task
from mgc_ray.config import Metric
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.models._classifier import Classifier
from mgc_ray.settings import Params
from mgc_ray.training.descent import Descent, NonFiniteLossError
from mgc_ray.training.epoch import BandStatistics, Epoch, Training
from mgc_ray.training.solved import solve
from mgc_ray.training.state import TrainingState


def train(
    family: str,
    params: Params,
    chunks: ChunkTable,
    device: str | torch.device = "cpu",
    autocast: bool | None = None,
    state: bytes | None = None,
    metric: Metric = "track_accuracy",
    statistics: BandStatistics | None = None,
) -> Iterator[Epoch]:
    """Train `family` with flat parameters (see TrainConfig and the family's Config).

    `autocast`: bf16 arithmetic in training (evaluation is always float32); None uses it where it is
    faster. `state`: continue after the epoch that gave it, of the same parameters and chunks (else
    StateError); the epochs to come are those that would have come. `metric` decides which epoch is
    the best. `statistics`: mean and deviation of the bands, where not those of the training part of
    `chunks`. Raises NonFiniteLossError when the loss is no number any more, at the end of the
    epoch; RequestError for parameters that do not exist and for chunks without both parts.
    """
    prepared = Training(family, params, chunks, device, statistics)
    if hasattr(prepared.hooks, "fit"):
        yield from solve(prepared)
    else:
        yield from _by_steps(prepared, autocast, state, metric)


def _by_steps(
    training: Training, autocast: bool | None, state: bytes | None, metric: Metric
) -> Iterator[Epoch]:
    config, settings, hooks = training.config, training.settings, training.hooks
    classifier, rows = training.classifier, training.rows["train"]
    steps = training.steps(rows)
    groups = hooks.lr_shares(classifier, config) if hasattr(hooks, "lr_shares") else None
    descent = Descent(classifier, settings, training.device, steps, groups, autocast)
    averaged = descent.averaged
    evaluated: Classifier = averaged.module if averaged else classifier  # type: ignore[assignment]

    def loss_of(batch: tuple[tuple[Tensor, ...], Tensor]) -> Tensor | None:
        inputs, target = batch
        if len(target) == 1 and steps > 1:
            return None  # batch norm cannot take the deviation of one
        with descent.precision:
            logits = classifier.network(*inputs)
        return task.loss(logits, target, settings.label_smoothing)

    modules: dict[str, torch.nn.Module] = {"classifier": classifier}
    if averaged:
        modules["averaged"] = averaged.module
    all_state = TrainingState(
        modules, descent.optimizer, descent.schedule, training.generator, training.random
    )
    best, waited, first = task.WORST, 0, 1
    if state is not None:
        before = all_state.unpack(state)
        best, waited, first = task.Score(*before["best"]), before["waited"], before["epoch"] + 1
    for number in range(first, settings.max_epochs + 1):
        started = time.perf_counter()
        classifier.train()
        if hasattr(hooks, "begin_epoch"):
            hooks.begin_epoch(classifier, config, number)
        done = descent.epoch(training.batches(rows), loss_of, number)
        trained = time.perf_counter() - started

        metrics, validation = training.validate(evaluated)
        metrics |= {
            "train_loss": done.train_loss,
            "lr": done.lr,
            "epoch_seconds": time.perf_counter() - started,
            "chunks_per_second": len(rows) * settings.crops / trained,
            "memory_mib": training.memory_mib(),
            "gradient_norm": done.gradient_norm,
        }
        if not math.isfinite(metrics["val_loss"] + metrics["train_loss"]):
            raise NonFiniteLossError(f"validation loss is {metrics['val_loss']} in epoch {number}")
        score = task.score(metrics, metric)
        waited = 0 if score > best else waited + 1
        is_best, best = score > best, max(score, best)
        last = number == settings.max_epochs or waited >= settings.patience
        progress = {"epoch": number, "best": best, "waited": waited}
        pack = partial(_pack, all_state, progress)
        examples = training.examples if number == 1 else None
        yield Epoch(number, metrics, is_best, last, evaluated, validation, examples, pack)
        if last:
            return


def _pack(state: TrainingState, progress: Params, notes: Any) -> bytes:
    return state.pack(progress | {"notes": notes})
