"""Families of networks, one file each, found by existing.

A family's file holds `Config`, a frozen dataclass whose defaults train, and
`Model(config, bands, genres)`: `x[B, bands, frames] -> logits[B, genres]` for any number of frames.
A model is `head(embed(x))`: `embed` gives [B, width], and the last part of `head` is the linear
layer that knows the genres; what comes before can be trained without genres and taken over.
Where the shared settings of training (`TrainConfig`) should have other defaults for a family, its
file has them as `TRAINING`, a dict. A family that starts from weights, or is trained differently,
may also have

- `initialise(classifier, config)`: called once, before training;
- `lr_shares(classifier, config)`: [(parameters, share of the learning rate)], all of them once;
- `begin_epoch(classifier, config, number)`: called before each epoch, from 1;
- `fit(network, config, batches) -> loss`: in place of training by steps, called once; `batches` are
  those of one epoch, (x, target [B, genres]) on the device, standardised and augmented.

Files that start with an underscore hold parts that families share.
"""

import dataclasses
import importlib
import math
import pkgutil
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mgc_ray import RequestError


class Family(Protocol):
    """What a family's module looks like."""

    Config: type
    Model: type[nn.Module]


def families() -> list[str]:
    """The names of all families, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def family_module(name: str) -> Any:
    """The module of one family, or RequestError with the names that there are."""
    if name not in families():
        raise RequestError(f"--family must be one of {', '.join(families())}, not {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


class Classifier(nn.Module):
    """A family's network behind the standardisation of its training data.

    `forward` takes raw spectrograms x[B, bands, frames], any real type, and gives logits
    [B, genres]. mean and deviation are those of each band of the training part, [bands].

    `seen`: the groups of bands that the network gets; None gives it all of them.

    Where training showed the network but a share of each chunk's frames (`crop` below 1),
    prediction goes over the whole chunk in windows of that length, each of which overlaps the next
    one by the share `overlap`.
    """

    def __init__(
        self,
        family: str,
        config: Any,
        bands: int,
        genres: int,
        crop: float = 1.0,
        overlap: float = 0.5,
        seen: Sequence[slice] | None = None,
    ) -> None:
        super().__init__()
        kept = torch.arange(bands)
        if seen is not None:
            kept = torch.cat([kept[part] for part in seen])
        self.register_buffer("kept", kept, persistent=False)
        self.family, self.crop, self.overlap = family, crop, overlap
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))
        self.network: nn.Module = family_module(family).Model(config, len(kept), genres)

    mean: Tensor
    deviation: Tensor
    kept: Tensor

    def standardise(self, x: Tensor) -> Tensor:
        """Float32 [B, kept bands, frames], mean 0 and deviation 1 in each band in training."""
        if len(self.kept) < x.shape[1]:
            x = x[:, self.kept]
        mean, deviation = self.mean[self.kept], self.deviation[self.kept]
        return (x.float() - mean[:, None]) / deviation[:, None]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.standardise(x))
        return logits

    def length(self, frames: int) -> int:
        """How many of a chunk's frames the network sees at a time."""
        return max(1, round(self.crop * frames))

    def probs(self, x: Tensor) -> Tensor:
        """Probabilities float64 [B, genres]: the mean over the windows of each chunk."""
        frames = x.shape[2]
        length = self.length(frames)
        hop = max(1.0, length * (1 - self.overlap))
        count = 1 + math.ceil((frames - length) / hop - 1e-9)
        starts = torch.linspace(0, frames - length, count).round().long().tolist()
        return torch.stack(
            [self(x[:, :, start : start + length]).softmax(1).double() for start in starts]
        ).mean(0)


def config_fields(family: str) -> set[str]:
    """Names of a family's own settings."""
    return {field.name for field in dataclasses.fields(family_module(family).Config)}


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
