"""Families of networks, one file each, found by existing.

A family's file holds `Config`, a frozen dataclass whose defaults train, and
`Model(config, bands, genres)`: `x[B, bands, frames] -> logits[B, genres]` for any number of frames.
Files that start with an underscore hold parts that families share.
"""

import dataclasses
import importlib
import pkgutil
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
    """

    def __init__(self, family: str, config: Any, bands: int, genres: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))
        self.network: nn.Module = family_module(family).Model(config, bands, genres)

    mean: Tensor
    deviation: Tensor

    def standardise(self, x: Tensor) -> Tensor:
        """Float32 [B, bands, frames], mean 0 and deviation 1 in each band of the training part."""
        return (x.float() - self.mean[:, None]) / self.deviation[:, None]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.standardise(x))
        return logits


def config_fields(family: str) -> set[str]:
    """Names of a family's own settings."""
    return {field.name for field in dataclasses.fields(family_module(family).Config)}


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
