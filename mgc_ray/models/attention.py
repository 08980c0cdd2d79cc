"""Convolutional stem, then a transformer over time with rotary positions, attention pooling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgc_ray.models._layers import ConvBlocks, as_images
from mgc_ray.settings import configuration, setting

SECOND_INPUT = ("embedding",)


@configuration
class Config:
    """The network."""

    blocks: int = setting(4, "Convolution blocks; each halves the bands.", ge=1, le=16)
    channels: int = setting(
        16, "Channels of the first block; they double from block to block.", ge=1, le=1024
    )
    width: int = setting(96, "Values per step of the transformer.", ge=2, le=8192)
    heads: int = setting(
        4, "Attention heads; `width` must be 2 x `heads` or a multiple.", ge=1, le=256
    )
    depth: int = setting(2, "Transformer blocks.", ge=1, le=64)
    dropout: float = setting(
        0.3, "Dropout in the transformer and before the last layer.", ge=0, lt=1
    )
    stochastic_depth: float = setting(
        0.1, "Chance that the last block is skipped in training; less for earlier ones.", ge=0, lt=1
    )


class Model(nn.Module):
    """x[B, bands, frames] -> logits[B, genres]."""

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        # Two halvings in time, as in the recurrent families: steps of 46 ms (hop 256).
        self.convolutions = ConvBlocks(
            bands, config.blocks, config.channels, config.dropout / 2, time_pools=2
        )
        self.project = nn.Linear(self.convolutions.features, config.width)
        self.transformer = nn.ModuleList(
            Block(
                config.width,
                config.heads,
                config.dropout,
                config.stochastic_depth * (block + 1) / config.depth,
            )
            for block in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)
        self.weigh = nn.Linear(config.width, 1)
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.width, genres))

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, width]: the mean over time, weighted by attention."""
        steps: Tensor = self.project(self.convolutions(as_images(x)).flatten(1, 2).transpose(1, 2))
        for block in self.transformer:
            steps = block(steps)
        steps = self.norm(steps)
        weight = self.weigh(steps).float().softmax(1).to(steps.dtype)
        return (weight * steps).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits


class Block(nn.Module):
    """Attention over all steps, then a layer on each: steps[B, T, width] -> the same.

    Normalised before each part, as it trains without a long warm-up then. In training a sample
    skips each of both with the chance `skip` (stochastic depth, Huang et al., ECCV 2016).
    """

    def __init__(self, width: int, heads: int, dropout: float, skip: float) -> None:
        super().__init__()
        self.heads, self.dropout, self.skip = heads, dropout, skip
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.steps = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(self, steps: Tensor) -> Tensor:
        steps = steps + self._kept(self._attend(self.norms[0](steps)))
        return steps + self._kept(self.steps(self.norms[1](steps)))

    def _attend(self, steps: Tensor) -> Tensor:
        batch, time, width = steps.shape
        query, key, value = (
            self.project_in(steps)
            .view(batch, time, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(
            rotate(query), rotate(key), value, dropout_p=self.dropout if self.training else 0.0
        )
        out: Tensor = self.project_out(mixed.transpose(1, 2).reshape(batch, time, width))
        return out

    def _kept(self, change: Tensor) -> Tensor:
        """The change of each sample, 0 for those that skip it, scaled so that its mean stays."""
        if not self.training or not self.skip:
            return change
        kept = torch.rand(len(change), 1, 1, device=change.device) >= self.skip
        return change * kept / (1 - self.skip)


def rotate(x: Tensor) -> Tensor:
    """Turn each pair of values by an angle that grows with the step: [..., T, width] -> the same.

    The product of two steps then depends on how far they are apart and not on where they are, so
    any number of frames will do. Source: J. Su et al., "RoFormer", 2021.
    """
    time, width = x.shape[-2:]
    rate = 10_000 ** (-torch.arange(0, width, 2, device=x.device) / width)
    angle = torch.arange(time, device=x.device)[:, None] * rate
    first, second = x[..., : width // 2], x[..., width // 2 :]
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
