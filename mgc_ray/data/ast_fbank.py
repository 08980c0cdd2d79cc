"""Audio -> the log-mel energies that an Audio Spectrogram Transformer (AST) learnt from.

16 kHz mono, Kaldi's fbank: windows of 25 ms, 10 ms apart and none beyond the ends; each without its
mean, pre-emphasised by 0.97, under a symmetric Hann window; power in triangles that are equally
wide in mel from 20 Hz to 8 kHz; natural logarithm, at least log(2^-23) = -15.9.

The values are those of transformers' ASTFeatureExtractor with `do_normalize` off within 1e-5 (its
own way; where torchaudio is installed, it takes that, which rounds differently): what it subtracts
and divides by is up to the classifier. Written in NumPy as that takes a seventh of its time (6 ms
for 10 s), and no worker of preprocessing needs torch and transformers, which take 6 s to import.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from mgc_ray import RequestError
from mgc_ray.data.audio import read_waveform
from mgc_ray.data.hugging_face import read_pretrained
from mgc_ray.data.log_mel import Inspection, LogMel

SAMPLE_RATE = 16_000  # Hz
HOP = 160  # samples, 10 ms
_WINDOW = 400  # samples, 25 ms
_N_FFT = 512
_PREEMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = np.finfo(np.float32).eps  # power below which the logarithm is not taken
_FRAMES_PER_BLOCK = 256  # measured: 128 and 512 are slower
_SAMPLES = LogMel(SAMPLE_RATE, _WINDOW, HOP)  # the rate, and the shortest track, of `waveform`


@dataclass(frozen=True)
class AstFbank:
    """Chunks of `frames` frames, 10 ms apart: as many as the model knows positions for.

    A track gives as many whole chunks as fit. What is left at its end, if half a chunk or more,
    gives another one, which ends with the track and so begins in the one before: three chunks of
    10.24 s in 30 s, where the last would else be lost. A track shorter than a chunk is repeated up
    to one.
    """

    bands: int = 128
    frames: int = 1024

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    @property
    def groups(self) -> dict[str, slice]:
        """Which bands belong together."""
        return {"fbank": slice(0, self.bands)}

    def inspect(self, path: str | Path) -> Inspection:
        """Decode a track and see that it is usable, or raise UnusableTrackError."""
        waveform = read_waveform(path)
        starts = self._starts(_frame_count(_SAMPLES.sample_count(waveform)))
        return Inspection(waveform.seconds, len(starts), waveform.content_hash())

    def chunks(self, path: str | Path) -> np.ndarray:
        """A track's chunks in their order, float32 [chunks, bands, frames]."""
        waveform = read_waveform(path)
        length = max(_SAMPLES.sample_count(waveform), (self.frames - 1) * HOP + _WINDOW)
        energies = self.transform(_SAMPLES.fitted(waveform, length))
        starts = self._starts(energies.shape[1])
        return np.stack([energies[:, start : start + self.frames] for start in starts])

    def transform(self, samples: np.ndarray) -> np.ndarray:
        """A waveform float32 [samples] at 16 kHz -> float32 [bands, 1 + (samples - 400) // 160]."""
        frames = sliding_window_view(samples, _WINDOW)[::HOP]
        energies = np.empty((self.bands, len(frames)), np.float32)
        for start in range(0, len(frames), _FRAMES_PER_BLOCK):
            block = slice(start, start + _FRAMES_PER_BLOCK)
            np.matmul(_filters(self.bands), _power(frames[block]).T, out=energies[:, block])
        np.maximum(energies, _FLOOR, out=energies)
        return np.log(energies, out=energies)

    def _starts(self, frames: int) -> list[int]:
        """The first frame of each chunk of a track of so many frames."""
        whole, left = divmod(frames, self.frames)
        starts = [chunk * self.frames for chunk in range(max(1, whole))]
        return [*starts, frames - self.frames] if whole and 2 * left >= self.frames else starts


def ast_features(model: str | Path) -> AstFbank:
    """The features that an AST expects, from its folder's or hub entry's preprocessor_config.json.

    Raises RequestError where transformers is not installed and for a model that is not to be read,
    is no AST, or takes another sample rate.
    """
    extractor = read_extractor(model)
    return AstFbank(extractor.num_mel_bins, extractor.max_length)


def read_extractor(model: str | Path) -> Any:
    """The ASTFeatureExtractor of a model, or RequestError as `ast_features`."""
    with warnings.catch_warnings():
        # 128 bands are narrower than the FFT's bins at the low end, and AST was trained like that
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        extractor = read_pretrained("ASTFeatureExtractor", model)
    if extractor.sampling_rate != SAMPLE_RATE:
        raise RequestError(
            f"an Audio Spectrogram Transformer must take {SAMPLE_RATE} Hz, but {model} takes "
            f"{extractor.sampling_rate} Hz: name another one"
        )
    return extractor


def _frame_count(samples: int) -> int:
    return 1 + (samples - _WINDOW) // HOP


def _power(frames: np.ndarray) -> np.ndarray:
    """Windows float32 [frames, 400] -> power, float32 [frames, 257]."""
    x = frames.astype(np.float64)  # in float32, rounding would show beside loud tones
    x -= x.mean(axis=1, keepdims=True)
    x[:, 1:] -= _PREEMPHASIS * x[:, :-1]
    x[:, 0] *= 1 - _PREEMPHASIS
    x *= np.hanning(_WINDOW)
    squares = scipy.fft.rfft(x, _N_FFT).view(np.float64)  # real, imaginary, real, ...
    squares *= squares
    return (squares[:, ::2] + squares[:, 1::2]).astype(np.float32)


@cache
def _filters(bands: int) -> np.ndarray:
    """Triangles of height 1 that are equally wide in mel, float32 [bands, 257]."""
    edges = np.linspace(_mel(np.array(_LOWEST_HZ)), _mel(np.array(SAMPLE_RATE / 2)), bands + 2)
    bins = _mel(np.arange(1 + _N_FFT // 2) * (SAMPLE_RATE / _N_FFT))
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def _mel(hz: np.ndarray) -> np.ndarray:
    """Kaldi's scale: 1000 mel at 1 kHz, logarithmic in Hz + 700."""
    return 1127 * np.log1p(hz / 700)
