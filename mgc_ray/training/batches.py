"""Batches of spectrograms [B, bands, frames] on the device, from memory or from disk.

`Batches.shuffled` is an epoch of training, `Batches.in_order` evaluates. The rows of a batch come
with it as a tensor on the same device.
"""

import queue
import threading
import warnings
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mgc_ray.data.chunks import Chunks, ChunkTable, StreamedChunks

_CHUNKS_AT_A_TIME = 64  # in evaluation: bounds memory; no slower than more
WINDOW = 8  # shards that a streamed batch is drawn from: 128 tracks, 170 MB of the default size


class Batches(Protocol):
    """Where batches come from."""

    def shuffled(
        self, rows: np.ndarray, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(rows, spectrograms) of `size` each, the last may be smaller, in a new random order."""

    def in_order(self, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """(rows, spectrograms) in the order of `rows`, which are sorted."""


def batches(chunks: ChunkTable, device: torch.device) -> Batches:
    """The batches of chunks in memory or on disk."""
    if isinstance(chunks, StreamedChunks):
        return StreamedBatches(chunks, device)
    assert isinstance(chunks, Chunks)
    return ResidentBatches(chunks.spectrograms, device)


class ResidentBatches:
    """All spectrograms lie on the device as they are stored; a batch is gathered there by index.

    Where they take more than half of a GPU's free memory they stay in the machine's, and each batch
    is copied.
    """

    def __init__(self, spectrograms: np.ndarray, device: torch.device) -> None:
        self._device = device
        fits = device.type != "cuda" or spectrograms.nbytes < _free_memory(device) / 2
        self._spectrograms = on_device(spectrograms, device if fits else "cpu")

    def shuffled(
        self, rows: np.ndarray, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        drawn = torch.from_numpy(rows).to(self._device)
        order = torch.randperm(len(rows), generator=generator, device=self._device)
        return self._gather(drawn[order], size)

    def in_order(self, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        return self._gather(torch.from_numpy(rows).to(self._device), _CHUNKS_AT_A_TIME)

    def _gather(self, rows: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for part in rows.split(size):
            yield part, self._spectrograms[part.to(self._spectrograms.device)].to(self._device)


class StreamedBatches:
    """Shards are read while the device works; at most WINDOW + 3 of them are in memory.

    An epoch takes the shards in a new random order, and draws each batch from all chunks of the
    WINDOW shards that are in memory: so a chunk can come at any time of an epoch, but its
    neighbours in a batch are from the same tenth of a very large dataset. Tracks are put into
    shards at random when a dataset is made, so WINDOW shards are a fair sample of all genres.
    """

    def __init__(self, chunks: StreamedChunks, device: torch.device) -> None:
        self._chunks = chunks
        self._device = device

    def shuffled(
        self, rows: np.ndarray, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        seed = torch.randint(2**31, (1,), generator=generator, device=generator.device)
        random = np.random.default_rng(int(seed))
        shards, counts = np.unique(self._chunks.shard[rows], return_counts=True)
        order = random.permutation(shards)
        # slots for the chunks of WINDOW shards, of the one that has just been read, and of a batch
        slots = int(np.sort(counts)[::-1][: WINDOW + 1].sum()) + size
        features = self._chunks.info.features
        pool = np.empty((slots, features.bands, features.frames), features.dtype)
        row = np.full(slots, -1)  # which chunk lies in each slot; -1: none
        most = slots - int(counts.max())  # leaves room for the next shard
        parts = (rows[self._chunks.shard[rows] == shard] for shard in order)
        for part, spectrograms in _read_ahead(self._chunks, parts):
            free = np.flatnonzero(row < 0)[: len(part)]
            pool[free], row[free] = spectrograms, part
            while (row >= 0).sum() > most:
                yield self._draw(pool, row, size, random)
        while (row >= 0).any():
            yield self._draw(pool, row, size, random)

    def _draw(
        self, pool: np.ndarray, row: np.ndarray, size: int, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        taken = np.flatnonzero(row >= 0)
        if len(taken) > size:
            taken = random.choice(taken, size, replace=False)
        else:
            taken = random.permutation(taken)
        batch = torch.from_numpy(row[taken]), torch.from_numpy(pool[taken])
        row[taken] = -1
        return batch[0].to(self._device), batch[1].to(self._device)

    def in_order(self, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        shard = self._chunks.shard[rows]
        parts = (rows[shard == number] for number in np.unique(shard))
        for part, spectrograms in _read_ahead(self._chunks, parts):
            x, numbers = on_device(spectrograms, self._device), torch.from_numpy(part)
            yield from zip(
                numbers.to(self._device).split(_CHUNKS_AT_A_TIME),
                x.split(_CHUNKS_AT_A_TIME),
                strict=True,
            )


def _read_ahead(
    chunks: StreamedChunks, parts: Iterator[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The spectrograms of each part (rows of one shard); a thread reads the next one meanwhile."""
    ready: queue.Queue[tuple[np.ndarray, np.ndarray] | Exception | None] = queue.Queue(maxsize=1)
    ended = threading.Event()

    def put(item: tuple[np.ndarray, np.ndarray] | Exception | None) -> None:
        while not ended.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for part in parts:
                put((part, chunks.read_shard(int(chunks.shard[part[0]]), part)))
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


def on_device(spectrograms: np.ndarray, device: str | torch.device) -> Tensor:
    """The array as a tensor there; no copy on the CPU, also of Ray's read-only memory."""
    with warnings.catch_warnings():  # nothing ever writes into it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(spectrograms).to(device)


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0]
