"""Learning from recordings without labels: crops of one recording are alike, of others not.

Two random crops of each chunk are augmented separately; the network is to find, among all crops of
the batch, the other one of the same recording. What it learns is what does not change within a
recording but differs between recordings: instruments, production, rhythm. Takes chunks that are
long beside the crop (whole excerpts), or both crops would show the same moments.
Source: T. Chen et al., "A simple framework for contrastive learning", ICML 2020 (SimCLR).
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgc_ray import RequestError
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.models import family_module
from mgc_ray.models._classifier import Classifier
from mgc_ray.training.augment import augment
from mgc_ray.training.batches import Batches, batches
from mgc_ray.training.config import configure, new_classifier, seen_groups
from mgc_ray.training.loop import Epoch, check_finite, precision_of, share_of_lr, take_statistics

METRIC = "val_retrieval"
_PROJECTED = 128  # values that crops are compared by, in training alone
_TEMPERATURE = 0.1  # of the softmax over the batch


def pretrain(
    family: str,
    params: dict[str, Any],
    chunks: ChunkTable,
    device: str | torch.device = "cpu",
    autocast: bool | None = None,
) -> Iterator[Epoch]:
    """Train all of `family` but its last layer; as `train`, an epoch at a time.

    Metrics: train_loss, val_loss (of validation recordings), val_retrieval (the share of validation
    crops whose nearest other crop is of the same recording, among all of them), lr, epoch_seconds,
    chunks_per_second. Raises RequestError where crops are as long as the chunks, and
    NonFiniteLossError.
    """
    settings = configure(family, params)[1]
    if settings.crop > 0.5:
        raise RequestError(
            f"crop must be at most 0.5 for pre-training, or both crops of a chunk show the same, "
            f"but it is {settings.crop:g}: take longer chunks and a smaller crop"
        )
    if hasattr(family_module(family), "fit"):
        raise RequestError(
            f"pre-training needs a family that learns features, but {family} computes them: take "
            "another --family"
        )
    device = torch.device(device)
    rows = {split: chunks.rows(split) for split in ("train", "valid")}
    for split, indices in rows.items():
        if len(indices) < 2:
            raise RequestError(f"pre-training needs 2 {split} chunks or more, not {len(indices)}")
    torch.manual_seed(settings.seed)
    generator = torch.Generator(device).manual_seed(settings.seed)
    info = chunks.info
    groups = seen_groups(settings, info.features.groups)
    classifier = new_classifier(family, params, info.features, genres=1)
    take_statistics(classifier, chunks)
    classifier = classifier.to(device)
    frames = classifier.length(info.features.frames)
    with torch.no_grad():
        width = (
            classifier.eval()
            .network.embed(  # type: ignore[operator]
                torch.zeros(1, len(classifier.kept), frames, device=device)
            )
            .shape[1]
        )
    projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, _PROJECTED)).to(
        device
    )
    learnt = nn.ModuleList([classifier, projection])
    optimizer = torch.optim.AdamW(
        learnt.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True
    )
    drawn_rows = np.repeat(rows["train"], settings.crops)
    steps = math.ceil(len(drawn_rows) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: share_of_lr(step / steps, settings)
    )
    source, precision = batches(chunks, device), precision_of(device, autocast)

    def project(x: Tensor) -> Tensor:
        pair = torch.cat([augment(x, frames, settings, groups, generator) for _ in range(2)])
        with precision:
            embedding = classifier.network.embed(pair)  # type: ignore[operator]
            return F.normalize(projection(embedding).float())

    best = math.inf
    for number in range(1, settings.max_epochs + 1):
        started = time.perf_counter()
        learnt.train()
        losses = torch.zeros(steps, device=device)
        lr = float(schedule.get_last_lr()[0])
        for step, (batch, x) in enumerate(
            source.shuffled(drawn_rows, settings.batch_size, generator)
        ):
            if len(batch) < 2:
                continue
            x = classifier.standardise(x)
            loss = contrastive_loss(project(x), batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses[step] = loss.detach()
        check_finite(losses, number)
        trained = time.perf_counter() - started
        metrics = {
            "train_loss": float(losses.mean()),
            **_judge(classifier, projection, source, rows["valid"], frames),
            "lr": lr,
            "epoch_seconds": time.perf_counter() - started,
            "chunks_per_second": len(drawn_rows) / trained,
        }
        is_best, best = metrics["val_loss"] < best, min(metrics["val_loss"], best)
        yield Epoch(number, metrics, is_best, number == settings.max_epochs, classifier)


def contrastive_loss(pairs: Tensor, recording: Tensor) -> Tensor:
    """Cross-entropy of finding the partner; pairs [2B, width] of length 1, i and i + B together.

    `recording` [B]: crops of one recording in two pairs are neither partners nor others.
    """
    size = len(pairs) // 2
    similarity = pairs @ pairs.T / _TEMPERATURE
    twice = recording.repeat(2)
    partner = torch.arange(2 * size, device=pairs.device).roll(size)
    left_out = twice[:, None] == twice
    left_out[torch.arange(2 * size, device=pairs.device), partner] = False
    return F.cross_entropy(similarity.masked_fill(left_out, -math.inf), partner)


def _judge(
    classifier: Classifier, projection: nn.Module, source: Batches, rows: np.ndarray, frames: int
) -> dict[str, float]:
    """Loss and retrieval on the first and the last crop of each validation chunk."""
    classifier.eval()
    projection.eval()
    ends: list[list[Tensor]] = [[], []]
    with torch.inference_mode():
        for _, x in source.in_order(rows):
            x = classifier.standardise(x)
            for end, part in zip(ends, (x[:, :, :frames], x[:, :, -frames:]), strict=True):
                embedding = classifier.network.embed(part)  # type: ignore[operator]
                end.append(F.normalize(projection(embedding)))
        pairs = torch.cat([torch.cat(end) for end in ends])
        loss = contrastive_loss(pairs, torch.arange(len(rows), device=pairs.device))
        similarity = (pairs @ pairs.T).fill_diagonal_(-math.inf)
        found = similarity.argmax(1) == torch.arange(len(pairs), device=pairs.device).roll(
            len(rows)
        )
    return {"val_loss": float(loss), METRIC: float(found.float().mean())}
