"""Augmentation of whole batches of standardised spectrograms, on the device they are on.

x is float32 [B, bands, frames]; 0 is the mean of a band, so a masked part is set to 0.
"""

import numpy as np
import torch
from torch import Tensor


def spec_augment(
    x: Tensor, freq_mask: int, time_mask: float, masks: int, generator: torch.Generator
) -> Tensor:
    """Set `masks` ranges of bands and `masks` ranges of frames of each spectrogram to 0.

    Widths are uniform in 0..freq_mask bands and 0..time_mask (a share) of the frames.
    Source: D. S. Park et al., "SpecAugment", Interspeech 2019 (without its time warping).
    """
    batch, bands, frames = x.shape
    hidden_bands = _ranges(masks, batch, bands, freq_mask, x.device, generator)
    hidden_frames = _ranges(masks, batch, frames, round(time_mask * frames), x.device, generator)
    return x.masked_fill(hidden_bands[:, :, None] | hidden_frames[:, None, :], 0.0)


def _ranges(
    ranges: int,
    batch: int,
    length: int,
    widest: int,
    device: torch.device,
    generator: torch.Generator,
) -> Tensor:
    """What lies in any of so many random ranges of each of the batch; bool [batch, length]."""
    uniform = torch.rand((2, ranges, batch, 1), generator=generator, device=device)
    width = (uniform[0] * (min(widest, length) + 1)).floor()
    start = (uniform[1] * (length - width + 1)).floor()
    position = torch.arange(length, device=device)
    return ((position >= start) & (position < start + width)).any(0)


def mixup(x: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Blend each spectrogram and its label [B, genres] with the one before it in the batch.

    `share` [B] of the first stays; see `mixup_shares`. A batch is in random order, so the one
    before is any other.
    Source: H. Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.
    """
    if not len(share):
        return x, target
    return (
        torch.lerp(x.roll(1, 0), x, share[:, None, None]),
        torch.lerp(target.roll(1, 0), target, share[:, None]),
    )


def mixup_shares(alpha: float, count: int, random: np.random.Generator) -> Tensor:
    """Beta(alpha, alpha)-distributed shares, float32 [count]; none for alpha 0.

    For a whole epoch at once, so that no step waits until they are on the device.
    """
    shares = random.beta(alpha, alpha, count) if alpha else np.zeros(0)
    return torch.from_numpy(shares.astype(np.float32))
