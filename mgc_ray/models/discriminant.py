"""Linear discriminant analysis of statistics of timbre and rhythm: solved, not trained.

Each statistic is transformed so that it is normally distributed. Each genre is then modelled as a
normal distribution of all of them, with one covariance, which is shrunk towards its diagonal, as
there are more statistics than a few hundred tracks determine. One pass over the training part gives
the means and the covariance and with them the weights, in seconds; for figures see
results/README.md. Give it long chunks: rhythm takes time.
"""

from collections.abc import Iterator
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgc_ray.models._solving import ClassSums, normal_quantiles, to_normal
from mgc_ray.models._statistics import statistics
from mgc_ray.settings import configuration, setting

DEFAULT_FOR = {
    "spectrogram": "the most accurate on spectrograms of some hundred tracks, in seconds per trial"
}
# masked and blended spectrograms have other statistics than music
TRAINING = {"freq_mask": 0, "time_mask": 0.0, "mixup": 0.0}

_SAMPLE = 4096  # chunks that quantiles and the training loss are of
_KNOTS = 32  # quantiles of each statistic that are stored


@configuration
class Config:
    """The classifier."""

    shrinkage: float = setting(
        0.4, "Share of the covariance's diagonal, which needs no other statistics.", ge=0, le=1
    )
    temperature: float = setting(
        3.0, "Logits are divided by it: solved ones are overconfident.", gt=0
    )


class Model(nn.Module):
    """x[B, bands, frames] -> logits[B, genres]."""

    quantiles: Tensor

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        count = statistics(torch.zeros(1, bands, 1)).shape[1]
        self.register_buffer("quantiles", normal_quantiles(_KNOTS).repeat(count, 1))
        self.head = nn.Linear(count, genres)

    @staticmethod
    def describe(x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, count]: the statistics."""
        with torch.autocast(x.device.type, enabled=False):
            return statistics(x.float())

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, count]: the statistics, each normally distributed."""
        return to_normal(self.describe(x), self.quantiles)

    def classify(self, description: Tensor) -> Tensor:
        logits: Tensor = self.head(to_normal(description, self.quantiles))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.describe(x))


def fit(network: Model, config: Config, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """Solve for the weights; the loss on (the first of) the chunks that were used.

    `batches`: x[B, bands, frames] and target[B, genres], shares of genres that sum to 1.
    """
    described = ((statistics(x.float()), target) for x, target in batches)
    sample: list[tuple[Tensor, Tensor]] = []
    for values, target in described:
        sample.append((values, target))
        if sum(len(part) for part, _ in sample) >= _SAMPLE:
            break
    first, first_target = (torch.cat(parts) for parts in zip(*sample, strict=True))
    count = network.quantiles.shape[1]
    shares = (torch.arange(count, device=first.device) + 0.5) / count
    network.quantiles.copy_(torch.quantile(first, shares, dim=0).T)
    sums = ClassSums(first.shape[1], first_target.shape[1], first.device)
    for values, target in chain(sample, described):
        sums.add(to_normal(values, network.quantiles), target)
    weight, bias = sums.solve(config.shrinkage)
    with torch.no_grad():
        network.head.weight.copy_(weight / config.temperature)
        network.head.bias.copy_(bias / config.temperature)
        logits = network.head(to_normal(first, network.quantiles))
        return float(F.cross_entropy(logits, first_target))
