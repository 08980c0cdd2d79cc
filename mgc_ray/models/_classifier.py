"""A family's network with all that it needs to take a dataset's features as they are."""

import hashlib
import math
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgc_ray import RequestError, task
from mgc_ray.config import TrainConfig
from mgc_ray.data.features import FeatureSet
from mgc_ray.models import configure, family_module
from mgc_ray.settings import Params

T = TypeVar("T")
Batch = dict[str, Tensor]  # chunks [B, bands, frames] by feature


class Shared:
    """What several classifiers compute alike from one batch, computed once."""

    def __init__(self) -> None:
        self._computed: dict[Hashable, Any] = {}

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        if key not in self._computed:
            self._computed[key] = compute()
        result: T = self._computed[key]
        return result


class Classifier(nn.Module):
    """A family's network behind the standardisation of its training data.

    `forward` takes chunks [B, bands, frames] by feature, any real type, and gives logits
    [B, genres]. The features that it reads are stacked along the bands; one with another frame rate
    is first interpolated to the frames of the first. `mean` and `deviation` are those of each band
    in the training part, [bands].

    Where training showed the network only a share of each chunk's frames (`crop` below 1),
    prediction goes over the whole chunk in windows of that length, each overlapping the next one by
    the share `overlap`.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        family: str,
        config: Any,
        reads: FeatureSet,
        genres: int,
        crop: float = 1.0,
        overlap: float = 0.5,
    ) -> None:
        super().__init__()
        self.family, self.crop, self.overlap = family, crop, overlap
        self.reads = reads
        bands = sum(feature.bands for feature in reads.columns.values())
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))
        self.network: nn.Module = family_module(family).Model(config, bands, genres)

    @property
    def names(self) -> list[str]:
        """The features that the network reads."""
        return list(self.reads.columns)

    @property
    def frames(self) -> int:
        """Frames of a chunk as the network would see it whole."""
        return next(iter(self.reads.columns.values())).frames

    @property
    def pitched_bands(self) -> int:
        """How many of the first bands are neighbours in pitch."""
        first = next(iter(self.reads.columns.values()))
        return first.bands if first.pitched else 0

    def standardise(self, batch: Batch) -> Tensor:
        """Float32 [B, bands, frames], mean 0 and deviation 1 in each band in training."""
        parts = [batch[name].float() for name in self.names]
        frames = parts[0].shape[2]
        stacked = [
            part if part.shape[2] == frames else F.interpolate(part, frames, mode="linear")
            for part in parts
        ]
        x = torch.cat(stacked, 1) if len(stacked) > 1 else stacked[0]
        return (x - self.mean[:, None]) / self.deviation[:, None]

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.network(self.standardise(batch))
        return logits

    def length(self, frames: int) -> int:
        """How many of a chunk's frames the network sees at a time."""
        return max(1, round(self.crop * frames))

    def probs(self, batch: Batch, shared: Shared | None = None) -> Tensor:
        """Probabilities float64 [B, genres]: the mean over the windows of each chunk.

        `shared`: by other classifiers for the same batch.
        """
        source = self.standardisation() if shared else ""
        shared = shared or Shared()
        x = shared.once(source, lambda: self.standardise(batch))
        frames = int(x.shape[2])
        length = self.length(frames)
        hop = max(1.0, length * (1 - self.overlap))
        count = 1 + math.ceil((frames - length) / hop - 1e-9)
        starts = np.linspace(0, frames - length, count).round().astype(int).tolist()
        windows = []
        for start in starts:
            window = x[:, :, start : start + length]
            windows.append(
                task.probabilities(self._logits(window, shared, (source, start, length)))
            )
        return torch.stack(windows).mean(0)

    def _logits(self, window: Tensor, shared: Shared, key: Hashable) -> Tensor:
        describe = getattr(type(self.network), "describe", None)
        if describe is None:
            logits: Tensor = self.network(window)
            return logits
        description = shared.once((key, describe), lambda: describe(window))
        return self.network.classify(description)  # type: ignore[operator]

    def standardisation(self) -> str:
        """Equal for classifiers that standardise the same features in the same way."""
        if not hasattr(self, "_standardisation") or self.training:
            values = torch.stack([self.mean, self.deviation]).cpu().numpy().tobytes()
            digest = hashlib.sha256(repr(self.reads).encode() + values)
            self._standardisation = digest.hexdigest()
        return self._standardisation


def new_classifier(family: str, params: Params, features: FeatureSet, genres: int) -> Classifier:
    """The classifier that flat parameters describe, for a dataset's features; random weights.

    Raises RequestError where the family cannot read the features.
    """
    config, settings = configure(family, params)
    reads = features_read(family, settings, features)
    return Classifier(family, config, reads, genres, settings.crop, settings.overlap)


def features_read(family: str, settings: TrainConfig, features: FeatureSet) -> FeatureSet:
    """Those of a dataset's features that the settings name; RequestError for one it lacks."""
    kinds = getattr(family_module(family), "READS", ("spectrogram",))
    readable = [name for name, feature in features.columns.items() if feature.kind in kinds]
    if not readable:
        raise RequestError(
            f"family {family!r} reads features of the kind {' or '.join(kinds)}, but the dataset "
            f"has {features}: choose another family, or make a dataset with such features"
        )
    if settings.features == "all":
        return features.only(readable)
    names = settings.features.split("+")
    if any(name not in readable for name in names) or len(set(names)) < len(names):
        raise RequestError(
            f"features must be some of the dataset's, each once, or all: it has "
            f"{', '.join(readable)} for family {family!r}, but features is {settings.features!r}"
        )
    return features.only([name for name in readable if name in names])


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
