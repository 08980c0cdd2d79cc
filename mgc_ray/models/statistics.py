"""Statistics of timbre and rhythm, then a small fully connected network.

They are computed inside of the model so that augmentation reaches them. Compare `discriminant`,
which solves for a linear classifier of the same statistics. Give it long chunks: rhythm takes time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgc_ray.models._statistics import statistics

# a masked spectrogram has other statistics than music; the rest is what so many inputs need
TRAINING = {
    "freq_mask": 0,
    "time_mask": 0.0,
    "mixup": 0.4,
    "label_smoothing": 0.1,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "schedule": "cosine",
}


@dataclass(frozen=True)
class Config:
    hidden: int = 256  # units of the fully connected layer
    dropout: float = 0.5
    noise: float = 0.5  # deviation of what is added to each statistic in training, in its own


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

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, hidden]."""
        with torch.autocast(x.device.type, enabled=False):
            values = self.normalise(statistics(x.float()))
        if self.training and self.noise:
            values = values + self.noise * torch.randn_like(values)
        embedding: Tensor = self.hidden(values.clamp(-5, 5))
        return embedding

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits
