"""A linear model on embeddings, solved for instead of trained.

The outputs of frozen pre-trained networks are summarised over the patches of a chunk, made
comparable, reduced to their principal components where asked for, and classified by multinomial
logistic regression (by L-BFGS) or linear discriminant analysis. One epoch is all it takes.
"""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgc_ray.models._solving import ClassSums, normal_quantiles, to_normal
from mgc_ray.settings import configuration, setting

READS = ("embedding",)
DEFAULT_FOR = {"embedding": "the most accurate on embeddings, in seconds per trial"}
# nothing that is made for spectrograms
TRAINING = {"freq_mask": 0, "time_mask": 0.0, "mixup": 0.0, "batch_size": 256, "folds": 5}

_KNOTS = 32  # quantiles of each value that are stored
_STEPS = 200  # of L-BFGS, at most
_OVERSAMPLING, _ITERATIONS = 20, 3  # of the random projections
_SMALLEST = 1e-3  # deviation of a value that hardly varies


@configuration
class Config:
    """The classifier."""

    solver: Literal["logistic", "discriminant"] = setting(
        "logistic", "Logistic regression, or linear discriminant analysis."
    )
    pooling: Literal["mean", "mean+max", "mean+deviation", "quantiles"] = setting(
        "mean", "How the patches of a chunk are summarised."
    )
    transform: Literal["standardise", "normal"] = setting(
        "standardise", "Each value to mean 0 and deviation 1, or to a normal distribution."
    )
    components: int = setting(
        0, "Principal components that are kept; 0: the values as they are.", ge=0, le=4096
    )
    l2: float = setting(0.03, "Logistic: penalty on the squares of the weights.", ge=0)
    balance: float = setting(
        1.0, "Logistic: 1 weights all genres alike, 0 all chunks alike.", ge=0, le=1
    )
    shrinkage: float = setting(0.4, "Discriminant: share of the covariance's diagonal.", ge=0, le=1)
    temperature: float = setting(
        1.0, "Logits are divided by it: solved ones are overconfident.", gt=0
    )


class Model(nn.Module):
    """x[B, bands, patches] -> logits[B, genres]."""

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        self.pooling = config.pooling
        count = bands * _values_per_band(config.pooling)
        knots = _KNOTS if config.transform == "normal" else 0
        self.register_buffer("quantiles", normal_quantiles(knots).repeat(count, 1))
        self.head = nn.Linear(count, genres)

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, patches] -> [B, count]."""
        with torch.autocast(x.device.type, enabled=False):
            values = _pooled(x.float(), self.pooling)
            return self.comparable(values)

    def comparable(self, values: Tensor) -> Tensor:
        """Pooled values [B, count], normally distributed where that is asked for."""
        quantiles: Tensor = self.quantiles  # type: ignore[assignment]
        return to_normal(values, quantiles) if quantiles.shape[1] else values

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits


def _values_per_band(pooling: str) -> int:
    return {"mean": 1, "mean+max": 2, "mean+deviation": 2, "quantiles": 3}[pooling]


def _pooled(x: Tensor, pooling: str) -> Tensor:
    if pooling == "mean+max":
        parts = [x.mean(2), x.amax(2)]
    elif pooling == "mean+deviation":
        parts = [x.mean(2), x.std(2, correction=0)]
    elif pooling == "quantiles":
        ordered = x.sort(2).values
        last = x.shape[2] - 1
        parts = [ordered[:, :, round(share * last)] for share in (0.1, 0.5, 0.9)]
    else:
        parts = [x.mean(2)]
    return torch.cat(parts, 1)


def fit(network: Model, config: Config, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """Solve for the weights; the loss on what they were solved for.

    `batches`: x[B, bands, patches] and target[B, genres], shares of genres that sum to 1.
    """
    pairs = [(_pooled(x.float(), config.pooling), target) for x, target in batches]
    values, target = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    quantiles: Tensor = network.quantiles  # type: ignore[assignment]
    if knots := quantiles.shape[1]:
        shares = (torch.arange(knots, device=values.device) + 0.5) / knots
        quantiles.copy_(torch.quantile(values, shares, dim=0).T)
    values = network.comparable(values)
    mean, deviation = values.mean(0), values.std(0, correction=0).clamp(min=_SMALLEST)
    values = (values - mean) / deviation
    axes = _principal_axes(values, config.components)  # [count, kept]
    reduced = values if axes is None else values @ axes
    if config.solver == "discriminant":
        sums = ClassSums(reduced.shape[1], target.shape[1], values.device)
        sums.add(reduced, target)
        solved = sums.solve(config.shrinkage)
        weight, bias = (one.float().to(values.device) for one in solved)
    else:
        weight, bias = _logistic(reduced, target, config)
    if axes is not None:
        weight = weight @ axes.T
    weight = weight / deviation
    with torch.no_grad():
        network.head.weight.copy_(weight / config.temperature)
        network.head.bias.copy_((bias - weight @ mean) / config.temperature)
        logits = network.head(values * deviation + mean)
        return float(F.cross_entropy(logits, target))


def _principal_axes(values: Tensor, count: int) -> Tensor | None:
    """The directions of most variance, [values, count]; None for all of them.

    By random projections, as all directions of thousands of values would take minutes.
    """
    if not 0 < count < min(values.shape):
        return None
    sketch = min(count + _OVERSAMPLING, *values.shape)
    _, _, axes = torch.svd_lowrank(values, sketch, niter=_ITERATIONS)
    return axes[:, :count]


def _logistic(values: Tensor, target: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Weight [genres, count] and bias [genres] of least penalised loss."""
    size = target.sum(0)
    of_genre = torch.where(size > 0, (len(target) / size.clamp(min=1e-9)) ** config.balance, 0.0)
    each = target @ of_genre
    each = each / each.sum()
    weight = torch.zeros(target.shape[1], values.shape[1], device=values.device)
    bias = torch.zeros(target.shape[1], device=values.device)
    bias[size == 0] = -1e4  # never predicted
    known = size > 0
    free = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        free,
        max_iter=_STEPS,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        losses = F.cross_entropy(F.linear(values, weight, bias), target, reduction="none")
        total = each @ losses + config.l2 / 2 * weight[known].square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()
