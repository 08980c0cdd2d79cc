"""A family's network with all that it needs to take a dataset's features as they are."""

import hashlib
import math
import re
import types
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgc_ray import RequestError, task
from mgc_ray.config import TrainConfig
from mgc_ray.data.features import FeatureSet
from mgc_ray.models import configure, family_module, kinds_read, second_kinds
from mgc_ray.models._layers import LateFusion
from mgc_ray.settings import Params

T = TypeVar("T")
Batch = dict[str, Tensor]  # chunks [B, bands, frames] by feature

# log_mel+musicnn[mean,tags]: names of features, of embeddings with some of their groups
_PLUS = re.compile(r"\+(?![^\[]*\])")
_NAME_AND_GROUPS = re.compile(r"(?P<column>[^\[\]]+)(\[(?P<groups>[^\[\]]+)\])?")
_DEFAULTS = TrainConfig()
_FURTHEST = 5.0  # deviations of a value of the second input


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
    [B, genres]. The features that it reads are stacked along the bands, of an embedding only the
    `groups` that are given for it; one with another frame rate is first interpolated to the frames
    of the first. Features that are the family's second input come last, as their means over the
    frames. `mean` and `deviation` are those of each band in the training part, [bands].

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
        settings: TrainConfig = _DEFAULTS,
        groups: Mapping[str, Sequence[str]] = types.MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.family, self.crop, self.overlap = family, settings.crop, settings.overlap
        self.reads = reads
        self._chosen = {
            name: _bands_of(reads.columns[name], given) for name, given in groups.items()
        }
        for number, chosen in enumerate(self._chosen.values()):  # on the device, as batches are
            self.register_buffer(f"_chosen_{number}", torch.tensor(chosen), persistent=False)
        self._second = [
            name for name, feature in reads.columns.items() if feature.kind in second_kinds(family)
        ]
        self._first = [name for name in reads.columns if name not in self._second]
        bands, values = (
            sum(len(self._chosen.get(name, range(reads.columns[name].bands))) for name in names)
            for names in (self._first, self._second)
        )
        self.register_buffer("mean", torch.zeros(bands + values))
        self.register_buffer("deviation", torch.ones(bands + values))
        self.network: nn.Module = family_module(family).Model(config, bands, genres)
        if values:
            self.network = LateFusion(
                self.network, values, genres, settings.embedding_width, settings.embedding_dropout
            )

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

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the network takes: what `standardise` gives, and its second input where it has one.

        That is float32 [B, values], mean 0 and deviation 1 in training, without outliers.
        """
        x = self.standardise(batch)
        if not self._second:
            return (x,)
        parts = [self.chosen(name, batch[name]).float().mean(2) for name in self._second]
        values = torch.cat(parts, 1)
        first = len(self.mean) - values.shape[1]
        values = (values - self.mean[first:]) / self.deviation[first:]
        return x, values.clamp(-_FURTHEST, _FURTHEST)

    def standardise(self, batch: Batch) -> Tensor:
        """Float32 [B, bands, frames], mean 0 and deviation 1 in each band in training."""
        parts = [self.chosen(name, batch[name]).float() for name in self._first]
        frames = parts[0].shape[2]
        stacked = [
            part if part.shape[2] == frames else F.interpolate(part, frames, mode="linear")
            for part in parts
        ]
        x = torch.cat(stacked, 1) if len(stacked) > 1 else stacked[0]
        bands = x.shape[1]
        return (x - self.mean[:bands, None]) / self.deviation[:bands, None]

    def chosen(self, name: str, values: Tensor) -> Tensor:
        """Those of a feature's bands that the network reads: [bands] or [B, bands, frames]."""
        if name not in self._chosen:
            return values
        bands: Tensor = getattr(self, f"_chosen_{list(self._chosen).index(name)}")
        return values.index_select(0 if values.ndim == 1 else 1, bands)

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.network(*self.inputs(batch))
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
        x, *second = shared.once(source, lambda: self.inputs(batch))
        frames = int(x.shape[2])
        length = self.length(frames)
        hop = max(1.0, length * (1 - self.overlap))
        count = 1 + math.ceil((frames - length) / hop - 1e-9)
        starts = np.linspace(0, frames - length, count).round().astype(int).tolist()
        windows = []
        for start in starts:
            window = x[:, :, start : start + length]
            windows.append(
                task.probabilities(self._logits(window, second, shared, (source, start, length)))
            )
        return torch.stack(windows).mean(0)

    def _logits(
        self, window: Tensor, second: Sequence[Tensor], shared: Shared, key: Hashable
    ) -> Tensor:
        describe = getattr(type(self.network), "describe", None)
        if describe is None:
            logits: Tensor = self.network(window, *second)
            return logits
        description = shared.once((key, describe), lambda: describe(window))
        return self.network.classify(description)  # type: ignore[operator]

    def standardisation(self) -> str:
        """Equal for classifiers that standardise the same features in the same way."""
        if not hasattr(self, "_standardisation") or self.training:
            values = torch.stack([self.mean, self.deviation]).cpu().numpy().tobytes()
            digest = hashlib.sha256(repr((self.reads, self._chosen)).encode() + values)
            self._standardisation = digest.hexdigest()
        return self._standardisation


def new_classifier(family: str, params: Params, features: FeatureSet, genres: int) -> Classifier:
    """The classifier that flat parameters describe, for a dataset's features; random weights.

    Raises RequestError where the family cannot read the features.
    """
    config, settings = configure(family, params)
    reads, groups = features_read(family, settings, features)
    return Classifier(family, config, reads, genres, settings, groups)


def first_input(family: str, features: FeatureSet) -> FeatureSet:
    """Those of a dataset's features that a family needs; RequestError where it has none."""
    kinds = kinds_read(family)
    names = [name for name, feature in features.columns.items() if feature.kind in kinds]
    if not names:
        raise RequestError(
            f"family {family!r} reads features of the kind {' or '.join(kinds)}, but the dataset "
            f"has {features}: choose another family, or make a dataset with such features"
        )
    return features.only(names)


def readable(family: str, features: FeatureSet) -> FeatureSet:
    """All that a family can read, those of its second input last; RequestError as above."""
    first, kinds = first_input(family, features), second_kinds(family)
    second = [name for name, feature in features.columns.items() if feature.kind in kinds]
    return features.only([*first.columns, *second])


def features_read(
    family: str, settings: TrainConfig, features: FeatureSet
) -> tuple[FeatureSet, dict[str, tuple[str, ...]]]:
    """Those of a dataset's features that the settings name, and the groups of embeddings.

    RequestError for what the dataset lacks.
    """
    known, first = readable(family, features), first_input(family, features)
    if settings.features == "all":
        return known, {}
    wanted = [_NAME_AND_GROUPS.fullmatch(part) for part in _PLUS.split(settings.features)]
    names = [match["column"] for match in wanted if match]
    if not all(wanted) or set(names) - set(known.columns) or len(set(names)) < len(names):
        raise RequestError(
            f"features must be some of the dataset's, each once, or all: it has "
            f"{', '.join(known.columns)} for family {family!r}, but features is "
            f"{settings.features!r}"
        )
    if not set(names) & set(first.columns):
        raise RequestError(
            f"features must have one of {', '.join(first.columns)}, as family {family!r} takes "
            f"the others only beside it, but it is {settings.features!r}"
        )
    groups = {m["column"]: tuple(m["groups"].split(",")) for m in wanted if m and m["groups"]}
    for name, given in groups.items():
        there = list(getattr(known.columns[name], "groups", {}))
        if set(given) - set(there) or len(set(given)) < len(given):
            raise RequestError(
                f"features must name groups of {name}, each once ({', '.join(there) or 'none'}), "
                f"but it is {settings.features!r}"
            )
    return known.only([name for name in known.columns if name in names]), groups


def _bands_of(feature: Any, groups: Sequence[str]) -> list[int]:
    """The bands of some groups of an embedding's outputs, in order."""
    ends = np.cumsum([*feature.groups.values()])
    places = zip(feature.groups, ends - [*feature.groups.values()], ends, strict=True)
    return [band for name, start, end in places if name in groups for band in range(start, end)]


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
