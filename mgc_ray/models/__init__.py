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
import pkgutil
from typing import TYPE_CHECKING, Any, Protocol

from mgc_ray import RequestError

if TYPE_CHECKING:  # to know which families there are takes no PyTorch, which takes seconds to load
    from torch import nn


class Family(Protocol):
    """What a family's module looks like."""

    Config: type
    Model: "type[nn.Module]"


def families() -> list[str]:
    """The names of all families, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def check_family(name: str) -> None:
    """RequestError with the names that there are, where this is none of them."""
    if name not in families():
        raise RequestError(f"--family must be one of {', '.join(families())}, not {name!r}")


def family_module(name: str) -> Any:
    """The module of one family, or RequestError with the names that there are."""
    check_family(name)
    return importlib.import_module(f"{__name__}.{name}")


def config_fields(family: str) -> set[str]:
    """Names of a family's own settings."""
    return {field.name for field in dataclasses.fields(family_module(family).Config)}
