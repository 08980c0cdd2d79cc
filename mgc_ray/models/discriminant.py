"""Linear discriminant analysis of statistics of timbre and rhythm: solved, not trained.

Each genre is taken as a normal distribution of the statistics, all with one covariance, which is
shrunk towards its diagonal because there are more statistics than a few hundred tracks determine.
One pass over the training part gives the means and the covariance and with them the weights. Where
few artists are at hand it does better than networks that learn their features (see
results/README.md), and it takes seconds. Give it long chunks: rhythm takes time.
Source: R. A. Fisher, 1936; J. H. Friedman, "Regularized discriminant analysis", 1989.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgc_ray.models._statistics import statistics

# masked and blended spectrograms have other statistics than music
TRAINING = {"freq_mask": 0, "time_mask": 0.0, "mixup": 0.0}

_JUDGED = 4096  # chunks that the training loss is of
_LEAST = 1e-3  # added to each variance, which is 1 on average: some statistics hardly vary


@dataclass(frozen=True)
class Config:
    shrinkage: float = 0.3  # share of the covariance's diagonal, which needs no other statistics
    temperature: float = 3.0  # logits are divided by it: solved ones are too sure of themselves


class Model(nn.Module):
    """x[B, bands, frames] -> logits[B, genres]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        count = statistics(torch.zeros(1, bands, 1)).shape[1]
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))
        self.head = nn.Linear(count, genres)

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, count]: the statistics, standardised."""
        with torch.autocast(x.device.type, enabled=False):
            values = statistics(x.float())
        return ((values - self.mean) / self.deviation).clamp(-5, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits


def fit(network: Model, config: Config, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """Solve for the weights; the loss on (the first of) the chunks they were solved from.

    `batches`: x[B, bands, frames] and target[B, genres], shares of genres that sum to 1.
    """
    sums = None
    judged: list[tuple[Tensor, Tensor]] = []
    for x, target in batches:
        values = statistics(x.float())
        if sums is None:
            sums = _Sums(values, genres=target.shape[1])
        sums.add(values, target)
        if sum(len(part) for part, _ in judged) < _JUDGED:
            judged.append((values, target))
    assert sums is not None, "a training part has chunks"
    mean, deviation, weight, bias = sums.solve(config.shrinkage)
    network.mean.copy_(mean)
    network.deviation.copy_(deviation)
    with torch.no_grad():
        network.head.weight.copy_(weight / config.temperature)
        network.head.bias.copy_(bias / config.temperature)
        values, target = (torch.cat(parts) for parts in zip(*judged, strict=True))
        logits = network.head(((values - network.mean) / network.deviation).clamp(-5, 5))
        return float(F.cross_entropy(logits, target))


class _Sums:
    """What the weights depend on, summed up batch by batch: no more memory for more music.

    Values are taken relative to the mean of the first batch, as squares of large numbers would
    leave few digits for their differences.
    """

    def __init__(self, first: Tensor, genres: int) -> None:
        self.origin = first.double().mean(0)
        count = len(self.origin)
        self.weight = torch.zeros(genres, dtype=torch.float64, device=first.device)
        self.sum = torch.zeros(genres, count, dtype=torch.float64, device=first.device)
        self.product = torch.zeros(count, count, dtype=torch.float64, device=first.device)

    def add(self, values: Tensor, target: Tensor) -> None:
        """values [B, count], target [B, genres]."""
        values, target = values.double() - self.origin, target.double()
        self.weight += target.sum(0)
        self.sum += target.T @ values
        self.product += values.T @ values

    def solve(self, shrinkage: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and deviation of the values [count], weight [genres, count], bias [genres].

        All genres are taken as equally frequent; one that has no chunk is never predicted.
        """
        total = self.weight.sum()
        mean = self.sum.sum(0) / total
        second = self.product / total
        deviation = (second.diagonal() - mean.square()).clamp(min=1e-12).sqrt()
        there = self.weight > 0
        of_genre = self.sum[there] / self.weight[there, None]
        share = self.weight[there] / total
        within = second - (of_genre.T * share) @ of_genre
        within = within / deviation / deviation[:, None]
        diagonal = within.diagonal() + _LEAST
        covariance = (1 - shrinkage) * within + shrinkage * torch.diag(diagonal)
        covariance.diagonal().add_(_LEAST)
        centred = (of_genre - mean) / deviation
        solved = torch.linalg.solve(covariance, centred.T).T
        weight = torch.zeros_like(self.sum)
        bias = torch.full_like(self.weight, -1e4)
        weight[there] = solved
        bias[there] = -(solved * centred).sum(1) / 2
        return mean + self.origin, deviation, weight, bias
