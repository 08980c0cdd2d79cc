"""Families whose weights are solved for: an epoch is a fold of a cross-validation.

With the setting `folds` a configuration is scored on all of train + validation: the tracks of both
parts are split into folds by group, and epoch K predicts fold K by a model of the other folds. The
metrics of epoch K are those of all tracks so far, so ASHA can stop what is bad on the first folds.
The model that is kept is solved for once, from the training part alone, as that of any other family
is trained. Without folds, as in a search that also has families of another kind, there is one
epoch, scored on the validation part.
"""

import math
import time
from collections.abc import Iterator

import numpy as np

from mgc_ray import task
from mgc_ray.data.split.folds import draw_folds
from mgc_ray.results import FOLDS
from mgc_ray.training.descent import NonFiniteLossError
from mgc_ray.training.epoch import Epoch, Training, predict_probs


def solve(training: Training) -> Iterator[Epoch]:
    """The epochs of a family that has `fit`; see `train`."""
    chunks, settings = training.chunks, training.settings
    started = time.perf_counter()
    loss, speed = _fit(training, training.rows["train"])
    own = {name: value.clone() for name, value in training.classifier.state_dict().items()}
    metrics, validation = training.validate(training.classifier)
    fold_of = None
    if settings.folds > 1 and not chunks.info.leaky:
        fold_of = np.asarray(draw_folds(chunks.tracks, settings.folds, chunks.info.seed))
    probs, rows = np.zeros((0, len(chunks.info.genres))), np.zeros(0, np.int64)
    last = 1 if fold_of is None else min(settings.folds, settings.max_epochs)
    for number in range(1, last + 1):
        if fold_of is not None:
            held = np.flatnonzero(fold_of[chunks.track] == number - 1)
            loss, speed = _fit(training, np.flatnonzero(fold_of[chunks.track] != number - 1))
            rows = np.concatenate([rows, held])
            found = predict_probs(training.classifier, training.source, held)
            probs = np.concatenate([probs, found])
            training.classifier.load_state_dict(own)
            metrics = task.validation_metrics(probs, chunks.track[rows], chunks.track_genre)[0]
            metrics[FOLDS] = number
        metrics |= {
            "train_loss": loss,
            "lr": settings.lr,
            "epoch_seconds": time.perf_counter() - started,
            "chunks_per_second": speed,
            "memory_mib": training.memory_mib(),
        }
        if not math.isfinite(metrics["val_loss"] + loss):
            raise NonFiniteLossError(f"validation loss is {metrics['val_loss']} in epoch {number}")
        yield Epoch(
            number,
            metrics,
            best=True,  # each is of more tracks than the one before
            last=number == last,
            classifier=training.classifier,
            validation=validation,
            examples=training.examples if number == 1 else None,
        )
        started = time.perf_counter()


def _fit(training: Training, rows: np.ndarray) -> tuple[float, float]:
    """Solve for the weights; the loss, and chunks per second."""
    started = time.perf_counter()
    training.classifier.train()
    network = training.classifier.network
    batches = ((x, target) for (x, *_), target in training.batches(rows))
    loss: float = training.hooks.fit(network, training.config, batches)
    return loss, len(rows) * training.settings.crops / (time.perf_counter() - started)
