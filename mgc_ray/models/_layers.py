"""Parts that several families share."""

import re
from typing import Any

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


class Recurrent(nn.Module):
    """Recurrent layers with dropout between them, on a GPU in float32 whatever the rest is in.

    x[B, frames, inputs] -> [B, frames, hidden], twice that where bidirectional. On a GPU autocast
    would run them in float16, whatever was asked for, and without loss scaling small gradients
    vanish. One module per layer, as the dropout inside of cuDNN has random numbers of its own,
    which cannot be saved; weights are saved under the names of one module that has all layers.
    """

    def __init__(
        self,
        kind: type[nn.GRU] | type[nn.LSTM],
        inputs: int,
        hidden: int,
        layers: int,
        bidirectional: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        width = hidden * (2 if bidirectional else 1)
        self.layers = nn.ModuleList(
            kind(width if layer else inputs, hidden, batch_first=True, bidirectional=bidirectional)
            for layer in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.register_state_dict_post_hook(_name_as_one_module)
        self.register_load_state_dict_pre_hook(_name_by_layer)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cuda":
            return self._recur(x)
        with torch.autocast("cuda", enabled=False):
            return self._recur(x.float())

    def _recur(self, x: Tensor) -> Tensor:
        x, _ = self.layers[0](x)
        for layer in self.layers[1:]:
            x, _ = layer(self.dropout(x))
        return x


def _name_as_one_module(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """layers.1.weight_ih_l0_reverse -> weight_ih_l1_reverse."""
    for name in [name for name in state if name.startswith(f"{prefix}layers.")]:
        layer, own = name.removeprefix(f"{prefix}layers.").split(".")
        state[prefix + own.replace("_l0", f"_l{layer}")] = state.pop(name)


def _name_by_layer(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """weight_ih_l1_reverse -> layers.1.weight_ih_l0_reverse."""
    for name in [name for name in state if name.startswith(prefix)]:
        if match := re.fullmatch(r"(\w+_l)(\d+)(_reverse)?", name.removeprefix(prefix)):
            kind, layer, reverse = match.groups("")
            state[f"{prefix}layers.{layer}.{kind}0{reverse}"] = state.pop(name)


class ConvRecurrent(nn.Module):
    """Convolutions, then recurrent layers over time, their outputs averaged, a last linear layer.

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
        self.recurrent = Recurrent(
            recurrent, self.convolutions.features, hidden, layers, bidirectional, dropout
        )
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(hidden * (2 if bidirectional else 1), genres)
        )

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, hidden], twice that where bidirectional."""
        maps = self.convolutions(as_images(x))
        outputs: Tensor = self.recurrent(maps.flatten(1, 2).transpose(1, 2))
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
