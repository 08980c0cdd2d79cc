"""Excerpts of songs that a page can carry with it."""

import base64
import io
from pathlib import Path

import numpy as np
import soundfile

from mgc_ray.data.decoding import UnusableTrackError, open_sound

_SECONDS = 10.0
_RATE = 22_050  # samples per second


def excerpt(path: Path | None) -> str | None:
    """The middle ten seconds of a file as MP3 in a data URI, mono; None where there is no audio."""
    if path is None:
        return None
    try:
        with open_sound(path) as file:
            frames = round(_SECONDS * file.samplerate)
            file.seek(max(0, (file.frames - frames) // 2))
            with np.errstate(over="ignore", invalid="ignore"):  # of corrupt samples
                samples = file.read(frames, dtype="float32", always_2d=True).mean(1)
            rate = file.samplerate
        if rate != _RATE:
            import soxr

            samples = soxr.resample(samples, rate, _RATE)
        if not len(samples) or not np.isfinite(samples).all():
            return None
        loudest = max(float(np.abs(samples).max()), 1.0)
        mp3 = io.BytesIO()
        soundfile.write(mp3, samples / loudest, _RATE, format="MP3", subtype="MPEG_LAYER_III")
    # soundfile's errors are RuntimeErrors
    except (OSError, RuntimeError, ValueError, UnusableTrackError):
        return None
    return f"data:audio/mpeg;base64,{base64.b64encode(mp3.getvalue()).decode()}"
