"""Audio files -> mono waveforms, and the reasons why a file cannot be a track.

A waveform is float32 [samples], mono, within about -1..1. Decoding is libsndfile's (WAV, AU, FLAC,
MP3, OGG, AIFF, ...), resampling is soxr's "HQ", which is also librosa's default.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

SILENCE = 1e-4  # peak-to-peak amplitude, -80 dB of full scale: less is the noise floor of 14 bits
LOUDEST = 1e6  # the same; what integers written as floating point can reach, and no more
SAMPLE_RATES = range(1_000, 768_001)  # Hz; outside of it a header is wrong rather than unusual
_BLOCK = 1 << 25  # values decoded at a time, 128 MiB: bounds memory, and few MP3s are in pieces


class UnusableTrackError(Exception):
    """This file cannot be a track; the message is the reason, as written to `skipped.csv`."""


@dataclass(frozen=True)
class Waveform:
    """Mono samples, float32 [samples], at `sample_rate` Hz."""

    samples: np.ndarray
    sample_rate: int

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

    Raises UnusableTrackError where the file is missing, cannot be opened, is not audio, is corrupt,
    silent, or holds NaN or infinity.
    """
    if str(path).lower().endswith(".npy"):
        raise UnusableTrackError("a .npy spectrogram, but this dataset or model takes audio")
    check_openable(path)
    try:
        # as bytes: the name may not be UTF-8
        with soundfile.SoundFile(os.fsencode(path)) as file:
            if file.samplerate not in SAMPLE_RATES:
                raise UnusableTrackError(
                    f"sample rate {file.samplerate} Hz is outside "
                    f"{SAMPLE_RATES.start} to {SAMPLE_RATES.stop - 1} Hz"
                )
            sample_rate = file.samplerate
            # libsndfile's own conversion of these to float takes as long as everything else
            dtype = "int16" if file.subtype == "PCM_16" else "float32"
            blocks = []
            while True:
                block = file.read(max(1, _BLOCK // file.channels), dtype, always_2d=True)
                if not len(block):
                    break
                blocks.append(_mono(block))
    # TypeError: libsndfile takes a name ending in .raw for headerless audio and asks for its format
    except (soundfile.LibsndfileError, TypeError) as error:
        raise UnusableTrackError(f"not audio, or corrupt: {_reason(error)}") from None
    if not blocks:
        raise UnusableTrackError("holds no samples")
    samples = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
    low, high = samples.min(), samples.max()  # NaN where there is any
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnusableTrackError("holds NaN or infinity")
    if high - low > LOUDEST:
        raise UnusableTrackError(f"corrupt: peak to peak {high - low:.1e} of full scale")
    if high - low < SILENCE:
        raise UnusableTrackError(f"silent: peak to peak {high - low:.1e} of full scale")
    return Waveform(samples, sample_rate)


def _mono(block: np.ndarray) -> np.ndarray:
    """Average the channels of int16 or float32 [samples, channels] -> float32 [samples]."""
    # channel by channel: numpy's mean over so short an axis takes thirty times as long
    mono = block[:, 0].astype(np.float32, copy=block.shape[1] > 1)
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # of corrupt samples, which are reported later
        for channel in range(1, block.shape[1]):
            mono += block[:, channel]
    scale = 32768 if block.dtype == np.int16 else 1
    if block.shape[1] * scale > 1:
        mono /= np.float32(block.shape[1] * scale)
    return mono


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


def _reason(error: Exception) -> str:
    """libsndfile's own words, without the path that every such message starts with."""
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    # of text named .mp3, which check_openable has just opened
    return "Format not recognised" if reason.startswith("File does not exist") else reason


def keep_freed_memory() -> None:
    """Make glibc keep large freed arrays, in a process that computes features.

    It gives them back to the system, and fresh pages for the next ones cost a third of a track's
    time. Freeing one array of this size, never touched, makes it keep them for good.
    """
    np.empty(31 << 20, np.uint8)
