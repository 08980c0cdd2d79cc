"""Learning from recordings without labels: crops of one recording are alike, of others not.

Two random crops of each chunk are augmented separately; the network is to find, among all crops of
the batch, the other one of the same recording. It learns what does not change within a recording
but differs between recordings: instruments, production, rhythm. Takes chunks that are long compared
with the crop (whole excerpts), or both crops would show the same moments.
Source: T. Chen et al., "A simple framework for contrastive learning", ICML 2020 (SimCLR).
"""

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgc_ray import RequestError
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.device import frozen
from mgc_ray.models import configure, family_module
from mgc_ray.models._classifier import Batch, Classifier, first_input, new_classifier
from mgc_ray.settings import Params
from mgc_ray.training.augment import augment
from mgc_ray.training.batches import Batches, batches
from mgc_ray.training.descent import Descent
from mgc_ray.training.epoch import Epoch, set_statistics

# Long training on small crops, strongly augmented: else different recordings are too easily told
# from each other.
DEFAULTS: Params = {
    "max_epochs": 60,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "warmup_epochs": 2,
    "batch_size": 128,
    "crop": 0.25,
    "pitch_shift": 3.0,
    "time_stretch": 0.15,
    "gain": 0.3,
    "tilt": 0.3,
}
# settings of training
UNUSED = (
    *("patience", "label_smoothing", "mixup", "overlap", "averaging", "folds"),
    *("embedding_width", "embedding_dropout"),
)
RETRIEVAL = "val_retrieval"
_PROJECTED = 128  # values that crops are compared by, only in training
_TEMPERATURE = 0.1  # of the softmax over the batch


def check_pretraining(family: str, params: Params) -> None:
    """Raise RequestError for what pre-training cannot use: a family, a setting, a crop.

    `params`: what was given, without defaults.
    """
    for name in params:
        if name in UNUSED:
            raise RequestError(f"pre-training does not use {name}: leave it out")
    if family == "transfer":
        raise RequestError(
            "--family must be a network of its own, but transfer starts from one: give another"
        )
    crop = (DEFAULTS | params)["crop"]
    if crop > 0.5:
        raise RequestError(
            f"crop must be at most 0.5 for pre-training, or both crops of a chunk show the same, "
            f"but it is {crop:g}: use longer chunks and a smaller crop"
        )


def pretrain(
    family: str,
    params: Params,
    chunks: ChunkTable,
    device: str | torch.device = "cpu",
    autocast: bool | None = None,
) -> Iterator[Epoch]:
    """Train all of `family` but its last layer; as `train`, an epoch at a time.

    Metrics: train_loss, val_loss (of validation recordings), val_retrieval (the share of validation
    crops whose nearest other crop is of the same recording, among all of them), lr, epoch_seconds,
    chunks_per_second. Raises RequestError as `check_pretraining`, and NonFiniteLossError.
    """
    settings = configure(family, params)[1]
    check_pretraining(family, params | {"crop": settings.crop})
    if hasattr(family_module(family), "fit"):
        raise RequestError(
            f"pre-training needs a family that learns features, but {family} computes them: give "
            "another --family"
        )
    device = torch.device(device)
    rows = {split: chunks.rows(split) for split in ("train", "valid")}
    for split, indices in rows.items():
        if len(indices) < 2:
            raise RequestError(f"pre-training needs 2 {split} chunks or more, not {len(indices)}")
    torch.manual_seed(settings.seed)
    generator = torch.Generator(device).manual_seed(settings.seed)
    features = first_input(family, chunks.info.features)
    classifier = new_classifier(family, params, features, genres=1)
    set_statistics(classifier, chunks.band_statistics)
    classifier = classifier.to(device)
    frames = classifier.length(classifier.frames)
    projection = _projection(classifier, frames, device)
    module = nn.ModuleList([classifier, projection])
    source = batches(chunks, classifier.names, device)
    drawn_rows = np.repeat(rows["train"], settings.crops)
    steps = math.ceil(len(drawn_rows) / settings.batch_size)
    descent = Descent(module, settings, device, steps, autocast=autocast)

    def loss_of(drawn: tuple[Tensor, Batch]) -> Tensor | None:
        recording, batch = drawn
        if len(recording) < 2:
            return None
        x = classifier.standardise(batch)
        crops = [
            augment(x, frames, settings, classifier.pitched_bands, generator) for _ in range(2)
        ]
        with descent.precision:
            embedding = classifier.network.embed(torch.cat(crops))  # type: ignore[operator]
            projected = projection(embedding)
        return contrastive_loss(F.normalize(projected.float()), recording)

    best = math.inf
    for number in range(1, settings.max_epochs + 1):
        started = time.perf_counter()
        module.train()
        drawn = source.shuffled(drawn_rows, settings.batch_size, generator)
        done = descent.epoch(drawn, loss_of, number)
        trained = time.perf_counter() - started
        metrics = {
            "train_loss": done.train_loss,
            **_validate(classifier, projection, source, rows["valid"], frames),
            "lr": done.lr,
            "epoch_seconds": time.perf_counter() - started,
            "chunks_per_second": len(drawn_rows) / trained,
        }
        is_best, best = metrics["val_loss"] < best, min(metrics["val_loss"], best)
        yield Epoch(number, metrics, is_best, number == settings.max_epochs, classifier)


def _projection(classifier: Classifier, frames: int, device: torch.device) -> nn.Module:
    """From the embedding to what crops are compared by."""
    bands = len(classifier.mean)
    with torch.no_grad():
        example = torch.zeros(1, bands, frames, device=device)
        width = classifier.eval().network.embed(example).shape[1]  # type: ignore[operator]
    layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, _PROJECTED))
    return layers.to(device)


def contrastive_loss(pairs: Tensor, recording: Tensor) -> Tensor:
    """Cross-entropy of finding the partner; pairs [2B, width] of length 1, i and i + B together.

    `recording` [B]: two pairs of one recording are neither partners nor others.
    """
    size = len(pairs) // 2
    similarity = pairs @ pairs.T / _TEMPERATURE
    twice = recording.repeat(2)
    partner = torch.arange(2 * size, device=pairs.device).roll(size)
    left_out = twice[:, None] == twice
    left_out[torch.arange(2 * size, device=pairs.device), partner] = False
    return F.cross_entropy(similarity.masked_fill(left_out, -math.inf), partner)


def _validate(
    classifier: Classifier, projection: nn.Module, source: Batches, rows: np.ndarray, frames: int
) -> dict[str, float]:
    """Loss and retrieval on the first and the last crop of each validation chunk."""
    classifier.eval()
    projection.eval()
    ends: list[list[Tensor]] = [[], []]
    with frozen():
        for _, batch in source.in_order(rows):
            x = classifier.standardise(batch)
            for end, part in zip(ends, (x[:, :, :frames], x[:, :, -frames:]), strict=True):
                embedding = classifier.network.embed(part)  # type: ignore[operator]
                end.append(F.normalize(projection(embedding)))
        pairs = torch.cat([torch.cat(end) for end in ends])
        loss = contrastive_loss(pairs, torch.arange(len(rows), device=pairs.device))
        similarity = (pairs @ pairs.T).fill_diagonal_(-math.inf)
        partner = torch.arange(len(pairs), device=pairs.device).roll(len(rows))
        is_partner = similarity.argmax(1) == partner
    return {"val_loss": float(loss), RETRIEVAL: float(is_partner.float().mean())}
