"""A small fully connected network on embeddings; compare `linear`, which is solved for."""

import torch
from torch import Tensor, nn

from mgc_ray.settings import configuration, setting

READS = ("embedding",)
# masks are made for spectrograms; the rest suits so many inputs
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
        0.3, "Deviation of the noise added to each input in training, in its own.", ge=0
    )


class Model(nn.Module):
    """x[B, bands, patches], each band standardised -> logits[B, genres]."""

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        self.noise = config.noise
        self.hidden = nn.Sequential(
            nn.Dropout(config.dropout / 2), nn.Linear(bands, config.hidden), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.hidden, genres))

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, patches] -> [B, hidden]."""
        values = x.mean(2)
        if self.training and self.noise:
            values = values + self.noise * torch.randn_like(values)
        embedding: Tensor = self.hidden(values.clamp(-5, 5))
        return embedding

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits
