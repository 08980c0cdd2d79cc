"""Convolutional network: the published baseline's CNN (79.88 % there, leaky protocol)."""

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
    hidden: int = setting(128, "Units of the fully connected layer.", ge=1, le=16_384)
    dropout: float = setting(
        0.3, "Dropout before the last layer; half of it in the blocks.", ge=0, lt=1
    )


class Model(nn.Module):
    """Convolution blocks, mean over time, two fully connected layers.

    x[B, bands, frames] -> logits[B, genres]. Bands stay in place up to the fully connected layer:
    unlike in a photograph, the vertical position of something matters.
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
