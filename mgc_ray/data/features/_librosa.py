"""What the features that librosa computes share: rate, window, hop and chunk of log_mel.

librosa takes seconds to import, so it is imported where something is computed.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.settings import Params, configuration, setting

if TYPE_CHECKING:
    from mgc_ray.data.features import DecodedTrack


@configuration
class LibrosaFeature:
    """Bands over the same frames as `log_mel`."""

    kind: ClassVar[str] = "spectrogram"
    pitched: ClassVar[bool] = False

    log_mel: LogMel = setting(LogMel(), "The spectrogram whose frames these are.")

    @property
    def frames(self) -> int:
        return self.log_mel.frames

    @property
    def dtype(self) -> np.dtype:
        return self.log_mel.dtype

    def _described(self, kind: str, in_words: str, **more: Any) -> Params:
        spectrum = self.log_mel.described()
        return {
            "kind": kind,
            "sample_rate": spectrum["sample_rate"],
            "stft": spectrum["stft"],
            "window_is": spectrum["window_is"],
            **more,
            "in_words": in_words,
        }

    def magnitude(self, track: "DecodedTrack") -> np.ndarray:
        """The spectrum's magnitude, float32 [chunks, bins, frames]."""
        return track.once(("magnitude", self.log_mel), lambda: self._magnitude(track))

    def _magnitude(self, track: "DecodedTrack") -> np.ndarray:
        import librosa

        n_fft, hop_length = self.log_mel.n_fft, self.log_mel.hop_length
        chunks = track.chunks(self.log_mel.sample_rate)
        return np.stack(
            [np.abs(librosa.stft(chunk, n_fft=n_fft, hop_length=hop_length)) for chunk in chunks]
        )
