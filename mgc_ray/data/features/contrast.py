"""Spectral contrast: peaks over valleys of the spectrum in 7 octave bands, dB. By librosa.

The first band reaches up to 200 Hz. Each chunk is computed by itself, as a frame needs no context.
"""

from typing import TYPE_CHECKING

import numpy as np

from mgc_ray.data.features._librosa import LibrosaFeature, import_librosa
from mgc_ray.data.features.log_mel import log_mel_of
from mgc_ray.settings import Params, configuration

if TYPE_CHECKING:
    from mgc_ray.data.decoded import DecodedTrack


@configuration
class Feature(LibrosaFeature):
    """float32 [7, frames], dB."""

    @property
    def bands(self) -> int:
        return 7

    def described(self) -> Params:
        return self._described(
            "contrast",
            "librosa.feature.spectral_contrast of each chunk's magnitude spectrogram: peaks over "
            "valleys, in dB.",
            contrast={"n_bands": self.bands - 1, "fmin": 200.0, "quantile": 0.02, "linear": False},
        )

    def compute(self, track: "DecodedTrack") -> np.ndarray:
        librosa = import_librosa()

        rate = self.log_mel.sample_rate
        return np.stack(
            [
                librosa.feature.spectral_contrast(S=magnitude, sr=rate, n_bands=self.bands - 1)
                for magnitude in self.magnitude(track)
            ]
        ).astype(np.float32, copy=False)


def make(argument: str, chunk_seconds: float) -> Feature:
    return Feature(log_mel=log_mel_of(chunk_seconds))
