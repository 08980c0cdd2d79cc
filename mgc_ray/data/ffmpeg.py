"""Decoding by FFmpeg, which PyAV brings, of what libsndfile does not read: M4A, WMA, WebM, APE, ...

A stranger's file chooses neither the program that reads it nor what else is opened: the format is
known by the first bytes of the file, FFmpeg is given the open file instead of a name, and formats
that name other files or addresses (playlists) are not among them. PyAV turns its notes off.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from mgc_ray.data.decoding import (
    LONGEST,
    MOST_SAMPLES,
    SAMPLE_RATES,
    Decoded,
    UnusableTrackError,
    mono,
)

if TYPE_CHECKING:
    import av

# FFmpeg's name of a format, and what its files have at which place
_SIGNATURES: tuple[tuple[str, int, bytes], ...] = (
    ("mov", 4, b"ftyp"),  # M4A, MP4, ALAC, QuickTime
    ("mov", 4, b"moov"),
    ("asf", 0, bytes.fromhex("3026b2758e66cf11")),  # WMA, WMV
    ("matroska", 0, bytes.fromhex("1a45dfa3")),  # WebM, MKA, MKV
    ("ape", 0, b"MAC "),
    ("wv", 0, b"wvpk"),
    ("mpc8", 0, b"MPCK"),
    ("mpc", 0, b"MP+"),
    ("tta", 0, b"TTA1"),
    ("rm", 0, b".RMF"),
    ("rm", 0, b".ra\xfd"),
    ("dsf", 0, b"DSD "),
    ("ac3", 0, b"\x0b\x77"),
)
_ADTS = (b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9")  # of AAC without a container
_ID3 = b"ID3"  # a tag that may stand before it
_WITHOUT_LENGTH = ("aac", "ac3")  # FFmpeg guesses it from the first frames
_WHOLE = {"u8": (128, 128), "s16": (0, 1 << 15), "s32": (0, 1 << 31)}  # zero and full scale


def format_of(path: str | Path) -> str:
    """FFmpeg's name of the format of a file, "" for one that it is not asked to read."""
    with open(path, "rb") as file:
        start = file.read(16)
        if start.startswith(_ID3) and len(start) >= 10:  # its length is in four times seven bits
            a, b, c, d = (byte & 127 for byte in start[6:10])
            file.seek(10 + (a << 21 | b << 14 | c << 7 | d))
            start = file.read(16)
    if start.startswith(_ADTS):
        return "aac"
    found = (name for name, at, mark in _SIGNATURES if start[at:].startswith(mark))
    return next(found, "")


def decode_by_ffmpeg(path: str | Path, format: str) -> Decoded:
    """Decode a file's first sound; UnusableTrackError for what FFmpeg cannot open either."""
    try:
        import av
    except ImportError:
        raise UnusableTrackError(
            f"{Path(path).suffix.lower()} is decoded by the package av: pip install av"
        ) from None
    try:
        with _open(path, format) as container:
            return _decode(container)
    except (av.FFmpegError, ValueError, OverflowError, EOFError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise UnusableTrackError(f"not audio, or corrupt: {reason}") from None


def seconds_by_ffmpeg(path: str | Path, format: str) -> float:
    """How long a song is by its header; 0 where that does not say, or is damaged."""
    try:
        import av
    except ImportError:
        return 0.0
    try:
        with _open(path, format) as container:
            return _seconds(container, container.streams.audio[0])
    except (av.FFmpegError, ValueError, OverflowError, EOFError, IndexError):
        return 0.0


@contextmanager
def _open(path: str | Path, format: str) -> Iterator["av.container.InputContainer"]:
    import av

    with (
        open(path, "rb") as file,
        av.open(_File(file), format=format, metadata_errors="ignore", io_open=_refuse) as container,
    ):
        yield cast("av.container.InputContainer", container)


class _File:
    """An open file of which a damaged number may ask for a place that is not there."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.tell, self._seek = file.read, file.tell, file.seek

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


def _refuse(url: str, flags: int, options: object) -> None:
    raise ValueError(f"it names another file: {url!r}")


def _decode(container: "av.container.InputContainer") -> Decoded:
    if not container.streams.audio:
        raise UnusableTrackError("a video without sound")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise UnusableTrackError("not audio, or corrupt: no known codec")
    blocks: list[np.ndarray] = []
    rate = channels = count = most = 0
    for frame in _frames(container, stream):
        if not most:  # what a decoder gives may differ from what the file says
            rate, channels = frame.sample_rate, frame.layout.nb_channels
            if rate not in SAMPLE_RATES:
                raise UnusableTrackError(
                    f"sample rate {rate} Hz is outside {SAMPLE_RATES.start} to "
                    f"{SAMPLE_RATES.stop - 1} Hz"
                )
            most = min(MOST_SAMPLES, LONGEST * rate)
        if frame.sample_rate != rate:
            continue  # of another song, or damaged
        block = _samples(frame)[: most - count]
        blocks.append(block)
        count += len(block)
        if count >= most:
            break
    if not count:
        raise UnusableTrackError("holds no samples")
    seconds = _seconds(container, stream)
    stated = round(seconds * rate) if 0 < seconds < 1e9 else count
    codec = f"{container.format.name.partition(',')[0].upper()} {stream.codec_context.name}"
    return Decoded(blocks, rate, max(stated, count), most, codec, channels)


def _frames(container: "av.container.InputContainer", stream: Any) -> Iterator["av.AudioFrame"]:
    """All that can be decoded; a packet that is damaged is left out."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, EOFError):  # the rest cannot be read
            return
        with suppress(av.FFmpegError):
            yield from packet.decode()


def _samples(frame: "av.AudioFrame") -> np.ndarray:
    """A frame's samples, mono float32 [samples]."""
    values = frame.to_ndarray()
    channels = frame.layout.nb_channels
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype == np.int16:
        return mono(np.ascontiguousarray(values))
    zero, full = _WHOLE.get(frame.format.name.removesuffix("p"), (0, 1))
    return mono(((values.astype(np.float64) - zero) / full).astype(np.float32))


def _seconds(container: "av.container.InputContainer", stream: Any) -> float:
    """How long the file states that its sound is; 0 where it does not."""
    if container.format.name in _WITHOUT_LENGTH:
        return 0.0
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6
