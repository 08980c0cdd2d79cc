"""Tempogram: how alike the onsets around a frame and the same onsets a lag later are. By librosa.

32 bands of lags, from fast to slow: beats at 240 to 30 BPM in 32 equal ratios (11 per octave), in
each the strongest lag within it, so that no beat falls between two. Computed from the whole track,
as a frame looks at 8.9 s, three times a chunk; "the whole track" is without the rest that fills no
chunk, and a short track is repeated up to one.
"""

from typing import TYPE_CHECKING

import numpy as np

from mgc_ray.data.features._librosa import LibrosaFeature, import_librosa
from mgc_ray.data.features.log_mel import LogMel, log_mel_of
from mgc_ray.settings import Params, configuration

if TYPE_CHECKING:
    from mgc_ray.data.decoded import DecodedTrack

BANDS = 32
SLOWEST, FASTEST = 30, 240  # BPM
_WINDOW_SECONDS = 384 * 512 / 22050  # 8.9 s, librosa's window


@configuration
class Feature(LibrosaFeature):
    """float32 [32, frames], at most 1."""

    @property
    def bands(self) -> int:
        return BANDS

    def described(self) -> Params:
        log_mel = self.log_mel.described("track")
        return log_mel | {
            "kind": "tempogram",
            "window": self._window,
            "padding": "linear_ramp",
            "lags": lag_edges(self.log_mel).tolist(),
            "in_words": "librosa.onset.onset_strength of the log-mel spectrogram of all chunks one "
            f"after another, {self._window // 2} frames of a linear ramp to 0 added at both ends; "
            f"librosa.feature.tempogram over windows of {self._window} frames around each frame; "
            f"per band the largest value of its lags in frames. {log_mel['in_words']}",
        }

    @property
    def _window(self) -> int:
        """Frames."""
        return round(_WINDOW_SECONDS * self.log_mel.sample_rate / self.log_mel.hop_length)

    def compute(self, track: "DecodedTrack") -> np.ndarray:
        librosa = import_librosa()

        settings = self.log_mel
        chunks = track.chunks(settings.sample_rate)
        onsets = librosa.onset.onset_strength(
            S=settings.transform(chunks.reshape(-1)),
            sr=settings.sample_rate,
            hop_length=settings.hop_length,
            n_fft=settings.n_fft,
        )
        window = self._window
        onsets = np.pad(onsets, window // 2, mode="linear_ramp")
        lags = lag_edges(settings)
        tempi = np.empty((len(chunks), BANDS, self.frames), np.float32)
        for i, tempo in enumerate(tempi):  # all lags of ten minutes at once would take 0.6 GB
            start = i * settings.chunk_samples // settings.hop_length
            around = onsets[start : start + self.frames + window - 1]
            alike = librosa.feature.tempogram(
                onset_envelope=around, win_length=window, center=False
            )
            tempo[:] = np.maximum.reduceat(alike[: lags[-1]], lags[:-1])
        return tempi


def lag_edges(settings: LogMel) -> np.ndarray:
    """Where the bands begin and end, in frames of lag, int [BANDS + 1]."""
    frames_per_minute = 60 * settings.sample_rate / settings.hop_length
    edges = np.geomspace(frames_per_minute / FASTEST, frames_per_minute / SLOWEST, BANDS + 1)
    return np.rint(edges).astype(int)


def make(argument: str, chunk_seconds: float) -> Feature:
    return Feature(log_mel=log_mel_of(chunk_seconds))
