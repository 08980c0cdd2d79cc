"""Statistics of timbre and rhythm, then a small fully connected network.

They are computed inside the model, so that augmentation affects them. Compare `discriminant`, which
solves for a linear classifier of the same statistics. Give it long chunks: rhythm takes time.
"""

import torch
from torch import Tensor, nn

from mgc_ray.models._statistics import statistics
from mgc_ray.settings import configuration, setting

# a masked spectrogram has other statistics than music; the rest suits so many inputs
TRAINING = {
    "freq_mask": 0,
    "time_mask": 0.0,
    "mixup": 0.4,
    "label_smoothing": 0.1,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "schedule": "cosine",
}


@configuration
class Config:
    """The network."""

    hidden: int = setting(256, "Units of the fully connected layer.", ge=1, le=16_384)
    dropout: float = setting(
        0.5, "Dropout before the last layer; half of it on the input.", ge=0, lt=1
    )
    noise: float = setting(
        0.5, "Deviation of the noise added to each statistic in training, in its own.", ge=0
    )


class Model(nn.Module):
    """x[B, bands, frames] -> logits[B, genres]."""

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        self.noise = config.noise
        count = statistics(torch.zeros(1, bands, 1)).shape[1]
        self.normalise = nn.BatchNorm1d(count, affine=False)
        self.hidden = nn.Sequential(
            nn.Dropout(config.dropout / 2), nn.Linear(count, config.hidden), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.hidden, genres))

    @staticmethod
    def describe(x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, count]: the statistics."""
        with torch.autocast(x.device.type, enabled=False):
            return statistics(x.float())

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, hidden]."""
        return self._embed(self.describe(x))

    def classify(self, description: Tensor) -> Tensor:
        logits: Tensor = self.head(self._embed(description))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.describe(x))

    def _embed(self, description: Tensor) -> Tensor:
        with torch.autocast(description.device.type, enabled=False):
            values = self.normalise(description)
        if self.training and self.noise:
            values = values + self.noise * torch.randn_like(values)
        embedding: Tensor = self.hidden(values.clamp(-5, 5))
        return embedding
