"""Augmentation of whole batches of standardised spectrograms, on the device they are on.

x is float32 [B, bands, frames]; 0 is the mean of a band, so a masked part is set to 0.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mgc_ray.config import TrainConfig


def augment(
    x: Tensor,
    frames: int,
    settings: TrainConfig,
    pitched: int,
    generator: torch.Generator,
) -> Tensor:
    """Everything except mixup, which needs the labels: [B, bands, any] -> [B, bands, frames].

    Only the first `pitched` bands, which are neighbours in pitch, are transposed and get another
    level: it would mean something else to chroma or to a tempogram.
    """
    x = crop(x, frames, settings.pitch_shift, settings.time_stretch, pitched, generator)
    x = time_shift(x, settings.time_shift, generator)
    x = level(x, settings.gain, settings.tilt, pitched, generator)
    return spec_augment(x, settings.freq_mask, settings.time_mask, settings.masks, generator)


def crop(
    x: Tensor,
    frames: int,
    pitch_shift: float,
    time_stretch: float,
    transposed: int,
    generator: torch.Generator,
) -> Tensor:
    """A random part of `frames` frames of each spectrogram, transposed and stretched at random.

    The first `transposed` bands by at most `pitch_shift` bands up or down; all by a factor up to
    1 + `time_stretch` slower or faster. Mel bands are spaced as pitches are only above 1 kHz;
    below, it is not quite that.
    """
    batch, bands, length = x.shape
    if frames == length and not pitch_shift and not time_stretch:
        return x
    uniform = torch.rand((3, batch, 1), generator=generator, device=x.device)
    if not pitch_shift and not time_stretch:
        start = (uniform[0] * (length - frames + 1)).long()
        index = start + torch.arange(frames, device=x.device)
        return x.gather(2, index[:, None, :].expand(batch, bands, frames))
    span = frames * torch.exp((2 * uniform[1] - 1) * math.log1p(time_stretch))
    span = span.clamp(max=length)
    start = uniform[0] * (length - span)
    time = start + (torch.arange(frames, device=x.device) + 0.5) * (span / frames)
    shift = (2 * uniform[2] - 1) * pitch_shift
    band = (torch.arange(bands, device=x.device) + 0.5).expand(batch, bands).clone()
    band[:, :transposed] = (band[:, :transposed] - shift).clamp(0.5, max(0.5, transposed - 0.5))
    # grid_sample's coordinates go from -1 to 1, edge to edge; beyond it the edge is repeated
    grid = torch.stack(
        [
            (2 * time / length - 1)[:, None, :].expand(batch, bands, frames),
            (2 * band / bands - 1)[:, :, None].expand(batch, bands, frames),
        ],
        dim=-1,
    )
    return F.grid_sample(x[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def time_shift(x: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Roll each spectrogram in time by up to a share `most` of its frames."""
    if not most:
        return x
    batch, bands, frames = x.shape
    uniform = torch.rand((batch, 1), generator=generator, device=x.device)
    shift = (uniform * most * frames).round().long()
    index = (torch.arange(frames, device=x.device) - shift) % frames
    return x.gather(2, index[:, None, :].expand(batch, bands, frames))


def level(x: Tensor, gain: float, tilt: float, leveled: int, generator: torch.Generator) -> Tensor:
    """Add a random level, and one that rises from the lowest to the highest band.

    To the first `leveled` bands; normally distributed with deviations `gain` and `tilt`: another
    recording level, another equaliser.
    """
    if not gain and not tilt:
        return x
    batch, bands, _ = x.shape
    normal = torch.randn((2, batch, 1), generator=generator, device=x.device)
    slope = torch.linspace(-1, 1, leveled, device=x.device)
    added = F.pad(gain * normal[0] + tilt * normal[1] * slope, (0, bands - leveled))
    return x + added[:, :, None]


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
    """Which positions are in one of the random ranges of each sample; bool [batch, length]."""
    uniform = torch.rand((2, ranges, batch, 1), generator=generator, device=device)
    width = (uniform[0] * (min(widest, length) + 1)).floor()
    start = (uniform[1] * (length - width + 1)).floor()
    position = torch.arange(length, device=device)
    return ((position >= start) & (position < start + width)).any(0)


def mixup(parts: Sequence[Tensor], share: Tensor) -> list[Tensor]:
    """Blend each sample, its spectrogram, label [B, genres] and others, with the one before it.

    `share` [] of the first remains, the same for the whole batch; see `mixup_shares`. A batch is in
    random order, so the one before is any other. (A share for each sample was
    worse, see results/benchmarks.md.)
    Source: H. Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.
    """
    return [torch.lerp(part.roll(1, 0), part, share) for part in parts]


def mixup_shares(alpha: float, count: int, random: np.random.Generator) -> Tensor:
    """Beta(alpha, alpha)-distributed shares, float32 [count]; 1 where alpha is 0.

    For a whole epoch at once, so that no step waits for a copy to the device.
    """
    shares = random.beta(alpha, alpha, count) if alpha else np.ones(count)
    return torch.from_numpy(shares.astype(np.float32))
