"""What families share whose weights are solved for: values made normal, discriminant analysis.

Source: R. A. Fisher, 1936; J. H. Friedman, "Regularized discriminant analysis", 1989.
"""

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from mgc_ray.task import in_double

_LEAST = 1e-3  # added to each variance, which is about 1: some values hardly vary
_ROUNDING = 1e-5  # of a value: devices and libraries differ by no more


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


class ClassSums:
    """The sums that the weights depend on, batch by batch: memory does not grow with the music."""

    def __init__(self, count: int, genres: int, device: torch.device) -> None:
        if device.type == "mps":  # an Apple GPU, which has no float64
            device = torch.device("cpu")
        self.weight = torch.zeros(genres, dtype=torch.float64, device=device)
        self.sum = torch.zeros(genres, count, dtype=torch.float64, device=device)
        self.product = torch.zeros(count, count, dtype=torch.float64, device=device)

    def add(self, values: Tensor, target: Tensor) -> None:
        """values [B, count], target [B, genres]."""
        values, target = in_double(values), in_double(target)
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
