"""Batches from memory and from disk: every chunk once an epoch, well mixed, and bounded memory."""

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks, StreamedChunks, load_chunks, open_chunks
from mgc_ray.data.dataset import finish, shard_path, write_shard, write_tracks
from mgc_ray.data.spectrogram import Inspection
from mgc_ray.training.batches import WINDOW, batches
from mgc_ray.training.loop import predict_probs, train
from tests.conftest import make_chunks

CPU = torch.device("cpu")


def on_disk(folder: Path, chunks: Chunks, tracks_per_shard: int = 2) -> Path:
    """The same chunks as a dataset; every spectrogram's first value becomes its row."""
    x = chunks.spectrograms
    x[:, 0, 0] = np.arange(len(x))
    order = sorted(range(len(chunks.tracks)), key=lambda i: chunks.tracks[i].split)
    shards = [order[i : i + tracks_per_shard] for i in range(0, len(order), tracks_per_shard)]
    info = replace(chunks.info, shards=len(shards))
    for number, members in enumerate(shards):
        rows = [
            (chunks.tracks[i], x[chunks.track == i], list(chunks.split[chunks.track == i]))
            for i in members
        ]
        write_shard(folder, number, info, rows)
    ordered = [chunks.tracks[i] for i in order]
    write_tracks(folder, ordered, [Inspection(1.0, 3, str(i)) for i in order])
    finish(folder, info)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return on_disk(tmp_path, make_chunks(tracks_per_genre=24))


def streamed(folder: Path) -> StreamedChunks:
    chunks = open_chunks(folder, ("train", "valid"), memory=0)
    assert isinstance(chunks, StreamedChunks)
    return chunks


def test_what_fits_is_loaded_and_what_does_not_is_streamed(dataset: Path) -> None:
    nbytes = load_chunks(dataset, ("train", "valid")).nbytes
    assert nbytes == 24 * 3 * 3 * 16 * 12 * 4
    assert isinstance(open_chunks(dataset, ("train", "valid"), nbytes), Chunks)
    assert isinstance(open_chunks(dataset, ("train", "valid"), nbytes - 1), StreamedChunks)
    assert isinstance(open_chunks(dataset, ("train", "valid")), Chunks)


def test_streamed_and_loaded_chunks_are_the_same(dataset: Path) -> None:
    disk, memory = streamed(dataset), load_chunks(dataset, ("train", "valid"))
    assert disk.tracks == memory.tracks
    np.testing.assert_array_equal(disk.track, memory.track)
    np.testing.assert_array_equal(disk.split, memory.split)
    for rows in (disk.rows("train"), disk.rows("valid"), np.arange(len(disk.track))[5:50:7]):
        read = list(disk.pieces(rows))
        np.testing.assert_array_equal(np.concatenate([part for part, _ in read]), rows)
        np.testing.assert_array_equal(
            np.concatenate([x for _, x in read]), memory.spectrograms[rows]
        )
    for ours, theirs in zip(disk.band_statistics, memory.band_statistics, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("memory", [0, 2**40])
@pytest.mark.parametrize("size", [7, 32, 1000])
def test_an_epoch_gives_every_row_once_with_its_own_spectrogram(
    dataset: Path, memory: int, size: int
) -> None:
    chunks = open_chunks(dataset, ("train", "valid"), memory)
    rows = chunks.rows("train")
    expected = load_chunks(dataset, ("train", "valid")).spectrograms
    generator = torch.Generator().manual_seed(0)
    epochs = []
    for _ in range(2):
        drawn = list(batches(chunks, CPU).shuffled(rows, size, generator))
        assert [len(part) for part, _ in drawn[:-1]] == [size] * (len(drawn) - 1)
        order = np.concatenate([part.numpy() for part, _ in drawn])
        assert Counter(order.tolist()) == Counter(rows.tolist())
        for part, x in drawn:
            np.testing.assert_array_equal(x.numpy(), expected[part.numpy()])
        epochs.append(order)
    assert not np.array_equal(*epochs)


def test_the_same_seed_streams_the_same_batches(dataset: Path) -> None:
    def order(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        chunks = streamed(dataset)
        drawn = batches(chunks, CPU).shuffled(chunks.rows("train"), 8, generator)
        return [row for part, _ in drawn for row in part.tolist()]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_streamed_batch_is_drawn_from_the_whole_window(dataset: Path) -> None:
    chunks = streamed(dataset)
    rows = chunks.rows("train")
    drawn = batches(chunks, CPU).shuffled(rows, 16, torch.Generator().manual_seed(0))
    shards = [len(set(chunks.shard[part.numpy()])) for part, _ in drawn]
    assert len(set(chunks.shard[rows])) > 2 * WINDOW  # so a window is a part of it
    assert np.mean(shards[:-3]) > WINDOW / 2


def test_what_was_read_ahead_ends_with_an_epoch_left_early(dataset: Path) -> None:
    chunks = streamed(dataset)
    before = set(threading.enumerate())
    drawn = batches(chunks, CPU).shuffled(chunks.rows("train"), 4, torch.Generator())
    next(iter(drawn))
    assert set(threading.enumerate()) > before
    drawn.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before


def test_a_shard_that_is_lost_meanwhile_is_told(dataset: Path) -> None:
    chunks = streamed(dataset)
    shard_path(dataset, int(chunks.shard[chunks.rows("train")[-1]])).unlink()
    with pytest.raises(RequestError, match="is missing or damaged"):
        list(batches(chunks, CPU).shuffled(chunks.rows("train"), 8, torch.Generator()))


def test_training_from_disk_learns_as_from_memory(dataset: Path) -> None:
    small = {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 16, "max_epochs": 4}
    chunks = streamed(dataset)
    epochs = list(train("gru", small | {"lr": 3e-3}, chunks, autocast=False))
    assert max(epoch.metrics["val_track_accuracy"] for epoch in epochs) > 0.8
    rows = chunks.rows("valid")
    classifier = epochs[-1].classifier
    resident = batches(load_chunks(dataset, ("train", "valid")), CPU)
    np.testing.assert_allclose(
        predict_probs(classifier, batches(chunks, CPU), rows),
        predict_probs(classifier, resident, rows),
        atol=1e-6,
    )
