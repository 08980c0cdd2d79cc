"""Train one configuration, an epoch at a time; the caller decides whether to go on.

    for epoch in train("gru", {"lr": 3e-4}, chunks):
        print(epoch.number, epoch.metrics["val_track_accuracy"])

Batches come from batches.py and are augmented whole on the device; nothing waits for the device
inside an epoch.
"""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from mgc_ray import RequestError
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.models import family_module
from mgc_ray.models._classifier import Classifier
from mgc_ray.training.augment import augment, mixup, mixup_shares
from mgc_ray.training.batches import Batches, batches
from mgc_ray.training.config import TrainConfig, configure, new_classifier, seen_groups
from mgc_ray.training.metrics import METRIC, accuracy, macro_f1, track_probs
from mgc_ray.training.state import TrainingState

EXAMPLES = 4
_STEPS_BETWEEN_NORMS = 8


class NonFiniteLossError(ArithmeticError):
    """Training has diverged; the message says at which epoch and step."""


@dataclass(frozen=True)
class Predictions:
    """Of tracks: probs float64 [tracks, genres], true [tracks]."""

    probs: np.ndarray
    true: np.ndarray


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave.

    `metrics`: train_loss, val_loss, val_track_accuracy, val_chunk_accuracy, val_macro_f1 (of
    tracks), lr, epoch_seconds, chunks_per_second, memory_mib (the highest so far of this process,
    on a GPU of its memory there) and, where training goes by steps, gradient_norm (mean of some of
    the steps). `best`: no earlier epoch had a higher val_track_accuracy (ties: a lower val_loss).
    `last`: training ends here by itself. `classifier` is the live model (or its moving average):
    copy what you keep. `validation`: predictions on the validation tracks. `examples`: float32
    [n, bands, frames], some of the augmented spectrograms that the network saw, after the first
    epoch. `state(notes)`: all that `train` needs to go on from here, with plain JSON values of your
    own; call it before the next epoch.
    """

    number: int
    metrics: dict[str, float]
    best: bool
    last: bool
    classifier: Classifier
    validation: Predictions | None = None
    examples: np.ndarray | None = None
    state: Callable[[Any], bytes] | None = None


def train(
    family: str,
    params: dict[str, Any],
    chunks: ChunkTable,
    device: str | torch.device = "cpu",
    autocast: bool | None = None,
    state: bytes | None = None,
) -> Iterator[Epoch]:
    """Train `family` with flat parameters (see TrainConfig and the family's Config).

    `autocast`: bf16 arithmetic in training (evaluation is float32 always); None takes it where it
    is faster. `state`: go on after the epoch that gave it, of the same parameters and chunks (else
    StateError); the epochs to come are those that would have come. Raises NonFiniteLossError when
    the loss is no number any more, at the end of the epoch; RequestError for parameters that do not
    exist and for chunks without both parts.
    """
    config, settings = configure(family, params)
    device = torch.device(device)
    rows = {split: chunks.rows(split) for split in ("train", "valid")}
    for split, indices in rows.items():
        if not len(indices):
            raise RequestError(f"training needs {split} chunks, but the dataset has none")
    random = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    generator = torch.Generator(device).manual_seed(settings.seed)

    info = chunks.info
    genre = torch.from_numpy(chunks.genre).to(device)
    groups = seen_groups(settings, info.features.groups)
    classifier = new_classifier(family, params, info.features, len(info.genres))
    take_statistics(classifier, chunks)
    hooks = family_module(family)
    if hasattr(hooks, "initialise"):
        hooks.initialise(classifier, config)
    classifier = classifier.to(device)
    solved = hasattr(hooks, "fit")  # in one pass, and not by steps
    averaged = None if solved else _averaged(classifier, settings)
    judged: Classifier = averaged.module if averaged else classifier  # type: ignore[assignment]

    source = batches(chunks, device)
    drawn_rows = np.repeat(rows["train"], settings.crops)
    frames = classifier.length(info.features.frames)
    in_epoch = len(drawn_rows)
    steps = math.ceil(in_epoch / settings.batch_size)
    optimizer = _optimizer(classifier, config, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: share_of_lr(step / steps, settings)
    )
    precision = precision_of(device, autocast)

    seen: list[Tensor] = []  # the first batch's first spectrograms
    norms: list[Tensor] = []  # of the gradients, in this epoch

    def epoch_batches() -> Iterator[tuple[Tensor, Tensor]]:
        """What the network sees in one epoch: x and target [B, genres]."""
        shares = mixup_shares(settings.mixup, steps, random).to(device)
        drawn = source.shuffled(drawn_rows, settings.batch_size, generator)
        for step, (batch, x) in enumerate(drawn):
            x = augment(classifier.standardise(x), frames, settings, groups, generator)
            target = F.one_hot(genre[batch], len(info.genres)).float()
            if settings.mixup:
                x, target = mixup(x, target, shares[step])
            if not seen:
                seen.append(x[:EXAMPLES])
            yield x, target

    def descend() -> Tensor:
        """Train for one epoch; the loss of each step."""
        losses = torch.zeros(steps, device=device)
        for step, (x, target) in enumerate(epoch_batches()):
            if len(x) == 1 and steps > 1:
                continue  # batch norm cannot take the deviation of one
            with precision:
                logits = classifier.network(x)
            loss = F.cross_entropy(logits.float(), target, label_smoothing=settings.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if step % _STEPS_BETWEEN_NORMS == 0:
                norms.append(_gradient_norm(classifier))
            optimizer.step()
            schedule.step()
            if averaged:
                averaged.update_parameters(classifier)
            losses[step] = loss.detach()
        return losses

    modules: dict[str, torch.nn.Module] = {"classifier": classifier}
    if averaged:
        modules["averaged"] = averaged
    training = TrainingState(modules, optimizer, schedule, generator, random)
    best, waited, first = (-1.0, 0.0), 0, 1
    if state is not None:
        found = training.unpack(state)
        best, waited, first = tuple(found["best"]), found["waited"], found["epoch"] + 1
    for number in range(first, settings.max_epochs + 1):
        started = time.perf_counter()
        norms.clear()
        classifier.train()
        if hasattr(hooks, "begin_epoch"):
            hooks.begin_epoch(classifier, config, number)
        lr = float(schedule.get_last_lr()[-1])
        if solved:
            losses = torch.tensor([hooks.fit(classifier.network, config, epoch_batches())])
        else:
            losses = descend()
        check_finite(losses, number)
        trained = time.perf_counter() - started

        figures, validation = _validate(judged, source, chunks, rows["valid"])
        metrics: dict[str, float] = {
            "train_loss": float(losses.mean()),
            **figures,
            "lr": lr,
            "epoch_seconds": time.perf_counter() - started,
            "chunks_per_second": in_epoch / trained,
            "memory_mib": _memory_mib(device),
        }
        if norms:
            metrics["gradient_norm"] = float(torch.stack(norms).mean())
        if not math.isfinite(metrics["val_loss"]):
            raise NonFiniteLossError(f"validation loss is {metrics['val_loss']} in epoch {number}")
        score = (metrics[METRIC], -metrics["val_loss"])
        waited = 0 if score > best else waited + 1
        is_best, best = score > best, max(score, best)
        last = solved or number == settings.max_epochs or waited >= settings.patience
        progress = {"epoch": number, "best": best, "waited": waited}
        pack = partial(_pack, training, progress)
        examples = seen[0].float().cpu().numpy() if number == 1 else None
        yield Epoch(number, metrics, is_best, last, judged, validation, examples, pack)
        if last:
            return


def _pack(training: TrainingState, progress: dict[str, Any], notes: Any) -> bytes:
    return training.pack(progress | {"notes": notes})


def take_statistics(classifier: Classifier, chunks: ChunkTable) -> None:
    """Standardise by the bands of the training part from now on."""
    mean, deviation = chunks.band_statistics
    classifier.mean.copy_(torch.from_numpy(mean))
    classifier.deviation.copy_(torch.from_numpy(deviation))


def predict_probs(classifier: Classifier, source: Batches, rows: np.ndarray) -> np.ndarray:
    """Probabilities float64 [n, genres] of the chunks `rows`, in float32, batch norm at rest."""
    classifier.eval()
    with torch.inference_mode():
        probs = [classifier.probs(x) for _, x in source.in_order(rows)]
        return torch.cat(probs).cpu().numpy()


def best_device() -> torch.device:
    """CUDA where there is a GPU that this process may use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _validate(
    classifier: Classifier, source: Batches, chunks: ChunkTable, rows: np.ndarray
) -> tuple[dict[str, float], Predictions]:
    probs = predict_probs(classifier, source, rows)
    true = chunks.genre[rows]
    tracks, by_track = track_probs(probs, chunks.track[rows])
    track_true, track_predicted = chunks.track_genre[tracks], by_track.argmax(1)
    return {
        "val_loss": float(-np.log(np.maximum(probs[np.arange(len(true)), true], 1e-12)).mean())
        if np.isfinite(probs).all()
        else math.nan,
        METRIC: accuracy(track_predicted, track_true),
        "val_chunk_accuracy": accuracy(probs.argmax(1), true),
        "val_macro_f1": macro_f1(track_predicted, track_true, len(chunks.info.genres)),
    }, Predictions(by_track, track_true)


def _gradient_norm(classifier: Classifier) -> Tensor:
    gradients = [p.grad for p in classifier.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def _memory_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _optimizer(classifier: Classifier, config: Any, settings: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW; a family may give parts of its network rates of their own."""
    hooks = family_module(classifier.family)
    shares = [(list(classifier.parameters()), 1.0)]
    if hasattr(hooks, "lr_shares"):
        shares = hooks.lr_shares(classifier, config)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return kind(
        [{"params": part, "lr": settings.lr * share} for part, share in shares],
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _averaged(classifier: Classifier, settings: TrainConfig) -> AveragedModel | None:
    """A moving average of weights and batch norm, which is judged and kept instead of the last."""
    if not settings.averaging:
        return None

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        # a shorter memory at first: else the random weights would count for the first hundred steps
        decay = min(settings.averaging, (1 + float(steps)) / (10 + float(steps)))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - decay)
            else:  # batch norm's count of batches
                old.copy_(new)

    return AveragedModel(classifier, multi_avg_fn=update, use_buffers=True)


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
        # A CPU without matrix units for bf16 converts to and fro and becomes slower.
        autocast = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else torch.cpu._is_amx_tile_supported()
        )
    return torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext()


def check_finite(losses: Tensor, epoch: int) -> None:
    """One look at the whole epoch, so that no step waits for the device."""
    bad = torch.nonzero(~torch.isfinite(losses)).flatten()
    if len(bad):
        step = int(bad[0])
        raise NonFiniteLossError(
            f"loss is {float(losses[step])} in epoch {epoch}, step {step + 1} of {len(losses)}: "
            "a smaller lr may help"
        )
