"""Decoding by libsndfile, around damage, without a word of its own on the terminal.

What libsndfile does not read is in ffmpeg.py.

A file states how long it is. What is decoded of a damaged one is shorter: the decoder then
continues behind the damage, found by trying again a little later.
"""

import contextlib
import ctypes
import io
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

SAMPLE_RATES = range(1_000, 384_001)  # Hz; outside of it a header is wrong rather than unusual
# What is heard of a song, from its beginning: a few kilobytes may state and hold days of silence.
LONGEST = 3600  # seconds
MOST_SAMPLES = 1 << 27  # 512 MiB: 50 minutes at 44.1 kHz
UNKNOWN_LENGTH = 1 << 62  # or more: a FLAC that was written to a pipe
_BLOCK = 1 << 25  # values decoded at a time, 128 MiB: bounds memory, and few MP3s are in pieces
_DAMAGE = (soundfile.LibsndfileError, ValueError)  # ValueError: of a negative length
_UNKNOWN_SIZE = 0x7FFFF000  # of the data of a WAV to a pipe, or more, as programs write it; or 0


class UnusableTrackError(Exception):
    """This file cannot be a track; the message is the reason, as written to `skipped.csv`."""


class Decoded(NamedTuple):
    """Mono float32 blocks, and what the file states of itself."""

    blocks: list[np.ndarray]
    sample_rate: int
    samples: int  # that the file states to have, of which `most` are read
    most: int
    codec: str  # e.g. WAV PCM_16
    channels: int


def decode(path: str | Path) -> Decoded:
    """Decode a file; LibsndfileError for what libsndfile cannot open."""
    with open_sound(path) as file:
        if file.samplerate not in SAMPLE_RATES:
            raise UnusableTrackError(
                f"sample rate {file.samplerate} Hz is outside "
                f"{SAMPLE_RATES.start} to {SAMPLE_RATES.stop - 1} Hz"
            )
        rate, stated = file.samplerate, _stated(path, file)
        most = min(MOST_SAMPLES, LONGEST * rate)
        if not (known := file.frames < UNKNOWN_LENGTH):
            file.seekable = lambda: False  # or it would seek after the last sample, which fails
        end = min(file.frames, most)
        blocks, position = [], 0
        at_a_time = max(1, _BLOCK // file.channels)
        with contextlib.suppress(*_DAMAGE):  # what is missing shows below
            while position < most and len(block := _read(file, min(at_a_time, most - position))):
                blocks.append(mono(block))
                position += len(block)
        channels = file.channels
        codec = f"{file.format} {file.subtype}"
    if known and position < end:
        blocks += _behind_damage(path, position, end, piece=rate // 16)
    return Decoded(blocks, rate, stated if known else position, most, codec, channels)


def _behind_damage(path: str | Path, position: int, end: int, piece: int) -> list[np.ndarray]:
    """What can be decoded from `position` on, in small pieces.

    After an error the file is opened anew, as a decoder that lost its way does not find it again.
    Steps over damage double, so that the half that is missing of a file takes a few steps.
    """
    blocks: list[np.ndarray] = []
    file, step = None, piece
    with contextlib.ExitStack() as opened:
        while position < end:
            try:
                if file is None:
                    file = opened.enter_context(open_sound(path))
                    file.seek(position)
                block = _read(file, piece)
                if not len(block):
                    raise EOFError
                blocks.append(mono(block))
                position += len(block)
                step = piece
            except (*_DAMAGE, EOFError):
                opened.close()
                file = None
                position += step
                step *= 2
    return blocks


@contextlib.contextmanager
def open_sound(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """Open a file and close it again, without a word of libmpg123 in between.

    Every file is opened here: which ones libsndfile takes for MP3, by their content or else by
    their ending, only libsndfile knows. LibsndfileError for what it cannot open,
    UnusableTrackError for headerless audio.
    """
    with _silence, _open(path) as file:
        yield file


def _open(path: str | Path) -> soundfile.SoundFile:
    try:
        file = soundfile.SoundFile(os.fsencode(path))  # as bytes: the name may not be UTF-8
    except TypeError as error:  # libsndfile takes a name ending in .raw for headerless audio
        raise UnusableTrackError(f"not audio, or corrupt: {error}") from None
    if file.frames == 0 and (data := _wav_data(path)) and not _is_stated(data[1]):
        file.close()
        with open(path, "rb") as whole:
            content = bytearray(whole.read(data[0] + MOST_SAMPLES * data[2]))
        struct.pack_into("<I", content, data[0] - 4, min(len(content) - data[0], 0xFFFFFFFE))
        return soundfile.SoundFile(io.BytesIO(content))
    return file


def _read(file: soundfile.SoundFile, count: int) -> np.ndarray:
    # libsndfile's own conversion of these to float takes as long as everything else
    dtype = "int16" if file.subtype == "PCM_16" else "float32"
    block: np.ndarray = file.read(count, dtype, always_2d=True)
    return block


def _stated(path: str | Path, file: soundfile.SoundFile) -> int:
    """How many samples a file states; libsndfile counts those of WAV and Vorbis that are there."""
    if file.format.startswith("WAV") and (data := _wav_data(path)):
        return max(file.frames, data[1] // data[2]) if _is_stated(data[1]) else file.frames
    if file.subtype == "VORBIS":
        return max(file.frames, _last_position(path))
    return file.frames


def _is_stated(size: int) -> bool:
    """Whether the size of a WAV's data was known when its header was written."""
    return 0 < size < _UNKNOWN_SIZE


def _last_position(path: str | Path) -> int:
    """The position in samples that the last page of an Ogg file has, at its end."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - (1 << 17)))  # a page has at most half of that
        end = file.read()
    page = end.rfind(b"OggS")
    header = end[page + 6 : page + 14]
    return struct.unpack("<q", header)[0] if page >= 0 and len(header) == 8 else 0


def _wav_data(path: str | Path) -> tuple[int, int, int] | None:
    """Where the data of a WAV begin, their size and that of a frame, in bytes."""
    try:
        with open(path, "rb") as file:
            kind, _, wave = struct.unpack("<4sI4s", file.read(12))
            frame = 0
            while (kind, wave) == (b"RIFF", b"WAVE"):
                name, size = struct.unpack("<4sI", file.read(8))
                if name == b"data":
                    return (file.tell(), size, frame) if frame else None
                after = file.tell() + size + size % 2
                if name == b"fmt ":
                    frame = struct.unpack("<12xH", file.read(14))[0]
                file.seek(after)
    except (OSError, ValueError, struct.error):
        pass
    return None


def mono(block: np.ndarray) -> np.ndarray:
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


class _Silence:
    """Turns off the `stderr` of C while any thread needs it to be: libmpg123's notes on damage.

    No option turns them off. The GNU C library lets `stderr` be set like any variable; what Python
    writes, a dump of a crash too, goes to file descriptor 2 and stays. Elsewhere the notes stay.
    """

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._stderr, self._nowhere = None, None
        self._saved: int | None = None
        with contextlib.suppress(AttributeError, ValueError, OSError):  # without a GNU C library
            os.confstr("CS_GNU_LIBC_VERSION")
            library = ctypes.CDLL(None)
            library.fopen.restype, library.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p] * 2
            self._stderr = ctypes.c_void_p.in_dll(library, "stderr")
            self._nowhere = library.fopen(os.fsencode(os.devnull), b"w")

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1 and self._stderr and self._nowhere:
                self._saved, self._stderr.value = self._stderr.value, self._nowhere

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._stderr and self._nowhere:
                self._stderr.value = self._saved


_silence = _Silence()
