"""Statistics of timbre and rhythm over a spectrogram, whatever its length.

The features of music genre recognition before networks learnt their own: how bands are distributed,
how they change together, how much is sustained and how much percussive, the spacing of partials and
how long they last. Nothing here is learnt.
Source of the kinds: K. Seyerlehner, G. Widmer, T. Pohle, "Fusing block-level features for music
similarity estimation", DAFx 2010 (sorted and correlated blocks); D. Fitzgerald,
"Harmonic/percussive separation using median filtering", DAFx 2010 (here with means); the rest is as
old as G. Tzanetakis and P. Cook, "Musical genre classification of audio signals", 2002. Those used
here were chosen by cross-validation on GTZAN's train and valid parts, see results/README.md.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FRAMES = 400  # longer spectrograms are averaged down to about this, so that steps are comparable
_FEWEST_FRAMES = 32  # a shorter spectrogram is repeated
_CEPSTRA = 20
_REGIONS = 16  # ranges of neighbouring bands that are summarised together
_BANDS = 32  # finer ones
_LAGS = (1, 2, 4, 8, 16)  # frames
_WINDOW = 13  # frames of a texture window: 1 s of 77 ms frames
_SPACINGS = 40  # distances between partials, in half bands


def statistics(x: Tensor) -> Tensor:
    """[B, bands, frames], standardised by band -> [B, count]; `count` depends on bands alone."""
    x = _usual_length(x)
    regions = _pool(x, min(_REGIONS, x.shape[1]))
    bands = _pool(x, min(_BANDS, x.shape[1]))
    position = (torch.arange(x.shape[1], device=x.device) + 0.5) / x.shape[1]
    order = torch.arange(min(_CEPSTRA, x.shape[1]), device=x.device)[:, None]
    cepstra = torch.cos(math.pi * order * position) * math.sqrt(2 / x.shape[1]) @ x
    return torch.cat(
        [
            _autocorrelations(cepstra),
            _quantiles(bands - bands.mean((1, 2), keepdim=True), (0.05, 0.25, 0.5, 0.75, 0.95)),
            _texture(cepstra),
            _sustained_and_percussive(x),
            _spacing_of_partials(x),
            _partials(x),
            _sorted_blocks(bands, 10, 5, (0.0, 1 / 3, 2 / 3, 1.0), over_blocks=0.9),
            _sorted_blocks(_contrast(x), 20, 10, (0.1, 0.5, 0.9), over_blocks=0.5),
            _correlated_blocks(regions, 128),
            _onsets(x),
        ],
        dim=1,
    )


def _usual_length(x: Tensor) -> Tensor:
    frames = x.shape[2]
    if frames < _FEWEST_FRAMES:
        return x.repeat(1, 1, -(-_FEWEST_FRAMES // frames))
    return F.avg_pool1d(x, frames // FRAMES) if frames >= 2 * FRAMES else x


def _autocorrelations(x: Tensor) -> Tensor:
    """Of each row, the autocorrelation at some lags: [B, rows, frames] -> [B, values]."""
    centred = x - x.mean(2, keepdim=True)
    power = centred.square().mean(2).clamp(min=1e-6)
    later = [(centred[:, :, lag:] * centred[:, :, :-lag]).mean(2) / power for lag in _LAGS]
    return torch.cat(later, 1)


def _texture(x: Tensor) -> Tensor:
    """Change between windows and within them: [B, rows, frames] -> [B, 3 x rows]."""
    windows = x[:, :, : x.shape[2] // _WINDOW * _WINDOW].unflatten(2, (-1, _WINDOW))
    within = windows.std(3, correction=0)
    between = windows.mean(3).std(2, correction=0)
    return torch.cat([between, within.mean(2), within.std(2, correction=0)], 1)


def _sustained_and_percussive(x: Tensor) -> Tensor:
    """What stands out from its neighbours in time and in pitch, by region."""
    percussive = x - _smooth(x, 2, 9)
    sustained = x - _smooth(x, 1, 9)
    return torch.cat(
        [
            _by_region(percussive.abs()),
            _by_region(sustained.abs()),
            _deviation_by_region(sustained.relu()),
            _deviation_by_region(percussive.relu()),
        ],
        dim=1,
    )


def _spacing_of_partials(x: Tensor) -> Tensor:
    """Autocorrelation over bands: the spacing of partials, its mean and deviation over frames."""
    bands = x.shape[1]
    fine = (x - _smooth(x, 1, 15))[:, :, ::2].transpose(1, 2)
    spectrum = torch.fft.rfft(fine, n=2 * bands)
    power = spectrum.real.square() + spectrum.imag.square()
    correlation = torch.fft.irfft(power, n=2 * bands)[..., : min(_SPACINGS, bands)]
    correlation = correlation[..., 1:] / correlation[..., :1].clamp(min=1e-4)
    return torch.cat([correlation.mean(1), correlation.std(1, correction=0)], 1)


def _partials(x: Tensor) -> Tensor:
    """Share of bands that are louder than both neighbours, and still are 1 and 4 frames later."""
    is_peak = (x[:, 1:-1] > x[:, :-2]) & (x[:, 1:-1] > x[:, 2:])
    peak = F.pad(is_peak.float(), (0, 0, 1, 1))
    lasting = [peak] + [peak[:, :, lag:] * peak[:, :, :-lag] for lag in (1, 4)]
    return torch.cat([_by_region(one) for one in lasting], 1)


def _onsets(x: Tensor) -> Tensor:
    """Share of frames that are louder than both neighbours, and how much bands rise per frame."""
    is_peak = (x[:, :, 1:-1] > x[:, :, :-2]) & (x[:, :, 1:-1] >= x[:, :, 2:])
    rise = x.diff(dim=2)
    parts = [is_peak.float(), rise.relu(), (rise > 0.5).float(), (rise > 1.0).float()]
    return torch.cat([_by_region(part) for part in parts], 1)


def _contrast(x: Tensor) -> Tensor:
    """Distance of the peaks and valleys of each region from its mean: [B, 2 x regions, frames]."""
    count = min(_REGIONS, x.shape[1])
    regions = x[:, : x.shape[1] // count * count].unflatten(1, (count, -1))
    mean = regions.mean(2)
    return torch.cat([regions.amax(2) - mean, mean - regions.amin(2)], 1)


def _sorted_blocks(
    x: Tensor, size: int, hop: int, ranks: Sequence[float], over_blocks: float
) -> Tensor:
    """The values of each block sorted by size; of each rank a quantile over all blocks."""
    blocks = x.unfold(2, size, hop)
    chosen = _at_ranks(blocks, ranks)  # [B, rows, blocks, ranks]
    return _quantiles(chosen.transpose(2, 3), (over_blocks,))


def _correlated_blocks(x: Tensor, size: int) -> Tensor:
    """Median over blocks of the correlation of each two rows: [B, rows, frames] -> [B, pairs]."""
    size = min(size, x.shape[2])
    blocks = x.unfold(2, size, max(1, size // 2)).transpose(1, 2)  # [B, blocks, rows, size]
    centred = blocks - blocks.mean(3, keepdim=True)
    unit = centred / centred.norm(dim=3, keepdim=True).clamp(min=1e-4)
    first, second = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)
    return _quantiles((unit @ unit.transpose(2, 3))[:, :, first, second].transpose(1, 2), (0.5,))


def _quantiles(x: Tensor, shares: Sequence[float]) -> Tensor:
    """[B, ..., n] -> [B, values]: quantiles over the last dimension, the nearest value."""
    return _at_ranks(x, shares).flatten(1)


def _at_ranks(x: Tensor, ranks: Sequence[float]) -> Tensor:
    """Of the last dimension the values at some ranks, from 0 (the smallest) to 1 (the largest).

    Not by an index of Python's numbers, which would be copied to the device, and waited for.
    """
    values = x.sort(-1).values
    return torch.stack([values[..., round(rank * (x.shape[-1] - 1))] for rank in ranks], -1)


def _smooth(x: Tensor, dim: int, width: int) -> Tensor:
    """The mean over `width` (odd) neighbours in dimension 1 or 2, fewer at the edges.

    By a matrix, which is several times as fast as torch's mean pooling.
    """
    position = torch.arange(x.shape[dim], device=x.device)
    near = ((position[:, None] - position).abs() <= width // 2).to(x.dtype)
    near = near / near.sum(1, keepdim=True)
    return near @ x if dim == 1 else x @ near.T


def _pool(x: Tensor, count: int) -> Tensor:
    """Means of `count` ranges of neighbouring bands: [B, bands, frames] -> [B, count, frames]."""
    return F.adaptive_avg_pool2d(x[:, None], (count, x.shape[2]))[:, 0]


def _by_region(x: Tensor) -> Tensor:
    """Means over a region and all frames: [B, bands, frames] -> [B, regions]."""
    return F.adaptive_avg_pool1d(x.mean(2), min(_REGIONS, x.shape[1]))


def _deviation_by_region(x: Tensor) -> Tensor:
    spread = _by_region(x.square()) - _by_region(x).square()
    return spread.clamp(min=1e-8).sqrt()
