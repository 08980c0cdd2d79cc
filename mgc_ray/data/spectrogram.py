"""Tracks -> chunks: spectrograms [bands, frames] of equal size, many to a track.

Two kinds of features share one interface (`bands`, `frames`, `dtype`, `inspect`, `chunks`):

- `LogMel`: audio -> dB log-mel float32, equal to librosa's `power_to_db(melspectrogram(...))`
  within 1e-3 dB (a few of 10^8 values a little more: rounding shows 80 dB below loud tones), in a
  quarter of its time (float32 FFT; mel filters a few bands at a time, as 98 % of them is zero; no
  fresh memory). In batches on a GPU: `spectrogram_torch`.
- `Precomputed`: `.npy` spectrograms [bands, frames], cut into equal pieces.

Neither needs librosa or torch, so a preprocessing worker starts in a fraction of a second.
"""

import hashlib
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError, Waveform, check_openable, read_waveform

# glibc gives large freed arrays back to the system, and fresh pages for the next ones cost a third
# of a track's time. Freeing one array of this size, never touched, makes it keep them for good.
np.empty(31 << 20, np.uint8)

AMIN = np.float32(1e-10)  # power below which the logarithm is not taken, librosa's
_BANDS_PER_BLOCK = 4  # of the mel product: measured, 2 and 8 are slower


@dataclass(frozen=True)
class Inspection:
    """What is known of a usable track before it is cut: its length and the hash of its content."""

    seconds: float  # NaN for precomputed spectrograms, whose frame rate is not known
    chunks: int
    content_hash: str


@dataclass(frozen=True)
class LogMel:
    """dB log-mel spectrograms of fixed-length chunks; the defaults are the published baseline's.

    A track gives as many whole chunks as fit (ten in 30 s), a shorter one is repeated up to one.
    """

    sample_rate: int = 22050  # Hz
    n_fft: int = 1024  # samples
    hop_length: int = 256  # samples
    n_mels: int = 128
    chunk_samples: int = 66_000  # samples, 2.99 s
    top_db: float = 80.0  # what lies further below a chunk's loudest value is raised to there

    @property
    def bands(self) -> int:
        return self.n_mels

    @property
    def frames(self) -> int:
        return 1 + self.chunk_samples // self.hop_length

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def inspect(self, path: str | Path) -> Inspection:
        """Decode a track and see that it is usable, or raise UnusableTrackError."""
        waveform = read_waveform(path)
        return Inspection(waveform.seconds, self._count(waveform), waveform.content_hash())

    def chunks(self, path: str | Path) -> np.ndarray:
        """A track's chunks in their order, float32 dB [chunks, bands, frames]."""
        return self.transform(self.waveforms(path))

    def waveforms(self, path: str | Path) -> np.ndarray:
        """What `chunks` transforms: a track cut into chunks, float32 [chunks, samples]."""
        waveform = read_waveform(path)
        count = self._count(waveform)
        samples = waveform.resampled(self.sample_rate)
        length = count * self.chunk_samples
        if len(samples) < length:  # a short track, or one sample that resampling rounded away
            samples = np.resize(samples, length)
        return samples[:length].reshape(count, self.chunk_samples)

    def _count(self, waveform: Waveform) -> int:
        samples = int(len(waveform.samples) * self.sample_rate / waveform.sample_rate)
        if samples < self.n_fft:
            raise UnusableTrackError(
                f"{waveform.seconds:.3f} s is shorter than one FFT window "
                f"({self.n_fft} samples at {self.sample_rate} Hz)"
            )
        return max(1, samples // self.chunk_samples)

    def transform(self, samples: np.ndarray) -> np.ndarray:
        """Waveforms float32 [..., samples] -> dB [..., bands, 1 + samples // hop_length].

        Frames are centred. dB relative to 1 (librosa's `ref=1.0`, `amin=1e-10`), not below the
        loudest of its waveform minus `top_db`.
        """
        edge = [(0, 0)] * (samples.ndim - 1) + [(self.n_fft // 2, self.n_fft // 2)]
        padded = np.pad(samples.astype(np.float32, copy=False), edge)
        frames = sliding_window_view(padded, self.n_fft, axis=-1)[..., :: self.hop_length, :]
        *batch, count, _ = frames.shape
        decibel = np.empty((*batch, self.n_mels, count), np.float32)
        for index in np.ndindex(*batch):  # one at a time, which stays in the cache
            self._decibel(frames[index], decibel[index])
        return decibel

    def _decibel(self, frames: np.ndarray, mel: np.ndarray) -> None:
        """Frames float32 [frames, n_fft] -> dB, written into `mel` [bands, frames]."""
        spectrum = scipy.fft.rfft(frames * _hann(self.n_fft))
        squares = spectrum.view(np.float32)  # [frames, 2 * bins]: real, imaginary, real, ...
        squares *= squares
        for bands, columns, filters in _mel_blocks(self.sample_rate, self.n_fft, self.n_mels):
            np.matmul(filters, squares[:, columns].T, out=mel[bands])
        np.maximum(mel, AMIN, out=mel)
        np.log(mel, out=mel)  # in float32 faster than log10
        mel *= np.float32(10 / np.log(10))
        np.maximum(mel, mel.max() - np.float32(self.top_db), out=mel)


@dataclass(frozen=True)
class Precomputed:
    """Spectrograms made elsewhere, `.npy` [bands, frames], cut into pieces of `frames` frames.

    Values stay as they are (`value_type`: "uint8" or "float32"): training standardises each band.
    A track shorter than a piece is repeated up to it.
    """

    bands: int
    frames: int
    value_type: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.value_type)

    def inspect(self, path: str | Path) -> Inspection:
        """Read an array and see that it is usable, or raise UnusableTrackError."""
        array = read_array(path)
        if array.shape[0] != self.bands:
            raise UnusableTrackError(
                f"has {array.shape[0]} bands, but most arrays of this table have {self.bands}"
            )
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return Inspection(float("nan"), self._count(array), digest)

    def chunks(self, path: str | Path) -> np.ndarray:
        """A track's chunks in their order, [chunks, bands, frames] of `value_type`."""
        array = read_array(path)
        count = self._count(array)
        repeated = np.tile(array, -(-self.frames // array.shape[1]))[:, : count * self.frames]
        pieces = repeated.reshape(self.bands, count, self.frames).swapaxes(0, 1)
        return np.ascontiguousarray(pieces, dtype=self.dtype)

    def _count(self, array: np.ndarray) -> int:
        return max(1, array.shape[1] // self.frames)


Features = LogMel | Precomputed


def read_array(path: str | Path) -> np.ndarray:
    """A `.npy` spectrogram [bands, frames], uint8 or a real type, or raise UnusableTrackError."""
    if not str(path).lower().endswith(".npy"):
        raise UnusableTrackError("not a .npy spectrogram, which this dataset or model is made of")
    check_openable(path)
    try:
        with open(path, "rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    # a damaged header also ends in SyntaxError, TokenError, OverflowError, ...
    except Exception as error:
        raise UnusableTrackError(f"no .npy array, or corrupt: {error}") from None
    if array.ndim != 2 or 0 in array.shape:
        raise UnusableTrackError(f"not a 2-D array [bands, frames] but {array.shape}")
    if array.dtype.kind not in "uif":
        raise UnusableTrackError(f"holds {array.dtype}, not numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UnusableTrackError("holds NaN or infinity")
    if max(-float(array.min()), float(array.max())) > float(np.finfo(np.float32).max):
        raise UnusableTrackError("holds values beyond float32")
    if array.min() == array.max():
        raise UnusableTrackError(f"silent: every value is {array.flat[0]}")
    return array


def features_to_json(features: Features) -> dict[str, Any]:
    """Settings as plain JSON values; `features_from_json` takes them back."""
    return {"kind": "log_mel" if isinstance(features, LogMel) else "precomputed"} | asdict(features)


def features_from_json(settings: dict[str, Any]) -> Features:
    """The features that `features_to_json` described."""
    kinds = {"log_mel": LogMel, "precomputed": Precomputed}
    fields = dict(settings) if isinstance(settings, dict) else {}
    kind = fields.pop("kind", None)
    if kind not in kinds:
        raise RequestError(
            f"features must be one of {sorted(kinds)}, but the settings say {kind!r}: "
            "they were written by another version of this program"
        )
    try:
        return kinds[kind](**fields)
    except TypeError as error:
        raise RequestError(f"the settings of {kind} features do not fit: {error}") from None


@cache
def _hann(n_fft: int) -> np.ndarray:
    """The periodic Hann window, float32 [n_fft]."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


@cache
def _mel_blocks(sample_rate: int, n_fft: int, n_mels: int) -> list[tuple[slice, slice, np.ndarray]]:
    """The filters, four bands at a time: the bands, the columns of `squares` they reach, weights.

    Each weight stands twice, for the square of the real and of the imaginary part.
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
