"""dB log-mel spectrograms; the defaults are the published baseline's.

float32, equal to librosa's `power_to_db(melspectrogram(...))` within 1e-3 dB (a few of 10^8 values
a little more: rounding shows 80 dB below loud tones), in a quarter of its time: a float32 FFT, mel
filters a few bands at a time (98 % of them is zero), no fresh memory. Needs neither librosa nor
torch, so a worker starts in a fraction of a second.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mgc_ray.settings import Params, configuration, setting

if TYPE_CHECKING:
    from mgc_ray.data.decoded import DecodedTrack

AMIN = np.float32(1e-10)  # power below which no logarithm is taken, librosa's
_BANDS_PER_BLOCK = 4  # of the mel product: measured, 2 and 8 are slower
_FRAMES_PER_BLOCK = 512  # spectra of a whole track at once would take 0.4 GB for ten minutes
_MOST = 10_000_000  # a damaged number would ask for all memory


@configuration
class LogMel:
    """float32 [n_mels, 1 + chunk_samples // hop_length], dB."""

    kind: ClassVar[str] = "spectrogram"
    pitched: ClassVar[bool] = True

    sample_rate: int = setting(22_050, "Hz.", ge=1, le=_MOST)
    n_fft: int = setting(1024, "Samples of a frame.", ge=1, le=_MOST)
    hop_length: int = setting(256, "Samples from frame to frame.", ge=1, le=_MOST)
    n_mels: int = setting(128, "Mel bands.", ge=1, le=_MOST)
    chunk_samples: int = setting(66_000, "Samples of a chunk.", ge=1, le=_MOST)
    top_db: float = setting(
        80.0, "What is further below a chunk's loudest value is raised to there."
    )

    @property
    def bands(self) -> int:
        return self.n_mels

    @property
    def frames(self) -> int:
        return 1 + self.chunk_samples // self.hop_length

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def described(self, of: str = "chunk") -> Params:
        """All that `transform` does, in the arguments of librosa's functions that do the same.

        `of`: what one waveform is.
        """
        return {
            "kind": "log_mel",
            "sample_rate": self.sample_rate,
            "stft": {
                "n_fft": self.n_fft,
                "win_length": self.n_fft,
                "hop_length": self.hop_length,
                "window": "hann",
                "center": True,
                "pad_mode": "constant",
            },
            "window_is": "periodic",
            "power": 2.0,
            "mel": {
                "n_mels": self.n_mels,
                "fmin": 0.0,
                "fmax": self.sample_rate / 2,
                "htk": False,
                "norm": "slaney",
            },
            "decibel": {"ref": 1.0, "amin": float(AMIN), "top_db": self.top_db},
            "top_db_below": f"the largest value of the {of}",
            "in_words": (
                f"The power spectrogram of each {of} by periodic Hann windows of {self.n_fft} "
                f"samples, one every {self.hop_length} samples, the first centred on the first "
                f"sample; beyond its ends are zeros. {self.n_mels} triangular mel filters of equal "
                f"area (Slaney's scale and norm, not HTK's) from 0 to {self.sample_rate / 2:g} Hz. "
                f"10 log10 of the power, relative to 1, of at least {float(AMIN):g}; what is more "
                f"than {self.top_db:g} dB below the largest value of the {of} is raised to there."
            ),
        }

    def compute(self, track: "DecodedTrack") -> np.ndarray:
        """A track's chunks in order, float32 dB [chunks, bands, frames]."""
        return self.transform(track.chunks(self.sample_rate))

    def transform(self, samples: np.ndarray) -> np.ndarray:
        """Waveforms float32 [..., samples] -> dB [..., bands, 1 + samples // hop_length].

        Frames are centred. dB relative to 1 (librosa's `ref=1.0`, `amin=1e-10`), not below the
        loudest of its waveform minus `top_db`.
        """
        return self._of_frames(samples, self._decibel)

    def power(self, samples: np.ndarray) -> np.ndarray:
        """The same before the logarithm: the power in each band."""
        return self._of_frames(samples, self._power_in_blocks)

    def _of_frames(
        self, samples: np.ndarray, write: Callable[[np.ndarray, np.ndarray], None]
    ) -> np.ndarray:
        edge = [(0, 0)] * (samples.ndim - 1) + [(self.n_fft // 2, self.n_fft // 2)]
        padded = np.pad(samples.astype(np.float32, copy=False), edge)
        frames = sliding_window_view(padded, self.n_fft, axis=-1)[..., :: self.hop_length, :]
        *batch, count, _ = frames.shape
        mel = np.empty((*batch, self.n_mels, count), np.float32)
        for index in np.ndindex(*batch):  # one at a time, which stays in the cache
            write(frames[index], mel[index])
        return mel

    def _decibel(self, frames: np.ndarray, mel: np.ndarray) -> None:
        """Frames float32 [frames, n_fft] -> dB, written into `mel` [bands, frames]."""
        self._power_in_blocks(frames, mel)
        np.maximum(mel, AMIN, out=mel)
        np.log(mel, out=mel)  # in float32 faster than log10
        mel *= np.float32(10 / np.log(10))
        np.maximum(mel, mel.max() - np.float32(self.top_db), out=mel)

    def _power_in_blocks(self, frames: np.ndarray, mel: np.ndarray) -> None:
        for start in range(0, len(frames), _FRAMES_PER_BLOCK):
            block = slice(start, start + _FRAMES_PER_BLOCK)
            self._power(frames[block], mel[:, block])

    def _power(self, frames: np.ndarray, mel: np.ndarray) -> None:
        """Frames float32 [frames, n_fft] -> power, written into `mel` [bands, frames]."""
        import scipy.fft  # takes a third of a second, and commands refuse wrong options without it

        spectrum = scipy.fft.rfft(frames * _hann(self.n_fft))
        squares = spectrum.view(np.float32)  # [frames, 2 * bins]: real, imaginary, real, ...
        squares *= squares
        for bands, columns, filters in _mel_blocks(self.sample_rate, self.n_fft, self.n_mels):
            np.matmul(filters, squares[:, columns].T, out=mel[bands])


@cache
def _hann(n_fft: int) -> np.ndarray:
    """The periodic Hann window, float32 [n_fft]."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


@cache
def _mel_blocks(sample_rate: int, n_fft: int, n_mels: int) -> list[tuple[slice, slice, np.ndarray]]:
    """The filters, four bands at a time: the bands, the columns of `squares` they reach, weights.

    Each weight is there twice, for the square of the real and of the imaginary part.
    """
    filters = mel_filters(sample_rate, n_fft, n_mels)
    blocks = []
    for start in range(0, n_mels, _BANDS_PER_BLOCK):
        bands = slice(start, start + _BANDS_PER_BLOCK)
        bins = np.flatnonzero(filters[bands].any(axis=0))  # none where bands are narrower than bins
        first, end = (bins[0], bins[-1] + 1) if len(bins) else (0, 0)
        weights = np.repeat(filters[bands, first:end], 2, axis=1)
        blocks.append((bands, slice(2 * first, 2 * end), weights))
    return blocks


def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Triangular filters of equal area up to half the rate, float32 [n_mels, 1 + n_fft // 2].

    The same numbers as `librosa.filters.mel` (Slaney's scale and norm); computed here because the
    first call of librosa costs each worker two seconds.
    Source: M. Slaney, Auditory Toolbox, Interval Research technical report 1998-010.
    """
    bins = np.linspace(0, sample_rate / 2, 1 + n_fft // 2)
    edges = _mel_to_hz(np.linspace(_hz_to_mel(0.0), _hz_to_mel(sample_rate / 2), n_mels + 2))
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (upper - lower)).astype(np.float32)


# Slaney's scale is linear up to 1 kHz (15 mel) and logarithmic above: 27 mel for a factor of 6.4.
_LINEAR_HZ_PER_MEL = 200 / 3
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    if hz < 1000:
        return hz / _LINEAR_HZ_PER_MEL
    return float(15 + np.log(hz / 1000) / _LOG_STEP)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    logarithmic = 1000 * np.exp(_LOG_STEP * (mel - 15))
    return np.where(mel < 15, mel * _LINEAR_HZ_PER_MEL, logarithmic)


Feature = LogMel


def log_mel_of(chunk_seconds: float) -> LogMel:
    """The baseline's spectrogram for chunks of this length."""
    return LogMel(chunk_samples=round(chunk_seconds * 22_050))


def make(argument: str, chunk_seconds: float) -> LogMel:
    return log_mel_of(chunk_seconds)
