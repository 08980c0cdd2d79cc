"""Batches of chunks [B, bands, frames] by feature on the device, from memory or from disk.

`Batches.shuffled` is an epoch of training, `Batches.in_order` is for evaluation. The rows of a
batch come with it as a tensor on the same device.
"""

import queue
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from mgc_ray.data.chunks import Chunks, ChunkTable, Features, StreamedChunks
from mgc_ray.models._classifier import Batch

T = TypeVar("T")

_CHUNKS_AT_A_TIME = 64  # in evaluation: bounds memory; no slower than more
WINDOW = 8  # shards that a streamed batch is drawn from: 128 tracks, 170 MB of the default size


class Batches(Protocol):
    """Where batches come from."""

    def shuffled(
        self, rows: np.ndarray, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Batch]]:
        """(rows, chunks) of `size` each, the last may be smaller, in a new random order."""

    def in_order(self, rows: np.ndarray) -> Iterator[tuple[Tensor, Batch]]:
        """(rows, chunks) in the order of `rows`, which are sorted."""


def batches(chunks: ChunkTable, names: Sequence[str], device: torch.device) -> Batches:
    """The batches of some features of chunks in memory or on disk."""
    if isinstance(chunks, StreamedChunks):
        return StreamedBatches(chunks, names, device)
    assert isinstance(chunks, Chunks)
    return ResidentBatches({name: chunks.features[name] for name in names}, device)


class ResidentBatches:
    """All features are on the device as they are stored; a batch is gathered there by index.

    Where they take more than half of a GPU's free memory they stay in the machine's, and each batch
    is copied while the one before it is used.
    """

    def __init__(self, features: Features, device: torch.device) -> None:
        self._device = device
        size = sum(chunks.nbytes for chunks in features.values())
        self._place = device
        if device.type == "cuda" and size >= _free_memory(device) / 2:
            self._place = torch.device("cpu")
        self._features = on_device(features, self._place)

    def shuffled(
        self, rows: np.ndarray, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Batch]]:
        drawn = torch.from_numpy(rows).to(self._device)
        order = torch.randperm(len(rows), generator=generator, device=self._device)
        return self._gather(drawn[order], size)

    def in_order(self, rows: np.ndarray) -> Iterator[tuple[Tensor, Batch]]:
        return self._gather(torch.from_numpy(rows).to(self._device), _CHUNKS_AT_A_TIME)

    def _gather(self, rows: Tensor, size: int) -> Iterator[tuple[Tensor, Batch]]:
        parts = rows.to(self._place).split(size)
        gathered = ((part, {n: x[part] for n, x in self._features.items()}) for part in parts)
        return gathered if self._place == self._device else copied_ahead(gathered, self._device)


class StreamedBatches:
    """Shards are read while the device works; at most WINDOW + 3 of them are in memory.

    An epoch takes the shards in a new random order, and draws each batch from all chunks of the
    WINDOW shards that are in memory: so a chunk can come at any time of an epoch, but its
    neighbours in a batch are from the same tenth of a very large dataset. Tracks are put into
    shards at random when a dataset is made, so WINDOW shards are a fair sample of all genres.
    """

    def __init__(self, chunks: StreamedChunks, names: Sequence[str], device: torch.device) -> None:
        self._chunks, self._names = chunks, list(names)
        self._device = device

    def shuffled(
        self, rows: np.ndarray, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Batch]]:
        return copied_ahead(self._shuffled(rows, size, generator), self._device)

    def _shuffled(
        self, rows: np.ndarray, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Batch]]:
        seed = torch.randint(2**31, (1,), generator=generator, device=generator.device)
        random = np.random.default_rng(int(seed))
        shards, counts = np.unique(self._chunks.shard[rows], return_counts=True)
        order = random.permutation(shards)
        # slots for the chunks of WINDOW shards, of the one that has just been read, and of a batch
        slots = int(np.sort(counts)[::-1][: WINDOW + 1].sum()) + size
        kinds = {name: self._chunks.info.features.columns[name] for name in self._names}
        pool = {n: np.empty((slots, f.bands, f.frames), f.dtype) for n, f in kinds.items()}
        row = np.full(slots, -1)  # which chunk lies in each slot; -1: none
        most = slots - int(counts.max())  # leaves room for the next shard
        parts = (rows[self._chunks.shard[rows] == shard] for shard in order)
        for part, features in _read_ahead(self._chunks, parts, self._names):
            free = np.flatnonzero(row < 0)[: len(part)]
            row[free] = part
            for name, read in features.items():
                pool[name][free] = read
            while (row >= 0).sum() > most:
                yield self._draw(pool, row, size, random)
        while (row >= 0).any():
            yield self._draw(pool, row, size, random)

    def _draw(
        self, pool: Features, row: np.ndarray, size: int, random: np.random.Generator
    ) -> tuple[Tensor, Batch]:
        taken = np.flatnonzero(row >= 0)
        if len(taken) > size:
            taken = random.choice(taken, size, replace=False)
        else:
            taken = random.permutation(taken)
        rows = torch.from_numpy(row[taken])
        row[taken] = -1
        return rows, {n: torch.from_numpy(chunks[taken]) for n, chunks in pool.items()}

    def in_order(self, rows: np.ndarray) -> Iterator[tuple[Tensor, Batch]]:
        shard = self._chunks.shard[rows]
        parts = (rows[shard == number] for number in np.unique(shard))
        for part, features in _read_ahead(self._chunks, parts, self._names):
            x, numbers = on_device(features, self._device), torch.from_numpy(part)
            for start in range(0, len(part), _CHUNKS_AT_A_TIME):
                some = slice(start, start + _CHUNKS_AT_A_TIME)
                yield numbers[some].to(self._device), {n: v[some] for n, v in x.items()}


def _read_ahead(
    chunks: StreamedChunks, parts: Iterator[np.ndarray], names: Sequence[str]
) -> Iterator[tuple[np.ndarray, Features]]:
    """The features of each part (rows of one shard); a thread reads the next one meanwhile."""
    ready: queue.Queue[tuple[np.ndarray, Features] | Exception | None] = queue.Queue(maxsize=1)
    ended = threading.Event()

    def put(item: tuple[np.ndarray, Features] | Exception | None) -> None:
        while not ended.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for part in parts:
                put((part, chunks.read_shard(int(chunks.shard[part[0]]), part, names)))
                if ended.is_set():
                    return
            put(None)
        except Exception as error:  # raised again where the batches are used
            put(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:  # also where an epoch is left before its end
        ended.set()
        thread.join()


def copied_ahead(
    batches: Iterator[tuple[Tensor, Batch]], device: torch.device
) -> Iterator[tuple[Tensor, Batch]]:
    """Batches in the machine's memory, on the device."""
    if device.type != "cuda":
        for rows, batch in batches:
            yield rows.to(device), {name: x.to(device) for name, x in batch.items()}
        return
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def copied() -> Iterator[tuple[Tensor, Batch, torch.cuda.Event]]:
        for rows, batch in batches:
            with torch.cuda.stream(stream):  # copies there run beside what computes here
                rows = rows.pin_memory().to(device, non_blocking=True)
                batch = {n: x.pin_memory().to(device, non_blocking=True) for n, x in batch.items()}
                event = stream.record_event()
            yield rows, batch, event

    for rows, batch, event in one_ahead(copied()):
        current.wait_event(event)
        for tensor in (rows, *batch.values()):
            tensor.record_stream(current)  # so that its memory is not reused before
        yield rows, batch


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each when the one after it has been made."""
    kept: list[T] = []
    for item in items:
        yield from kept
        kept = [item]
    yield from kept


def on_device(features: Features, device: str | torch.device) -> Batch:
    """The arrays as tensors there; no copy on the CPU, also of Ray's read-only memory."""
    with warnings.catch_warnings():  # nothing ever writes into them
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {name: torch.from_numpy(chunks).to(device) for name, chunks in features.items()}


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0]
