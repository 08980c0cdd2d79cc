"""Linear discriminant analysis of statistics of timbre and rhythm: solved, not trained.

Each statistic is transformed so that it is normally distributed. Each genre is then modelled as a
normal distribution of all of them, with one covariance, which is shrunk towards its diagonal, as
there are more statistics than a few hundred tracks determine. One pass over the training part gives
the means and the covariance and with them the weights, in seconds; for figures see
results/README.md. Give it long chunks: rhythm takes time.
Source: R. A. Fisher, 1936; J. H. Friedman, "Regularized discriminant analysis", 1989.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ndtri
from torch import Tensor, nn

from mgc_ray.models._statistics import statistics
from mgc_ray.settings import configuration, setting

# masked and blended spectrograms have other statistics than music
TRAINING = {"freq_mask": 0, "time_mask": 0.0, "mixup": 0.0}

_SAMPLE = 4096  # chunks that quantiles and the training loss are of
_KNOTS = 32  # quantiles of each statistic that are stored
_LEAST = 1e-3  # added to each variance, which is about 1: some statistics hardly vary
_ROUNDING = 1e-5  # of a statistic: devices and libraries differ by no more


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


def normal_quantiles(count: int) -> Tensor:
    """The middles of `count` equally likely ranges of the standard normal distribution."""
    # by SciPy, and so a constant for an exporter, which has no such operation
    return torch.from_numpy(ndtri((np.arange(count) + 0.5) / count)).float()


def to_normal(values: Tensor, quantiles: Tensor) -> Tensor:
    """Map each of values[B, count] so that quantiles[count, knots] become the normal ones.

    Linear between knots; beyond the outermost, their value. Equal knots count as one, in the middle
    of their normal values: a statistic that never varies becomes 0. A value that differs from a
    knot only by rounding is on it: many values are, and the rounding of another device must not
    move them by half a range.
    """
    normal = normal_quantiles(quantiles.shape[1]).to(values.device)
    columns = values.T.contiguous()  # [count, B]
    last = quantiles.shape[1] - 1
    rounding = _ROUNDING * columns.abs() + _ROUNDING / 100
    below = (_knots_below(quantiles, columns + rounding, equal=True) - 1).clamp(0, last)
    above = _knots_below(quantiles, columns - rounding, equal=False).clamp(0, last)
    low, high = quantiles.gather(1, below), quantiles.gather(1, above)
    # on a knot, `above` is its first and `below` its last: half-way between them
    share = torch.where(high > low, (columns - low) / (high - low).clamp(min=1e-12), 0.5)
    return torch.lerp(normal[below], normal[above], share).T


def _knots_below(knots: Tensor, columns: Tensor, equal: bool) -> Tensor:
    """How many of knots[count, K] are below each of columns[count, B], or equal to it."""
    if torch.compiler.is_exporting():  # ONNX has no search
        compared = torch.le if equal else torch.lt
        return compared(knots[:, None, :], columns[:, :, None]).sum(2)
    return torch.searchsorted(knots, columns, right=equal)


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
    sums = _Sums(first.shape[1], first_target.shape[1], first.device)
    for values, target in chain(sample, described):
        sums.add(to_normal(values, network.quantiles), target)
    weight, bias = sums.solve(config.shrinkage)
    with torch.no_grad():
        network.head.weight.copy_(weight / config.temperature)
        network.head.bias.copy_(bias / config.temperature)
        logits = network.head(to_normal(first, network.quantiles))
        return float(F.cross_entropy(logits, first_target))


class _Sums:
    """The sums that the weights depend on, batch by batch: memory does not grow with the music."""

    def __init__(self, count: int, genres: int, device: torch.device) -> None:
        self.weight = torch.zeros(genres, dtype=torch.float64, device=device)
        self.sum = torch.zeros(genres, count, dtype=torch.float64, device=device)
        self.product = torch.zeros(count, count, dtype=torch.float64, device=device)

    def add(self, values: Tensor, target: Tensor) -> None:
        """values [B, count], target [B, genres]."""
        values, target = values.double(), target.double()
        self.weight += target.sum(0)
        self.sum += target.T @ values
        self.product += values.T @ values

    def solve(self, shrinkage: float) -> tuple[Tensor, Tensor]:
        """Weight [genres, count] and bias [genres].

        All genres are assumed equally frequent; one without chunks is never predicted.
        """
        present = self.weight > 0
        of_genre = self.sum[present] / self.weight[present, None]
        share = self.weight[present] / self.weight.sum()
        within = self.product / self.weight.sum() - (of_genre.T * share) @ of_genre
        covariance = (1 - shrinkage) * within + shrinkage * torch.diag(within.diagonal())
        covariance.diagonal().add_(_LEAST)
        centred = of_genre - share @ of_genre
        weight = torch.zeros_like(self.sum)
        bias = torch.full_like(self.weight, -1e4)
        weight[present] = torch.linalg.solve(covariance, centred.T).T
        middle = (of_genre + share @ of_genre) / 2
        bias[present] = -(weight[present] * middle).sum(1)
        return weight, bias
