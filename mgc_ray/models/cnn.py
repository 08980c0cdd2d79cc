"""Convolutional network: the published baseline's CNN (79.88 % there, leaky protocol)."""

from dataclasses import dataclass

from torch import Tensor, nn

from mgc_ray.models._layers import ConvBlocks, as_images


@dataclass(frozen=True)
class Config:
    blocks: int = 4  # convolution blocks, each halves the bands
    channels: int = 16  # of the first block; they double from block to block
    hidden: int = 128  # units of the fully connected layer
    dropout: float = 0.3


class Model(nn.Module):
    """Convolution blocks, mean over time, two fully connected layers.

    x[B, bands, frames] -> logits[B, genres]. Bands stay in place up to the fully connected layer:
    unlike in a photograph, it matters at which height something stands.
    """

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        self.convolutions = ConvBlocks(
            bands, config.blocks, config.channels, config.dropout / 2, time_pools=config.blocks
        )
        self.head = nn.Sequential(
            nn.Linear(self.convolutions.features, config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, genres),
        )

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, channels x bands of the last block]."""
        return self.convolutions(as_images(x)).mean(3).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits
