"""The networks of the package musicnn in PyTorch.

Source: J. Pons, X. Serra, "musicnn: pre-trained convolutional neural networks for music audio
tagging", late-breaking demo, ISMIR 2019; the layers are those of its models.py. Each convolution is
followed by ReLU and then by batch normalisation. Both networks take mel spectrograms [B, 96 bands,
187 frames] and give groups of outputs, [B, values] each.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TAGS = 50
_EPSILON = 1e-3  # of TensorFlow's batch normalisation


class _Convolution(nn.Module):
    """Padding in frames and bands, convolution, ReLU, batch normalisation: [B, C, frames, bands].

    `before`, `after`: zeros in time.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: tuple[int, int],
        before: int,
        after: int,
        bands: int = 0,
    ) -> None:
        super().__init__()
        self.padding = (bands, bands, before, after)
        self.conv = nn.Conv2d(*channels, kernel)
        self.norm = nn.BatchNorm2d(channels[1], eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.conv(F.pad(x, self.padding)).relu())
        return normalised


class MusicNN(nn.Module):
    """Filters as high as timbres and as long as rhythms, then three layers over time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, eps=_EPSILON)
        timbre = [_Convolution((1, 204), (7, height), 3, 3) for height in (38, 67)]
        # TensorFlow's padding: of an odd number of zeros the smaller half comes first
        rhythm = [
            _Convolution((1, 51), (length, 1), (length - 1) // 2, length // 2)
            for length in (128, 64, 32)
        ]
        self.front = nn.ModuleList([*timbre, *rhythm])
        self.middle = nn.ModuleList(
            [_Convolution((1, 64), (7, width), 3, 3) for width in (561, 64, 64)]
        )
        self.pooled_norm = nn.BatchNorm1d(2 * 753, eps=_EPSILON)
        self.dense = nn.Linear(2 * 753, 200)
        self.dense_norm = nn.BatchNorm1d(200, eps=_EPSILON)
        self.tags = nn.Linear(200, _TAGS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[B, 96, frames], any number of frames -> groups of outputs."""
        x = self.norm(x.transpose(1, 2)[:, None])
        front = torch.cat([layer(x).amax(3) for layer in self.front], 1)  # [B, 561, frames]
        found, layers = front, [front]
        for number, layer in enumerate(self.middle):
            now = layer(found.transpose(1, 2)[:, None])[..., 0]  # [B, 64, frames]
            found = now + found if number else now
            layers.append(found)
        channels = torch.cat(layers, 1)
        mean, highest = channels.mean(2), channels.amax(2)
        pooled = torch.stack([highest, mean], 2).flatten(1)  # channel by channel
        penultimate = self.dense_norm(self.dense(self.pooled_norm(pooled)).relu())
        tags = self.tags(penultimate).sigmoid()
        return {"mean": mean, "max": highest, "penultimate": penultimate, "tags": tags}

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take the weights of a checkpoint."""
        _load_norm(self.norm, tensors, 0)
        for number, layer in enumerate([*self.front, *self.middle]):
            _load_convolution(layer, tensors, _numbered("conv2d", number), number + 1)
        _load_norm(self.pooled_norm, tensors, 9)
        _load_norm(self.dense_norm, tensors, 10)
        _load_kernel(self.dense, tensors, "dense")
        _load_kernel(self.tags, tensors, "dense_1")


class Vgg(nn.Module):
    """Five layers of 128 filters of 3 x 3, with pooling."""

    _POOLS = (((4, 1), 2), ((2, 2), 2), ((2, 2), 2), ((2, 2), 2), ((4, 4), 4))

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, eps=_EPSILON)
        self.layers = nn.ModuleList(
            [_Convolution((1 if i == 0 else 128, 128), (3, 3), 1, 1, bands=1) for i in range(5)]
        )
        self.tags = nn.Linear(256, _TAGS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[B, 96, 187] -> groups of outputs; `mean` and `max` are of the fourth layer."""
        x = self.norm(x.transpose(1, 2)[:, None])
        for layer, (size, stride) in zip(self.layers, self._POOLS, strict=True):
            fourth, x = x, F.max_pool2d(layer(x), size, stride)
        penultimate = x.permute(0, 2, 3, 1).flatten(1)  # as TensorFlow flattens
        tags = self.tags(penultimate).sigmoid()
        mean, highest = fourth.mean((2, 3)), fourth.amax((2, 3))
        return {"mean": mean, "max": highest, "penultimate": penultimate, "tags": tags}

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take the weights of a checkpoint."""
        _load_norm(self.norm, tensors, 0)
        for number, layer in enumerate(self.layers, 1):
            _load_convolution(layer, tensors, f"{number}CNN", number)
        _load_kernel(self.tags, tensors, "dense")


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _load_convolution(
    layer: nn.Module, tensors: Mapping[str, np.ndarray], name: str, number: int
) -> None:
    assert isinstance(layer, _Convolution)
    _load_kernel(layer.conv, tensors, name)
    _load_norm(layer.norm, tensors, number)


def _load_kernel(
    layer: nn.Conv2d | nn.Linear, tensors: Mapping[str, np.ndarray], name: str
) -> None:
    kernel = tensors[f"{name}/kernel"]
    axes: Sequence[int] = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
    _copy(layer.weight, kernel.transpose(axes))
    assert layer.bias is not None
    _copy(layer.bias, tensors[f"{name}/bias"])


def _load_norm(
    norm: nn.BatchNorm1d | nn.BatchNorm2d, tensors: Mapping[str, np.ndarray], number: int
) -> None:
    name = _numbered("batch_normalization", number)
    targets = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    for target, of in zip(
        targets, ("gamma", "beta", "moving_mean", "moving_variance"), strict=True
    ):
        assert target is not None
        _copy(target, tensors[f"{name}/{of}"])


def _copy(target: Tensor, values: np.ndarray) -> None:
    if tuple(target.shape) != values.shape:
        raise ValueError(f"a tensor has the shape {values.shape} instead of {tuple(target.shape)}")
    with torch.no_grad():
        target.copy_(torch.from_numpy(values.copy()))
