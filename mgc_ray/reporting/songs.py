"""Excerpts of songs that a page can carry with it."""

import base64
import io
import os
from pathlib import Path

import numpy as np
import soundfile

_SECONDS = 10.0
_RATE = 22_050  # samples a second


def excerpt(path: Path) -> str | None:
    """The middle ten seconds of a file as MP3 in a data URI, mono; None where it is no audio."""
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            wanted = round(_SECONDS * file.samplerate)
            file.seek(max(0, (file.frames - wanted) // 2))
            samples = file.read(wanted, dtype="float32", always_2d=True).mean(1)
            rate = file.samplerate
        if rate != _RATE:
            import soxr

            samples = soxr.resample(samples, rate, _RATE)
        if not len(samples) or not np.isfinite(samples).all():
            return None
        packed = io.BytesIO()
        loudest = max(float(np.abs(samples).max()), 1.0)
        soundfile.write(packed, samples / loudest, _RATE, format="MP3", subtype="MPEG_LAYER_III")
    except (OSError, RuntimeError, ValueError):  # soundfile's errors are RuntimeErrors
        return None
    return f"data:audio/mpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
