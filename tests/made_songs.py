"""Songs in the formats that FFmpeg decodes, encoded by PyAV."""

from pathlib import Path

import av
import numpy as np

# ending: encoder, sample rate, format where the ending does not say it
ENCODERS = {
    "m4a": ("aac", 44_100, "ipod"),
    "alac.m4a": ("alac", 44_100, "ipod"),
    "mp4": ("aac", 44_100, "mp4"),
    "mov": ("pcm_s16le", 44_100, "mov"),
    "aac": ("aac", 44_100, "adts"),
    "ac3": ("ac3", 44_100, "ac3"),
    "wma": ("wmav2", 44_100, "asf"),
    "webm": ("libopus", 48_000, "webm"),
    "mka": ("flac", 44_100, "matroska"),
    "wv": ("wavpack", 44_100, "wv"),
    "tta": ("tta", 44_100, "tta"),
}


def encode(path: Path, samples: np.ndarray, rate: int, encoder: str, format: str) -> Path:
    """Write float32 [samples, channels] at `rate` Hz."""
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with av.open(str(path), "w", format=format) as out:
        stream = out.add_stream(encoder, rate=rate)
        stream.layout = layout
        stream.bit_rate = 192_000
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.reshape(1, -1), np.float32), "flt", layout
        )
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        pieces = av.AudioFifo()
        for converted in resampler.resample(frame):
            pieces.write(converted)
        size = stream.frame_size or 1024
        while piece := pieces.read(size, partial=True):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path
