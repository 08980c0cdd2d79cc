"""A family's network with all that it needs to take spectrograms as they are."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mgc_ray.models import family_module


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
        frames = int(x.shape[2])
        length = self.length(frames)
        hop = max(1.0, length * (1 - self.overlap))
        count = 1 + math.ceil((frames - length) / hop - 1e-9)
        starts = np.linspace(0, frames - length, count).round().astype(int).tolist()
        return torch.stack(
            [self(x[:, :, start : start + length]).softmax(1).double() for start in starts]
        ).mean(0)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
