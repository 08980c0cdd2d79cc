"""Augmentation of whole batches of standardised spectrograms, on the device they are on.

x is float32 [B, bands, frames]; 0 is the mean of a band, so a masked part is set to 0.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def spec_augment(
    x: Tensor, freq_mask: int, time_mask: float, masks: int, generator: torch.Generator
) -> Tensor:
    """Set `masks` ranges of bands and `masks` ranges of frames of each spectrogram to 0.

    Widths are uniform in 0..freq_mask bands and 0..time_mask (a share) of the frames.
    Source: D. S. Park et al., "SpecAugment", Interspeech 2019 (without its time warping).
    """
    batch, bands, frames = x.shape
    for _ in range(masks):
        hidden_bands = _ranges(batch, bands, freq_mask, x.device, generator)
        hidden_frames = _ranges(batch, frames, round(time_mask * frames), x.device, generator)
        x = x.masked_fill(hidden_bands[:, :, None] | hidden_frames[:, None, :], 0.0)
    return x


def _ranges(
    batch: int, length: int, widest: int, device: torch.device, generator: torch.Generator
) -> Tensor:
    """One random range for each of the batch, bool [batch, length]."""
    uniform = torch.rand((2, batch, 1), generator=generator, device=device)
    width = (uniform[0] * (min(widest, length) + 1)).floor()
    start = (uniform[1] * (length - width + 1)).floor()
    position = torch.arange(length, device=device)
    return (position >= start) & (position < start + width)


def mixup(
    x: Tensor, genre: Tensor, genres: int, alpha: float, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Blend each spectrogram and its label with another of the batch; labels become [B, genres].

    The share of the first is Beta(alpha, alpha)-distributed, drawn for each pair.
    Source: H. Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.
    """
    target = F.one_hot(genre, genres).to(x.dtype)
    if alpha == 0:
        return x, target
    batch = len(x)
    share = torch.from_numpy(random.beta(alpha, alpha, batch).astype(np.float32)).to(x.device)
    other = torch.from_numpy(random.permutation(batch)).to(x.device)
    mixed = torch.lerp(x[other], x, share[:, None, None])
    return mixed, torch.lerp(target[other], target, share[:, None])
