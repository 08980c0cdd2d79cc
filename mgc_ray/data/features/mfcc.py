"""MFCC: 20 cepstral coefficients of each chunk's log-mel spectrogram, dB. By librosa."""

from typing import TYPE_CHECKING

import numpy as np

from mgc_ray.data.features._librosa import LibrosaFeature, import_librosa
from mgc_ray.data.features.log_mel import log_mel_of
from mgc_ray.settings import Params, configuration

if TYPE_CHECKING:
    from mgc_ray.data.decoded import DecodedTrack


@configuration
class Feature(LibrosaFeature):
    """float32 [20, frames], dB."""

    @property
    def bands(self) -> int:
        return 20

    def described(self) -> Params:
        log_mel = self.log_mel.described()
        return log_mel | {
            "kind": "mfcc",
            "mfcc": {"n_mfcc": self.bands, "dct_type": 2, "norm": "ortho", "lifter": 0},
            "in_words": f"The first {self.bands} coefficients of the orthonormal DCT-II over the "
            f"bands of a log-mel spectrogram in dB. {log_mel['in_words']}",
        }

    def compute(self, track: "DecodedTrack") -> np.ndarray:
        librosa = import_librosa()

        log_mel = track.once(self.log_mel, lambda: self.log_mel.compute(track))
        coefficients: np.ndarray = librosa.feature.mfcc(S=log_mel, n_mfcc=self.bands)
        return coefficients.astype(np.float32, copy=False)


def make(argument: str, chunk_seconds: float) -> Feature:
    return Feature(log_mel=log_mel_of(chunk_seconds))
