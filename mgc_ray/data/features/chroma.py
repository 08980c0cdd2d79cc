"""Chroma: power in the 12 pitch classes from C, 1 = the strongest of a frame. By librosa.

Each chunk is computed by itself, but for the tuning, which is a recording's own: a chunk of drums
has none to find.
"""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from mgc_ray.data.features._librosa import LibrosaFeature, import_librosa
from mgc_ray.data.features.log_mel import log_mel_of
from mgc_ray.settings import Params, configuration

if TYPE_CHECKING:
    from mgc_ray.data.decoded import DecodedTrack

_TUNING_SECONDS = 30  # of the middle of a track, which bounds time and memory


@configuration
class Feature(LibrosaFeature):
    """float32 [12, frames], 0..1."""

    @property
    def bands(self) -> int:
        return 12

    def described(self) -> Params:
        return self._described(
            "chroma",
            "librosa.feature.chroma_stft of each chunk's power spectrogram, with the tuning that "
            "librosa.estimate_tuning finds in the middle of the chunks one after another.",
            chroma={"n_chroma": self.bands, "ctroct": 5.0, "octwidth": 2.0, "base_c": True},
            norm="largest value of a frame",
            tuning={"resolution": 0.01, "bins_per_octave": 12},
            tuning_seconds=_TUNING_SECONDS,
        )

    def compute(self, track: "DecodedTrack") -> np.ndarray:
        librosa = import_librosa()

        settings = self.log_mel
        tuning = self._tuning(track.chunks(settings.sample_rate).reshape(-1))
        return np.stack(
            [
                librosa.feature.chroma_stft(
                    S=magnitude**2,
                    sr=settings.sample_rate,
                    tuning=tuning,
                    n_chroma=self.bands,
                    n_fft=settings.n_fft,
                )
                for magnitude in self.magnitude(track)
            ]
        ).astype(np.float32, copy=False)

    def _tuning(self, samples: np.ndarray) -> float:
        """How far a track's notes are from 440 Hz, as a share of a semitone, -0.5 to 0.5."""
        librosa = import_librosa()

        settings = self.log_mel
        length = _TUNING_SECONDS * settings.sample_rate
        start = max(0, (len(samples) - length) // 2)
        with warnings.catch_warnings():
            # of a track without notes, whose tuning is 0
            warnings.filterwarnings("ignore", "Trying to estimate tuning from empty")
            tuning: float = librosa.estimate_tuning(
                y=samples[start : start + length],
                sr=settings.sample_rate,
                n_fft=settings.n_fft,
                hop_length=settings.hop_length,
            )
        return tuning


def make(argument: str, chunk_seconds: float) -> Feature:
    return Feature(log_mel=log_mel_of(chunk_seconds))
