"""Checkpoints of TensorFlow, read without it.

NAME.index is a table of tensor names (an SSTable of LevelDB: blocks of sorted keys, each without
the prefix that it shares with the one before; values are small protocol buffers), and NAME.data
holds the values of all tensors, little-endian. Format: tensorflow/core/util/tensor_bundle and
tensorflow/core/lib/io/table_format.txt.
"""

import struct
from collections.abc import Iterator

import numpy as np

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}


def read_tensors(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """All tensors by name; ValueError where this is no such checkpoint, or a damaged one."""
    if len(index) < _FOOTER or struct.unpack("<Q", index[-8:])[0] != _MAGIC:
        raise ValueError("its index is no table of TensorFlow")
    footer = index[-_FOOTER:]
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)  # where the unused block of metadata is
    tensors = {}
    for _, handle in _entries(index, footer[at:]):
        for name, value in _entries(index, handle):
            if name:  # the first one describes the whole checkpoint
                tensors[name.decode()] = _tensor(_fields(value), data)
    if not tensors:
        raise ValueError("it holds no tensors")
    return tensors


def _entries(table: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the block at a handle: two numbers, where it begins and its length."""
    start, after = _varint(handle, 0)
    size, _ = _varint(handle, after)
    block = table[start : start + size]
    if len(block) < size or table[start + size] != 0:
        raise ValueError("its index is damaged or compressed")
    (restarts,) = struct.unpack("<I", block[-4:])
    end, at, key = len(block) - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _tensor(entry: dict[int, list[int | bytes]], data: bytes) -> np.ndarray:
    """From the fields of a BundleEntryProto: 1 type, 2 shape, 4 where it begins, 5 its bytes."""
    dtype = _DTYPES.get(int(entry[1][0]))
    if dtype is None or int(entry.get(3, [0])[0]):
        raise ValueError("a tensor is of another type than numbers, or in another file")
    (shape,) = entry.get(2, [b""])
    assert isinstance(shape, bytes)
    sizes = [_fields(one)[1][0] for one in _fields(shape).get(2, []) if isinstance(one, bytes)]
    start, size = int(entry.get(4, [0])[0]), int(entry[5][0])
    if start + size > len(data):
        raise ValueError(f"its data has {len(data)} bytes, but {start + size} are needed")
    values = np.frombuffer(data[start : start + size], dtype)
    return values.reshape([int(one) for one in sizes])


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protocol buffer by number."""
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(message, at)
        elif kind == 2:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        elif kind == 5:
            value, at = message[at : at + 4], at + 4
        else:
            raise ValueError("its index is damaged")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and where what follows begins."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("its index is damaged")
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 128:
            return value, at
