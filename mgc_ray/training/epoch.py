"""What every way of training needs: the network before it, its batches, and what an epoch gives."""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mgc_ray import RequestError, task
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.device import frozen
from mgc_ray.models import configure, family_module
from mgc_ray.models._classifier import Batch, Classifier, new_classifier
from mgc_ray.results import EpochMetrics
from mgc_ray.settings import Params
from mgc_ray.training.augment import augment, mixup, mixup_shares
from mgc_ray.training.batches import Batches, batches

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

BandStatistics = dict[str, tuple[np.ndarray, np.ndarray]]  # mean and deviation by feature

EXAMPLES = 4  # spectrograms that are kept to be looked at
# On a GPU so many batches are prepared at once, as a step is bound by the number of launches.
# On a CPU one, which stays in its cache.
_MOST_AT_ONCE, _VALUES_AT_ONCE = 16, 2**25


@dataclass(frozen=True)
class TrackPredictions:
    """Of tracks: probs float64 [tracks, genres], true [tracks]."""

    probs: np.ndarray
    true: np.ndarray


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave.

    `metrics`: train_loss, lr, epoch_seconds, chunks_per_second, memory_mib (the highest so far: on
    a GPU of this training there, else of the process), gradient_norm (mean of some of the steps,
    where there are any) and what `task.validation_metrics` gives. `best`: no earlier epoch had a
    better score. `last`: training ends here by itself. `classifier` is the live model (or its
    moving average): copy what you keep. `validation`: predictions for the validation tracks.
    `examples`: float32 [n, bands, frames], some of the augmented spectrograms that the network saw,
    after the first epoch. `state(notes)`: all that `train` needs to continue from here, with plain
    JSON values of the caller's; call it before the next epoch.
    """

    number: int
    metrics: EpochMetrics
    best: bool
    last: bool
    classifier: Classifier
    validation: TrackPredictions | None = None
    examples: np.ndarray | None = None
    state: Callable[[Any], bytes] | None = None


class Training:
    """A configuration before its first epoch: random weights, standardised for these chunks.

    `rows`: those of the parts train and valid. Raises RequestError for parameters that do not exist
    and for chunks without both parts.
    """

    def __init__(
        self,
        family: str,
        params: Params,
        chunks: ChunkTable,
        device: str | torch.device,
        statistics: BandStatistics | None,
    ) -> None:
        self.config, self.settings = configure(family, params)
        self.hooks = family_module(family)
        self.chunks, self.device = chunks, torch.device(device)
        self.rows = {split: chunks.rows(split) for split in ("train", "valid")}
        for split, indices in self.rows.items():
            if not len(indices):
                raise RequestError(f"training needs {split} chunks, but the dataset has none")
        self.random = np.random.default_rng(self.settings.seed)
        torch.manual_seed(self.settings.seed)
        self.generator = torch.Generator(self.device).manual_seed(self.settings.seed)
        info = chunks.info
        classifier = new_classifier(family, params, info.features, len(info.genres))
        set_statistics(classifier, statistics or chunks.band_statistics)
        if hasattr(self.hooks, "initialise"):
            self.hooks.initialise(classifier, self.config)
        self.classifier = classifier.to(self.device)
        self.source = batches(chunks, classifier.names, self.device)
        self._genre = torch.from_numpy(chunks.genre).to(self.device)
        self._frames = classifier.length(classifier.frames)
        self._seen: list[Tensor] = []  # the first batch's first spectrograms
        self._at_once = 1
        if self.device.type == "cuda":
            values = self.settings.batch_size * len(classifier.mean) * classifier.frames
            self._at_once = max(1, min(_MOST_AT_ONCE, _VALUES_AT_ONCE // values))

    def steps(self, rows: np.ndarray) -> int:
        """Batches in an epoch over these chunks."""
        return math.ceil(len(rows) * self.settings.crops / self.settings.batch_size)

    def batches(self, rows: np.ndarray) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """What the network sees in one epoch over these chunks: its inputs, target [B, genres]."""
        settings, size = self.settings, self.settings.batch_size
        shares = mixup_shares(settings.mixup, self.steps(rows), self.random).to(self.device)
        drawn = self.source.shuffled(
            np.repeat(rows, settings.crops), size * self._at_once, self.generator
        )
        step = 0
        for some in drawn:
            waiting = [list(part.split(size)) for part in self._prepared(*some)]
            while waiting[0]:
                # taken out, so that the memory of the last ones is free again during their step
                x, target, *second = [batches.pop(0) for batches in waiting]
                if settings.mixup:
                    x, target, *second = mixup([x, target, *second], shares[step])
                step += 1
                if not self._seen:
                    self._seen.append(x[:EXAMPLES])
                yield (x, *second), target

    def _prepared(self, rows: Tensor, features: Batch) -> list[Tensor]:
        """One or several batches before mixup: augmented inputs, targets, the second input."""
        x, *second = self.classifier.inputs(features)
        x = augment(x, self._frames, self.settings, self.classifier.pitched_bands, self.generator)
        target = F.one_hot(self._genre[rows], len(self.chunks.info.genres)).float()
        return [x, target, *second]

    @property
    def examples(self) -> np.ndarray:
        """Some of what the network has seen, float32 [n, bands, frames]."""
        return self._seen[0].float().cpu().numpy()

    def validate(self, classifier: Classifier) -> tuple[EpochMetrics, TrackPredictions]:
        """The metrics of the validation part, and the predictions for its tracks."""
        rows, chunks = self.rows["valid"], self.chunks
        probs = predict_probs(classifier, self.source, rows)
        metrics, by_track, true = task.validation_metrics(
            probs, chunks.track[rows], chunks.track_genre
        )
        return metrics, TrackPredictions(by_track, true)

    def memory_mib(self) -> float:
        """The most memory so far, of the GPU where there is one; 0 where it is not known."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        if resource is None:
            return 0.0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


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
    with frozen():
        probs = [classifier.probs(batch) for _, batch in source.in_order(rows)]
        return torch.cat(probs).cpu().numpy()
