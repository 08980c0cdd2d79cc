"""Statistics of timbre and rhythm, then a small fully connected network.

What music genre recognition used before networks learnt their features, computed inside of the
model so that augmentation reaches it. Of a few hundred tracks it learns about as much as the
convolutional families do, and it errs on other ones. Give it long chunks: rhythm takes time.
Source of the kinds of statistics: G. Tzanetakis and P. Cook, "Musical genre classification of audio
signals", 2002; T. Lidy and A. Rauber, "Evaluation of feature extractors and psycho-acoustic
transformations for music genre classification", ISMIR 2005 (modulation spectra).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_CEPSTRA = 30
_CORRELATED = 14  # of them
_REGIONS = 16  # groups of neighbouring bands whose rhythm is looked at
_RATES = 16  # ranges of modulation rates, logarithmic, up to half the frame rate
_LAGS = 60  # frames, of the autocorrelation of onsets


@dataclass(frozen=True)
class Config:
    hidden: int = 128  # units of the fully connected layer
    dropout: float = 0.5
    noise: float = 0.3  # deviation of what is added to each statistic in training, in its own


class Model(nn.Module):
    """x[B, bands, frames] -> logits[B, genres]."""

    cosine: Tensor

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        self.noise = config.noise
        position = (torch.arange(bands) + 0.5) / bands
        order = torch.arange(min(_CEPSTRA, bands))[:, None]
        cosine = torch.cos(math.pi * order * position) * math.sqrt(2 / bands)
        self.register_buffer("cosine", cosine, persistent=False)
        with torch.no_grad():
            count = self.statistics(torch.zeros(1, bands, 8)).shape[1]
        self.normalise = nn.BatchNorm1d(count, affine=False)
        self.hidden = nn.Sequential(
            nn.Dropout(config.dropout / 2), nn.Linear(count, config.hidden), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.hidden, genres))

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, hidden]."""
        with torch.autocast(x.device.type, enabled=False):
            values = self.normalise(self.statistics(x.float()))
        if self.training and self.noise:
            values = values + self.noise * torch.randn_like(values)
        embedding: Tensor = self.hidden(values.clamp(-5, 5))
        return embedding

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits

    def statistics(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, count], whatever the number of frames."""
        cepstra = self.cosine @ x
        change = cepstra.diff(dim=2, prepend=cepstra[:, :, :1])
        deviation = cepstra.std(2, correction=0)
        return torch.cat(
            [
                cepstra.mean(2),
                deviation,
                change.std(2, correction=0),
                x.std(2, correction=0),
                _skewness(x),
                _correlations(cepstra[:, :_CORRELATED]),
                _modulation(x),
                _autocorrelation(x),
            ],
            dim=1,
        )


def _skewness(x: Tensor) -> Tensor:
    """Of each band over time: [B, bands, frames] -> [B, bands]."""
    centred = x - x.mean(2, keepdim=True)
    deviation = centred.square().mean(2).clamp(min=1e-4).sqrt()
    return centred.pow(3).mean(2) / deviation.pow(3)


def _correlations(x: Tensor) -> Tensor:
    """Of each pair of rows over time: [B, rows, frames] -> [B, pairs]."""
    centred = x - x.mean(2, keepdim=True)
    unit = centred / centred.norm(dim=2, keepdim=True).clamp(min=1e-4)
    first, second = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)
    return (unit[:, first] * unit[:, second]).sum(2)


def _modulation(x: Tensor) -> Tensor:
    """How strongly each region of bands pulses at each rate: [B, bands, frames] -> [B, values]."""
    regions = nn.functional.adaptive_avg_pool1d(x.transpose(1, 2), _REGIONS).transpose(1, 2)
    centred = regions - regions.mean(2, keepdim=True)
    frames = x.shape[2]
    window = torch.hann_window(frames, periodic=False, device=x.device) if frames > 2 else 1.0
    strength = torch.fft.rfft(centred * window).abs()
    rates = strength.shape[2]
    edges = torch.logspace(math.log10(2 / 194), 0, _RATES + 1) * rates
    parts = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        start = min(int(low), rates - 1)
        parts.append(strength[:, :, start : max(start + 1, int(high))].mean(2))
    return (torch.stack(parts, 2).flatten(1) / math.sqrt(frames)).log1p()


def _autocorrelation(x: Tensor) -> Tensor:
    """Of the strength of onsets, by lag: [B, bands, frames] -> [B, lags]; tempo, and how steady."""
    onsets = x.diff(dim=2, prepend=x[:, :, :1]).clamp(min=0).mean(1)
    onsets = onsets - onsets.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(onsets, n=onsets.shape[1] + _LAGS + 1).abs().square()
    lags = torch.fft.irfft(spectrum, n=onsets.shape[1] + _LAGS + 1)[:, : _LAGS + 1]
    return lags[:, 1:] / lags[:, :1].clamp(min=1e-4)
