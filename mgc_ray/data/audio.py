"""Audio files -> mono waveforms, and the reasons why a file cannot be a track.

A waveform is float32 [samples], mono, within about -1..1. Decoding is libsndfile's (WAV, AU, FLAC,
MP3, OGG, AIFF, ...) or FFmpeg's (M4A, WMA, WebM, APE, ...), resampling is soxr's "HQ", which is
also librosa's default.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from mgc_ray.data.decoding import UnusableTrackError, decode
from mgc_ray.data.ffmpeg import decode_by_ffmpeg, format_of

__all__ = ["UnusableTrackError", "Waveform", "read_waveform"]

SILENCE = 1e-4  # peak-to-peak amplitude, -80 dB of full scale: less is the noise floor of 14 bits
LOUDEST = 1e6  # the same; what integers written as floating point can reach, and no more
NEGLIGIBLE = 0.1  # seconds that a file may be shorter than it states


@dataclass(frozen=True)
class Waveform:
    """Mono samples, float32 [samples], at `sample_rate` Hz."""

    samples: np.ndarray
    sample_rate: int
    lost_seconds: float = 0.0  # that the file should have, but are damaged, missing or too many
    codec: str = ""  # of the file, e.g. WAV PCM_16
    channels: int = 1  # of the file

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate

    def content_hash(self) -> str:
        """The same for the same decoded audio, whatever the name, tags or lossless format."""
        digest = hashlib.sha256(f"{self.sample_rate} {len(self.samples)}".encode())
        # every fourth sample tells recordings apart as well, in a quarter of the time
        digest.update(np.ascontiguousarray(self.samples[::4]).data)
        return digest.hexdigest()

    def resampled(self, sample_rate: int) -> np.ndarray:
        """The samples at another rate, float32."""
        if sample_rate == self.sample_rate:
            return self.samples
        return soxr.resample(self.samples, self.sample_rate, sample_rate, quality="HQ")


def read_waveform(path: str | Path) -> Waveform:
    """Decode a file at its own sample rate and average its channels.

    Where a file is damaged, what is before and after the damage is used; of a long one the
    beginning (see `LONGEST`). Raises UnusableTrackError
    where the file is missing, cannot be opened, is not audio, is corrupt (less than half can be
    decoded), silent, or holds NaN or infinity.
    """
    if str(path).lower().endswith(".npy"):
        raise UnusableTrackError("a .npy spectrogram, but this dataset or model takes audio")
    check_openable(path)
    sys.audit("mgc_ray.decode", str(path))  # for whoever counts
    try:
        format = format_of(path)
        decoded = decode_by_ffmpeg(path, format) if format else decode(path)
    except soundfile.LibsndfileError as error:
        raise UnusableTrackError(_not_audio(error)) from None
    blocks, sample_rate, stated, most, codec, channels = decoded
    samples = _joined(blocks)
    lost = max(0, stated - len(samples)) / sample_rate
    promised = min(stated, most)
    if 2 * len(samples) < promised:
        raise UnusableTrackError(
            f"corrupt: {len(samples) / sample_rate:.1f} of {promised / sample_rate:.1f} s can be "
            "decoded"
        )
    if not len(samples):
        raise UnusableTrackError("holds no samples")
    low, high = samples.min(), samples.max()  # NaN where there is any
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnusableTrackError("holds NaN or infinity")
    if high - low > LOUDEST:
        raise UnusableTrackError(f"corrupt: peak to peak {high - low:.1e} of full scale")
    if high - low < SILENCE:
        raise UnusableTrackError(f"silent: peak to peak {high - low:.1e} of full scale")
    lost = lost if lost > NEGLIGIBLE else 0.0
    return Waveform(samples, sample_rate, lost, codec, channels)


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    """All blocks together; the list is emptied, so that few of them are there twice."""
    if len(blocks) < 2:
        return blocks[0] if blocks else np.zeros(0, np.float32)
    samples, position = np.empty(sum(map(len, blocks)), np.float32), 0
    while blocks:
        block = blocks.pop(0)
        samples[position : position + len(block)] = block
        position += len(block)
    return samples


def check_openable(path: str | Path) -> None:
    """Raise UnusableTrackError where a path is not a file that this user may read."""
    try:
        if not Path(path).is_file():
            raise UnusableTrackError("not a file" if Path(path).exists() else "no such file")
        with open(path, "rb") as file:
            if not file.read(1):
                raise UnusableTrackError("empty file")
    except PermissionError:
        raise UnusableTrackError("no permission to read it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UnusableTrackError(f"cannot be opened: {error}") from None


def _not_audio(error: Exception) -> str:
    """Why libsndfile cannot open a file, without the path that its messages start with."""
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    # of text named .mp3, which check_openable has just opened
    reason = "Format not recognised" if reason.startswith("File does not exist") else reason
    return f"not audio, or corrupt: {reason}"


def keep_freed_memory() -> None:
    """Make glibc keep large freed arrays, in a process that computes features.

    It gives them back to the system, and fresh pages for the next ones cost a third of a track's
    time. Freeing one array of this size, never touched, makes it keep them for good.
    """
    np.empty(31 << 20, np.uint8)
