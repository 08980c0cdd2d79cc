"""Parts that several families share."""

import torch
from torch import Tensor, nn


class ConvBlocks(nn.Sequential):
    """Blocks of 3 x 3 convolution, max-pooling, batch norm, ReLU and dropout.

    x[B, 1, bands, frames] -> [B, out_channels, out_bands, frames / 2**time_pools]. Each halves
    the bands, the first `time_pools` blocks the frames too (rounded up, so one frame stays one).
    Channels double from block to block, up to eight times the first's. Pooling comes before batch
    norm and ReLU, which then process a quarter of the values: 1.4 times the speed of the other
    order on a CPU, where they, and not the convolutions, take the time.
    """

    def __init__(
        self, bands: int, blocks: int, channels: int, dropout: float, time_pools: int
    ) -> None:
        super().__init__()
        inputs = 1
        for block in range(blocks):
            outputs = channels * min(2**block, 8)
            pool = (2, 2) if block < time_pools else (2, 1)
            self.append(
                nn.Sequential(
                    nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                    nn.MaxPool2d(pool, ceil_mode=True),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                    # whole maps: neighbouring pixels are too similar for single ones to matter
                    nn.Dropout2d(dropout),
                )
            )
            inputs = outputs
            bands = -(-bands // 2)
        self.features = inputs * bands  # values per frame: channels times bands


class ConvRecurrent(nn.Module):
    """Convolutions, then a recurrent layer over time, its outputs averaged, fully connected layers.

    `recurrent` is `nn.GRU` or `nn.LSTM`. x[B, bands, frames] -> logits[B, genres].
    """

    def __init__(
        self,
        recurrent: type[nn.GRU] | type[nn.LSTM],
        bands: int,
        genres: int,
        *,
        blocks: int,
        channels: int,
        hidden: int,
        layers: int,
        bidirectional: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        # Two halvings give the recurrent layer steps of 46 ms (hop 256): fine enough for rhythm.
        self.convolutions = ConvBlocks(bands, blocks, channels, dropout / 2, time_pools=2)
        self.recurrent = recurrent(
            self.convolutions.features,
            hidden,
            layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(hidden * (2 if bidirectional else 1), genres)
        )

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, hidden], twice that where bidirectional."""
        maps = self.convolutions(as_images(x))
        outputs, _ = self.recurrent(maps.flatten(1, 2).transpose(1, 2))
        return outputs.mean(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits


class LateFusion(nn.Module):
    """A family's network with embeddings as a second input, which join it before the last layer.

    x[B, bands, frames], values[B, values], standardised -> logits[B, genres]. The last layer takes
    what the network's own would take, beside a projection of the values, [B, width].
    """

    def __init__(
        self, network: nn.Module, values: int, genres: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        head = network.head
        *before, last = head if isinstance(head, nn.Sequential) else [head]
        assert isinstance(last, nn.Linear)
        network.head = nn.Sequential(*before)
        self.backbone = network
        self.project = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(values, width), nn.LayerNorm(width)
        )
        self.head = nn.Linear(last.in_features + width, genres)

    def embed(self, x: Tensor, values: Tensor) -> Tensor:
        """What the last layer takes."""
        return torch.cat([self.backbone(x), self.project(values)], 1)

    def forward(self, x: Tensor, values: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x, values))
        return logits


def as_images(x: Tensor) -> Tensor:
    """[B, bands, frames] -> [B, 1, bands, frames] in the memory order that convolutions prefer.

    With one channel both orders are the same memory, and only the strides differ. Those of the
    other order would pass from layer to layer, and max-pooling would take 8 times as long.
    """
    return x.contiguous().unsqueeze(-1).permute(0, 3, 1, 2)  # the strides of channels-last
