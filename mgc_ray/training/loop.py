"""Train one configuration, an epoch at a time; the caller decides whether to continue.

    for epoch in train("gru", {"lr": 3e-4}, chunks):
        print(epoch.number, epoch.metrics["val_track_accuracy"])

Batches come from batches.py and are augmented whole on the device; nothing waits for the device
within an epoch.
"""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mgc_ray import RequestError, task
from mgc_ray.config import Metric
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.models import configure, family_module
from mgc_ray.models._classifier import Classifier, new_classifier
from mgc_ray.results import EpochMetrics
from mgc_ray.settings import Params
from mgc_ray.training.augment import augment, mixup, mixup_shares
from mgc_ray.training.batches import Batches, batches
from mgc_ray.training.descent import Descent, EpochOfSteps, NonFiniteLossError
from mgc_ray.training.state import TrainingState

BandStatistics = dict[str, tuple[np.ndarray, np.ndarray]]  # mean and deviation by feature

EXAMPLES = 4  # spectrograms that are kept to be looked at


@dataclass(frozen=True)
class TrackPredictions:
    """Of tracks: probs float64 [tracks, genres], true [tracks]."""

    probs: np.ndarray
    true: np.ndarray


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave.

    `metrics`: train_loss, lr, epoch_seconds, chunks_per_second, memory_mib (the highest so far of
    this process, on a GPU of its memory there), gradient_norm (mean of some of the steps, where
    there are any) and what `task.validation_metrics` gives. `best`: no earlier epoch had a better
    score. `last`: training ends here by itself. `classifier` is the live model (or its moving
    average): copy what you keep. `validation`: predictions for the validation tracks. `examples`:
    float32 [n, bands, frames], some of the augmented spectrograms that the network saw, after the
    first epoch. `state(notes)`: all that `train` needs to continue from here, with plain JSON
    values of the caller's; call it before the next epoch.
    """

    number: int
    metrics: EpochMetrics
    best: bool
    last: bool
    classifier: Classifier
    validation: TrackPredictions | None = None
    examples: np.ndarray | None = None
    state: Callable[[Any], bytes] | None = None


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
    config, settings = configure(family, params)
    hooks = family_module(family)
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
    classifier = new_classifier(family, params, info.features, len(info.genres))
    set_statistics(classifier, statistics or chunks.band_statistics)
    if hasattr(hooks, "initialise"):
        hooks.initialise(classifier, config)
    classifier = classifier.to(device)

    source = batches(chunks, classifier.names, device)
    drawn_rows = np.repeat(rows["train"], settings.crops)
    frames = classifier.length(classifier.frames)
    steps = math.ceil(len(drawn_rows) / settings.batch_size)
    groups = hooks.lr_shares(classifier, config) if hasattr(hooks, "lr_shares") else None
    solved = hasattr(hooks, "fit")  # in one pass, and not by steps
    descent = Descent(classifier, settings, device, steps, groups, autocast)
    averaged = None if solved else descent.averaged
    evaluated: Classifier = averaged.module if averaged else classifier  # type: ignore[assignment]
    seen: list[Tensor] = []  # the first batch's first spectrograms

    def epoch_batches() -> Iterator[tuple[Tensor, Tensor]]:
        """What the network sees in one epoch: x and target [B, genres]."""
        shares = mixup_shares(settings.mixup, steps, random).to(device)
        drawn = source.shuffled(drawn_rows, settings.batch_size, generator)
        for step, (batch, features) in enumerate(drawn):
            x = classifier.standardise(features)
            x = augment(x, frames, settings, classifier.pitched_bands, generator)
            target = F.one_hot(genre[batch], len(info.genres)).float()
            if settings.mixup:
                x, target = mixup(x, target, shares[step])
            if not seen:
                seen.append(x[:EXAMPLES])
            yield x, target

    def loss_of(batch: tuple[Tensor, Tensor]) -> Tensor | None:
        x, target = batch
        if len(x) == 1 and steps > 1:
            return None  # batch norm cannot take the deviation of one
        with descent.precision:
            logits = classifier.network(x)
        return task.loss(logits, target, settings.label_smoothing)

    modules: dict[str, torch.nn.Module] = {"classifier": classifier}
    if averaged:
        modules["averaged"] = averaged
    training = TrainingState(modules, descent.optimizer, descent.schedule, generator, random)
    best, waited, first = task.WORST, 0, 1
    if state is not None:
        before = training.unpack(state)
        best, waited, first = task.Score(*before["best"]), before["waited"], before["epoch"] + 1
    for number in range(first, settings.max_epochs + 1):
        started = time.perf_counter()
        classifier.train()
        if hasattr(hooks, "begin_epoch"):
            hooks.begin_epoch(classifier, config, number)
        if solved:
            loss = hooks.fit(classifier.network, config, epoch_batches())
            done = EpochOfSteps(loss, settings.lr, 0.0)
        else:
            done = descent.epoch(epoch_batches(), loss_of, number)
        trained = time.perf_counter() - started

        metrics, validation = _validate(evaluated, source, chunks, rows["valid"])
        metrics |= {
            "train_loss": done.train_loss,
            "lr": done.lr,
            "epoch_seconds": time.perf_counter() - started,
            "chunks_per_second": len(drawn_rows) / trained,
            "memory_mib": _memory_mib(device),
        }
        if not solved:
            metrics["gradient_norm"] = done.gradient_norm
        if not math.isfinite(metrics["val_loss"] + metrics["train_loss"]):
            raise NonFiniteLossError(f"validation loss is {metrics['val_loss']} in epoch {number}")
        score = task.score(metrics, metric)
        waited = 0 if score > best else waited + 1
        is_best, best = score > best, max(score, best)
        last = solved or number == settings.max_epochs or waited >= settings.patience
        progress = {"epoch": number, "best": best, "waited": waited}
        pack = partial(_pack, training, progress)
        examples = seen[0].float().cpu().numpy() if number == 1 else None
        yield Epoch(number, metrics, is_best, last, evaluated, validation, examples, pack)
        if last:
            return


def _pack(training: TrainingState, progress: Params, notes: Any) -> bytes:
    return training.pack(progress | {"notes": notes})


def set_statistics(classifier: Classifier, statistics: BandStatistics) -> None:
    """Standardise by the mean and deviation of each band from now on."""
    for target, i in ((classifier.mean, 0), (classifier.deviation, 1)):
        parts = [
            classifier.chosen(name, torch.from_numpy(statistics[name][i]))
            for name in classifier.names
        ]
        target.copy_(torch.cat(parts))


def predict_probs(classifier: Classifier, source: Batches, rows: np.ndarray) -> np.ndarray:
    """Probabilities float64 [n, genres] of the chunks `rows`, in float32, batch norm at rest."""
    classifier.eval()
    with torch.inference_mode():
        probs = [classifier.probs(batch) for _, batch in source.in_order(rows)]
        return torch.cat(probs).cpu().numpy()


def best_device() -> torch.device:
    """CUDA where there is a GPU that this process may use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _validate(
    classifier: Classifier, source: Batches, chunks: ChunkTable, rows: np.ndarray
) -> tuple[EpochMetrics, TrackPredictions]:
    probs = predict_probs(classifier, source, rows)
    metrics, by_track, true = task.validation_metrics(probs, chunks.track[rows], chunks.track_genre)
    return metrics, TrackPredictions(by_track, true)


def _memory_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
