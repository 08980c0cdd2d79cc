"""Convolutions, then LSTM: the published baseline's CNN+LSTM (87.63 % there, leaky protocol)."""

from dataclasses import asdict, dataclass

from torch import nn

from mgc_ray.models._layers import ConvRecurrent


@dataclass(frozen=True)
class Config:
    blocks: int = 4  # convolution blocks, each halves the bands
    channels: int = 16  # of the first block; they double from block to block
    hidden: int = 128  # units of the LSTM, in each direction
    layers: int = 1  # of the LSTM
    bidirectional: bool = True
    dropout: float = 0.3


class Model(ConvRecurrent):
    """x[B, bands, frames] -> logits[B, genres]."""

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__(nn.LSTM, bands, genres, **asdict(config))
