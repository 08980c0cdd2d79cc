"""Excerpts of songs that a page can carry with it."""

import base64
import io
from pathlib import Path

import numpy as np
import soundfile

from mgc_ray.data.audio import UnusableTrackError, read_waveform

_SECONDS = 10.0
_RATE = 22_050  # samples per second


def excerpt(path: Path | None, content_hash: str) -> str | None:
    """The middle ten seconds of a file as MP3 in a data URI, mono; None where there is no audio.

    Also None where the file is not the one of this hash: it has changed, or the dataset is a
    stranger's and names a file of this machine, which must not get into a page to be passed on.
    """
    if path is None:
        return None
    try:
        waveform = read_waveform(path)
        if waveform.content_hash() != content_hash:
            return None
        rate, length = waveform.sample_rate, round(_SECONDS * waveform.sample_rate)
        start = max(0, (len(waveform.samples) - length) // 2)
        samples = waveform.samples[start : start + length]
        if rate != _RATE:
            import soxr

            samples = soxr.resample(samples, rate, _RATE)
        loudest = max(float(np.abs(samples).max()), 1.0)
        mp3 = io.BytesIO()
        soundfile.write(mp3, samples / loudest, _RATE, format="MP3", subtype="MPEG_LAYER_III")
    # soundfile's errors are RuntimeErrors
    except (OSError, RuntimeError, ValueError, UnusableTrackError):
        return None
    return f"data:audio/mpeg;base64,{base64.b64encode(mp3.getvalue()).decode()}"
