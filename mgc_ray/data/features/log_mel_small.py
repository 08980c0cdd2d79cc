"""dB log-mel spectrograms of half the bands and half the frame rate of `log_mel`.

A quarter of the values, so networks train in about a third of the time; what they lose is detail in
pitch and rhythm. The search without --tracks takes it, to end within minutes.
"""

from mgc_ray.data.features.log_mel import LogMel, log_mel_of
from mgc_ray.settings import configuration, setting


@configuration
class Feature(LogMel):
    """float32 [n_mels, 1 + chunk_samples // hop_length], dB."""

    hop_length: int = setting(512, "Samples from frame to frame.", ge=1, le=10_000_000)
    n_mels: int = setting(64, "Mel bands.", ge=1, le=10_000_000)


def make(argument: str, chunk_seconds: float) -> Feature:
    return Feature(chunk_samples=log_mel_of(chunk_seconds).chunk_samples)
