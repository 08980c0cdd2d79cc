"""Convolutions, then LSTM: the published baseline's CNN+LSTM (87.63 % there, leaky protocol)."""

from dataclasses import asdict

from torch import nn

from mgc_ray.models._layers import ConvRecurrent
from mgc_ray.settings import configuration, setting

SECOND_INPUT = ("embedding",)


@configuration
class Config:
    """The network."""

    blocks: int = setting(4, "Convolution blocks; each halves the bands.", ge=1, le=16)
    channels: int = setting(
        16, "Channels of the first block; they double from block to block.", ge=1, le=1024
    )
    hidden: int = setting(128, "Units of the LSTM, in each direction.", ge=1, le=16_384)
    layers: int = setting(1, "Layers of the LSTM.", ge=1, le=16)
    bidirectional: bool = setting(True, "Whether the LSTM also runs backwards in time.")
    dropout: float = setting(
        0.3, "Dropout before the last layer; half of it in the blocks.", ge=0, lt=1
    )


class Model(ConvRecurrent):
    """x[B, bands, frames] -> logits[B, genres]."""

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__(nn.LSTM, bands, genres, **asdict(config))
