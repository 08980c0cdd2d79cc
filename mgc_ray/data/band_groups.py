"""Audio -> named groups of bands, stacked to chunks [bands, frames] of the same frames as `LogMel`.

Groups, in the order in which they are stacked, at `LogMel`'s rate, window, hop and chunk:

- log_mel (n_mels bands): what `LogMel` gives, dB.
- chroma (12, from C): power in the pitch classes, 1 = a frame's strongest. Each chunk by itself,
  but for the tuning: that is a recording's own, and a chunk of drums has none to find.
- contrast (7 octave bands, the first up to 200 Hz): peaks over valleys of the spectrum, dB. Each
  chunk by itself, as a frame needs no context.
- tempogram (32, from fast to slow): how alike the onsets around a frame and the same onsets a lag
  later are, at most 1. From the whole track: a frame looks at 8.9 s, three times a chunk. Lags are
  beats at 240 to 30 BPM in 32 equal ratios (11 an octave), of each the strongest lag within it, so
  that no beat falls between two.
- mfcc (20): cepstral coefficients of the chunk's log-mel, dB.

Computed by librosa, which is imported when a group other than log_mel is asked for. The samples
are `LogMel.waveforms`: "the whole track" is without the rest that fills no chunk, and a short track
repeated up to one.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.log_mel import Inspection, LogMel

CHROMA, CONTRAST, TEMPI, MFCC = 12, 7, 32, 20  # bands
SLOWEST, FASTEST = 30, 240  # BPM
_TUNING_SECONDS = 30  # of the middle of a track, which bounds time and memory
_TEMPO_SECONDS = 384 * 512 / 22050  # 8.9 s, librosa's window


def ordered_groups(groups: Sequence[str]) -> tuple[str, ...]:
    """The same names in the order of stacking, or RequestError: none, unknown or twice."""
    for name in groups:
        if name not in _GROUPS:
            raise RequestError(
                f"a group of features must be one of {', '.join(_GROUPS)}, but {name!r} is asked "
                "for: name one of these"
            )
    if not groups or len(set(groups)) < len(groups):
        raise RequestError(
            f"features must be one group or more, each once, but {list(groups)} are asked for: "
            f"name some of {', '.join(_GROUPS)}"
        )
    return tuple(name for name in _GROUPS if name in groups)


def import_librosa() -> ModuleType:
    """librosa, or RequestError where it is not installed."""
    try:
        import librosa
    except ImportError as error:
        raise RequestError(
            f"features other than log_mel are computed by librosa, but here: {error}. Install it "
            "(pip install 'librosa>=0.11', the extra [features] of this program), or ask for "
            "log_mel alone"
        ) from None
    return librosa


@dataclass(frozen=True)
class BandGroups:
    """Named groups of features of fixed-length chunks, stacked in one order whatever was named.

    Raises RequestError for names that are no groups, or twice the same.
    """

    names: tuple[str, ...]
    log_mel: LogMel = field(default_factory=LogMel)  # also the frames and chunks of the others

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", ordered_groups(self.names))

    @property
    def bands(self) -> int:
        return max(bands.stop for bands in self.groups.values())

    @property
    def frames(self) -> int:
        return self.log_mel.frames

    @property
    def dtype(self) -> np.dtype:
        return self.log_mel.dtype

    @property
    def groups(self) -> dict[str, slice]:
        """Which bands are whose, in their order."""
        groups, start = {}, 0
        for name in self.names:
            stop = start + (_GROUPS[name][0] or self.log_mel.bands)
            groups[name] = slice(start, stop)
            start = stop
        return groups

    def inspect(self, path: str | Path) -> Inspection:
        """Decode a track and see that it is usable, or raise UnusableTrackError."""
        return self.log_mel.inspect(path)

    def chunks(self, path: str | Path) -> np.ndarray:
        """A track's chunks in their order, float32 [chunks, bands, frames], units as above."""
        waveforms = self.log_mel.waveforms(path)
        stacked = np.empty((len(waveforms), self.bands, self.frames), self.dtype)
        for name, bands in self.groups.items():
            _GROUPS[name][1](waveforms, self.log_mel, stacked[:, bands])
        return stacked


def tempo_lags(log_mel: LogMel) -> np.ndarray:
    """Where the tempogram's bands begin and end, in frames of lag, int [TEMPI + 1]."""
    frames_per_minute = 60 * log_mel.sample_rate / log_mel.hop_length
    edges = np.geomspace(frames_per_minute / FASTEST, frames_per_minute / SLOWEST, TEMPI + 1)
    return np.rint(edges).astype(int)


# Each writes its bands of waveforms [chunks, samples] into `out` [chunks, bands, frames].


def _log_mel(waveforms: np.ndarray, log_mel: LogMel, out: np.ndarray) -> None:
    out[:] = log_mel.transform(waveforms)


def _chroma(waveforms: np.ndarray, log_mel: LogMel, out: np.ndarray) -> None:
    chroma_of = import_librosa().feature.chroma_stft
    tuning = _tuning(waveforms.reshape(-1), log_mel)
    for waveform, chroma in zip(waveforms, out, strict=True):
        power = _magnitude(waveform, log_mel) ** 2
        chroma[:] = chroma_of(
            S=power, sr=log_mel.sample_rate, tuning=tuning, n_chroma=CHROMA, n_fft=log_mel.n_fft
        )


def _contrast(waveforms: np.ndarray, log_mel: LogMel, out: np.ndarray) -> None:
    contrast_of = import_librosa().feature.spectral_contrast
    for waveform, contrast in zip(waveforms, out, strict=True):
        magnitude = _magnitude(waveform, log_mel)
        contrast[:] = contrast_of(S=magnitude, sr=log_mel.sample_rate, n_bands=CONTRAST - 1)


def _tempogram(waveforms: np.ndarray, log_mel: LogMel, out: np.ndarray) -> None:
    librosa = import_librosa()
    onsets = librosa.onset.onset_strength(
        S=log_mel.transform(waveforms.reshape(-1)),
        sr=log_mel.sample_rate,
        hop_length=log_mel.hop_length,
        n_fft=log_mel.n_fft,
    )
    window = round(_TEMPO_SECONDS * log_mel.sample_rate / log_mel.hop_length)
    onsets = np.pad(onsets, window // 2, mode="linear_ramp")
    lags = tempo_lags(log_mel)
    for i, tempi in enumerate(out):  # at once, all lags of ten minutes would take 0.6 GB
        start = i * log_mel.chunk_samples // log_mel.hop_length
        around = onsets[start : start + log_mel.frames + window - 1]
        alike = librosa.feature.tempogram(onset_envelope=around, win_length=window, center=False)
        tempi[:] = np.maximum.reduceat(alike[: lags[-1]], lags[:-1])


def _mfcc(waveforms: np.ndarray, log_mel: LogMel, out: np.ndarray) -> None:
    out[:] = import_librosa().feature.mfcc(S=log_mel.transform(waveforms), n_mfcc=MFCC)


# name -> how many bands (0: as many as log-mel has) and what computes them
_GROUPS: dict[str, tuple[int, Callable[[np.ndarray, LogMel, np.ndarray], None]]] = {
    "log_mel": (0, _log_mel),
    "chroma": (CHROMA, _chroma),
    "contrast": (CONTRAST, _contrast),
    "tempogram": (TEMPI, _tempogram),
    "mfcc": (MFCC, _mfcc),
}


def _magnitude(waveform: np.ndarray, log_mel: LogMel) -> np.ndarray:
    """The spectrum's magnitude, float32 [bins, frames]."""
    stft = import_librosa().stft
    return np.abs(stft(waveform, n_fft=log_mel.n_fft, hop_length=log_mel.hop_length))


def _tuning(track: np.ndarray, log_mel: LogMel) -> float:
    """How far a track's notes lie off 440 Hz, as a share of a semitone, -0.5 to 0.5."""
    length = _TUNING_SECONDS * log_mel.sample_rate
    start = max(0, (len(track) - length) // 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Trying to estimate tuning from empty")  # then it is 0
        return import_librosa().estimate_tuning(
            y=track[start : start + length],
            sr=log_mel.sample_rate,
            n_fft=log_mel.n_fft,
            hop_length=log_mel.hop_length,
        )
