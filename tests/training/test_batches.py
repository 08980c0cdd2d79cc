"""Batches from memory and from disk: every chunk once an epoch, well mixed, in bounded memory."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks, StreamedChunks, load_chunks, open_chunks
from mgc_ray.data.dataset import shard_path
from mgc_ray.models._classifier import new_classifier
from mgc_ray.training.batches import WINDOW, ResidentBatches, batches, one_ahead
from mgc_ray.training.epoch import predict_probs
from mgc_ray.training.loop import train
from tests.conftest import make_chunks
from tests.made_chunks import chunks_of_three, write_dataset

CPU = torch.device("cpu")
NAMES = ["array"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"), make_chunks(tracks_per_genre=24))


def streamed(folder: Path) -> StreamedChunks:
    chunks = open_chunks(folder, ("train", "valid"), memory=0)
    assert isinstance(chunks, StreamedChunks)
    return chunks


def test_what_fits_is_loaded_and_what_does_not_is_streamed(saved: Path) -> None:
    nbytes = load_chunks(saved, ("train", "valid")).nbytes
    assert nbytes == 24 * 3 * 3 * 16 * 12 * 4
    assert isinstance(open_chunks(saved, ("train", "valid"), nbytes), Chunks)
    assert isinstance(open_chunks(saved, ("train", "valid"), nbytes - 1), StreamedChunks)
    assert isinstance(open_chunks(saved, ("train", "valid")), Chunks)


def test_streamed_and_loaded_chunks_are_the_same(tmp_path: Path) -> None:
    write_dataset(tmp_path, chunks_of_three())
    disk, memory = streamed(tmp_path), load_chunks(tmp_path, ("train", "valid"))
    assert disk.tracks == memory.tracks
    np.testing.assert_array_equal(disk.track, memory.track)
    np.testing.assert_array_equal(disk.split, memory.split)
    for rows in (disk.rows("train"), disk.rows("valid"), np.arange(len(disk.track))[5:50:7]):
        read = list(disk.pieces(rows))
        np.testing.assert_array_equal(np.concatenate([part for part, _ in read]), rows)
        for name, features in memory.features.items():
            found = np.concatenate([piece[name] for _, piece in read])
            np.testing.assert_array_equal(found, features[rows])
    for name, expected in memory.band_statistics.items():
        np.testing.assert_allclose(disk.band_statistics[name], expected, rtol=1e-6)


@pytest.mark.parametrize("memory", [0, 2**40])
@pytest.mark.parametrize("size", [7, 32, 1000])
def test_an_epoch_has_each_row_once_with_its_own_chunk(saved: Path, memory: int, size: int) -> None:
    chunks = open_chunks(saved, ("train", "valid"), memory)
    rows = chunks.rows("train")
    expected = load_chunks(saved, ("train", "valid")).features["array"]
    generator = torch.Generator().manual_seed(0)
    epochs = []
    for _ in range(2):
        drawn = list(batches(chunks, NAMES, CPU).shuffled(rows, size, generator))
        assert [len(part) for part, _ in drawn[:-1]] == [size] * (len(drawn) - 1)
        order = np.concatenate([part.numpy() for part, _ in drawn])
        assert Counter(order.tolist()) == Counter(rows.tolist())
        for part, batch in drawn:
            np.testing.assert_array_equal(batch["array"].numpy(), expected[part.numpy()])
        epochs.append(order)
    assert not np.array_equal(*epochs)


@pytest.mark.parametrize("memory", [0, 2**40])
def test_a_row_that_is_asked_for_several_times_is_given_as_often(saved: Path, memory: int) -> None:
    """As `crops` asks for each chunk several times an epoch."""
    chunks = open_chunks(saved, ("train", "valid"), memory)
    expected = load_chunks(saved, ("train", "valid")).features["array"]
    rows = np.repeat(chunks.rows("train"), 3)
    drawn = list(batches(chunks, NAMES, CPU).shuffled(rows, 32, torch.Generator()))
    order = np.concatenate([part.numpy() for part, _ in drawn])
    assert Counter(order.tolist()) == Counter(rows.tolist())
    for part, batch in drawn:
        np.testing.assert_array_equal(batch["array"].numpy(), expected[part.numpy()])


@pytest.mark.parametrize("memory", [0, 2**40])
def test_a_batch_has_the_features_that_were_asked_for(tmp_path: Path, memory: int) -> None:
    folder = write_dataset(tmp_path, chunks_of_three())
    chunks = open_chunks(folder, ("train", "valid"), memory)
    expected = load_chunks(folder, ("train", "valid")).features
    source = batches(chunks, ["mfcc", "log_mel"], CPU)
    for drawn in (
        source.shuffled(chunks.rows("train"), 8, torch.Generator()),
        source.in_order(chunks.rows("valid")),
    ):
        for part, batch in drawn:
            assert list(batch) == ["mfcc", "log_mel"]
            for name, x in batch.items():
                np.testing.assert_array_equal(x.numpy(), expected[name][part.numpy()])


@pytest.mark.parametrize("memory", [0, 2**40])
def test_for_evaluation_rows_are_in_order(saved: Path, memory: int) -> None:
    chunks = open_chunks(saved, ("train", "valid"), memory)
    rows = chunks.rows("valid")
    parts = [part.numpy() for part, _ in batches(chunks, NAMES, CPU).in_order(rows)]
    np.testing.assert_array_equal(np.concatenate(parts), rows)


def test_the_same_seed_streams_the_same_batches(saved: Path) -> None:
    def order(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        chunks = streamed(saved)
        drawn = batches(chunks, NAMES, CPU).shuffled(chunks.rows("train"), 8, generator)
        return [row for part, _ in drawn for row in part.tolist()]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_streamed_batch_is_drawn_from_the_whole_window(saved: Path) -> None:
    chunks = streamed(saved)
    rows = chunks.rows("train")
    drawn = batches(chunks, NAMES, CPU).shuffled(rows, 16, torch.Generator().manual_seed(0))
    shards = [len(set(chunks.shard[part.numpy()])) for part, _ in drawn]
    assert len(set(chunks.shard[rows])) > 2 * WINDOW  # so a window is a part of it
    assert np.mean(shards[:-3]) > WINDOW / 2


def test_reading_ahead_ends_with_an_epoch_that_is_left_early(saved: Path) -> None:
    chunks = streamed(saved)
    before = set(threading.enumerate())
    drawn = batches(chunks, NAMES, CPU).shuffled(chunks.rows("train"), 4, torch.Generator())
    next(iter(drawn))
    assert set(threading.enumerate()) > before
    drawn.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before


def test_a_shard_that_is_lost_meanwhile_is_an_error(tmp_path: Path) -> None:
    chunks = streamed(write_dataset(tmp_path, make_chunks()))
    shard_path(tmp_path, int(chunks.shard[chunks.rows("train")[-1]])).unlink()
    with pytest.raises(RequestError, match="is missing or damaged"):
        list(batches(chunks, NAMES, CPU).shuffled(chunks.rows("train"), 8, torch.Generator()))


def test_training_from_disk_learns_as_from_memory(saved: Path) -> None:
    small = {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 16, "max_epochs": 12}
    chunks = streamed(saved)
    epochs = list(train("gru", small | {"lr": 3e-3}, chunks, autocast=False))
    assert max(epoch.metrics["val_track_accuracy"] for epoch in epochs) > 0.8
    rows = chunks.rows("valid")
    classifier = epochs[-1].classifier
    resident = batches(load_chunks(saved, ("train", "valid")), NAMES, CPU)
    np.testing.assert_allclose(
        predict_probs(classifier, batches(chunks, NAMES, CPU), rows),
        predict_probs(classifier, resident, rows),
        atol=1e-6,
    )


def test_a_batch_is_given_when_the_next_one_has_been_made() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    given = [(item, len(made)) for item in one_ahead(make())]
    assert given == [(0, 2), (1, 3), (2, 3)]
    assert list(one_ahead(iter([]))) == []


def test_features_that_do_not_fit_a_gpu_are_copied_batch_by_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chunks = make_chunks()
    copied: list[torch.device] = []

    def note(found: Iterator[Any], device: torch.device) -> Iterator[Any]:
        copied.append(device)
        return found

    monkeypatch.setattr("mgc_ray.training.batches.copied_ahead", note)
    source = ResidentBatches(chunks.features, CPU)
    rows = chunks.rows("train")
    expected = list(source.shuffled(rows, 8, torch.Generator().manual_seed(3)))
    assert copied == []
    source._device = torch.device("cpu:0")  # another than where the features are
    found = list(source.shuffled(rows, 8, torch.Generator().manual_seed(3)))
    assert copied == [torch.device("cpu:0")]
    for (a, x), (b, y) in zip(expected, found, strict=True):
        assert a.equal(b)
        assert x["array"].equal(y["array"])


def test_evaluation_is_as_exact_on_a_gpu_as_on_a_cpu() -> None:
    exact: list[bool] = []

    class Source:
        def in_order(self, rows: np.ndarray) -> Iterator[Any]:
            exact.append(not torch.backends.cudnn.allow_tf32)
            yield rows, {"array": torch.zeros(2, 16, 12)}

    classifier = new_classifier("gru", {}, make_chunks().info.features, 3)
    predict_probs(classifier, Source(), np.arange(2))  # type: ignore[arg-type]
    assert exact == [True]
