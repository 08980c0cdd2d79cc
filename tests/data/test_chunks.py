"""Chunks in memory and streamed from disk: the same rows, features and statistics."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks, ChunkTable, StreamedChunks, load_chunks, open_chunks
from mgc_ray.data.dataset import (
    DatasetInfo,
    finish,
    shard_path,
    shared_dataset,
    write_shard,
    write_tracks,
)
from mgc_ray.data.features import FeatureSet
from mgc_ray.data.features.array import Array
from mgc_ray.data.storage import Storage
from tests.data.made_dataset import (
    BANDS,
    FRAMES,
    array_of,
    chunks_of,
    features_of,
    info_of,
    place_of,
    track_of,
    written_dataset,
)

Opened = Callable[..., ChunkTable]
ALL = ("train", "valid", "test")


@pytest.fixture(params=["in memory", "streamed"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """Opens a dataset either way."""
    memory = 0 if request.param == "streamed" else 1 << 30

    def open_(folder: Path, *parts: str) -> ChunkTable:
        chunks = open_chunks(folder, parts or ALL, memory)
        assert isinstance(chunks, StreamedChunks if memory == 0 else Chunks)
        return chunks

    return open_


def features_in(chunks: ChunkTable) -> np.ndarray:
    """The array of all rows, [N, bands, frames]."""
    array = np.full((len(chunks.track), BANDS, FRAMES), -1, np.float32)
    for rows, piece in chunks.pieces(np.arange(len(chunks.track))):
        array[rows] = piece["array"]
    return array


# --- which chunks ---


def test_chunks_are_in_the_order_of_the_files(tmp_path: Path, opened: Opened) -> None:
    chunks = opened(written_dataset(tmp_path))
    assert chunks.info == info_of(finished=True, split_id=chunks.info.split_id)
    names = [chunks.tracks[i].track_id for i in chunks.track]
    assert names == list("bbaaddcc")
    np.testing.assert_array_equal(
        features_in(chunks), np.concatenate([chunks_of(n) for n in "badc"])
    )
    assert chunks.tracks == [track_of(name) for name in "abcd"]
    assert list(chunks.split) == ["valid"] * 2 + ["train"] * 2 + ["test"] * 2 + ["train"] * 2
    np.testing.assert_array_equal(chunks.track_genre, [1, 1, 0, 0])
    np.testing.assert_array_equal(chunks.genre, [1, 1, 1, 1, 0, 0, 0, 0])
    assert list(chunks.track_group) == ["Ella"] * 4
    np.testing.assert_array_equal(chunks.rows("train"), [2, 3, 6, 7])
    assert chunks.nbytes == 8 * 6 * 4


def test_values_keep_their_type(tmp_path: Path, opened: Opened) -> None:
    chunks = opened(written_dataset(tmp_path, info_of(array_of("uint8"))), "train")
    (piece,) = [piece for _, piece in chunks.pieces(np.arange(2))]
    assert piece["array"].dtype == np.uint8
    np.testing.assert_array_equal(piece["array"], chunks_of("a").astype(np.uint8))


def test_other_parts_are_neither_returned_nor_read(tmp_path: Path, opened: Opened) -> None:
    written_dataset(tmp_path)
    shard_path(tmp_path, 1).unlink()  # of the test part and more of train
    chunks = opened(tmp_path, "valid")
    assert set(chunks.split) == {"valid"}
    assert [track.track_id for track in chunks.tracks] == ["b"]
    np.testing.assert_array_equal(chunks.track, [0, 0])
    np.testing.assert_array_equal(features_in(chunks), chunks_of("b"))


def test_a_part_without_tracks_is_empty(tmp_path: Path) -> None:
    chunks = load_chunks(written_dataset(tmp_path), ["elsewhere"])
    assert chunks.features["array"].shape == (0, BANDS, FRAMES)
    assert chunks.tracks == []
    assert len(chunks.track) == len(chunks.split) == 0


def test_chunks_of_one_track_may_be_in_two_parts(tmp_path: Path, opened: Opened) -> None:
    info = info_of(protocol="random-chunks", shards=1, tracks=1)
    track = replace(track_of("a"), split="")
    write_shard(shard_path(tmp_path, 0), info, [(track, features_of("a", 5))], [])
    write_tracks(tmp_path, [(track, place_of(0, 0, 5, "a"))])
    finish(tmp_path, info)
    train, valid = opened(tmp_path, "train"), opened(tmp_path, "valid")
    assert len(train.track) == 4  # of 5 chunks one is held out
    held_out = features_in(valid)
    assert len(held_out) == 1
    together = np.concatenate([features_in(train), held_out])
    np.testing.assert_array_equal(np.sort(together, axis=0), chunks_of("a", 5))
    assert train.tracks == valid.tracks == [track]


def test_rows_are_given_once_whatever_their_order(tmp_path: Path, opened: Opened) -> None:
    chunks = opened(written_dataset(tmp_path))
    all_chunks = np.concatenate([chunks_of(n) for n in "badc"])
    rows = np.array([7, 0, 3, 4])
    pieces = list(chunks.pieces(rows))
    assert sorted(np.concatenate([part for part, _ in pieces])) == [0, 3, 4, 7]
    for part, piece in pieces:
        np.testing.assert_array_equal(piece["array"], all_chunks[part])
    in_order = [part for part, _ in chunks.pieces(np.sort(rows))]
    np.testing.assert_array_equal(np.concatenate(in_order), [0, 3, 4, 7])
    assert list(chunks.pieces(np.array([], np.int64))) == []


def test_some_features_are_read_without_the_others(tmp_path: Path, opened: Opened) -> None:
    columns = {
        name: Array(bands=BANDS, frames=frames, value_type="float32")
        for name, frames in (("array", FRAMES), ("chroma", 1))
    }
    info = info_of(FeatureSet(columns), shards=1)
    both = features_of("a")
    both.columns["chroma"] = chunks_of("a")[:, :, :1] + 0.5
    write_shard(shard_path(tmp_path, 0), info, [(track_of("a"), both)], [])
    write_tracks(tmp_path, [(track_of("a"), place_of(0, 0, 2, "a"))])
    # the description of features is not read here, so both may be arrays
    info = replace(info, finished=True)
    table = StreamedChunks(
        info,
        np.zeros(2, np.int64),
        np.array(["train"] * 2),
        [track_of("a")],
        shared_dataset(tmp_path, None),
        *(np.array(values) for values in ([0, 0], [0, 0], [0, 1], [2, 2])),
    )
    ((_, piece),) = table.pieces(np.arange(2), ["chroma"])
    assert list(piece) == ["chroma"]
    np.testing.assert_array_equal(piece["chroma"], both.columns["chroma"])
    ((_, piece),) = table.pieces(np.arange(2))
    assert list(piece) == ["array", "chroma"]


# --- statistics ---


def test_statistics_are_those_of_the_training_part(tmp_path: Path, opened: Opened) -> None:
    chunks = opened(written_dataset(tmp_path))
    mean, deviation = chunks.band_statistics["array"]
    train = np.concatenate([chunks_of("a"), chunks_of("c")])
    np.testing.assert_allclose(mean, train.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(deviation, train.std((0, 2)), rtol=1e-6)
    # a: 0 1 2 and 10 11 12; c: 200 more; the second band is 3 more than the first
    np.testing.assert_allclose(mean, [106, 109])
    assert mean.dtype == deviation.dtype == np.float32


def test_statistics_of_many_chunks_equal_numpys() -> None:
    random = np.random.default_rng(0)
    spectrograms = random.normal([[-40], [0], [20], [3]], 5, (700, 4, 5)).astype(np.float32)
    split = random.choice(["train", "valid"], 700)
    train = spectrograms[split == "train"].astype(np.float64)
    mean, deviation = chunks_in_memory(spectrograms, split).band_statistics["array"]
    np.testing.assert_allclose(mean, train.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(deviation, train.std((0, 2)), rtol=1e-5)


def test_a_constant_band_does_not_divide_by_zero() -> None:
    spectrograms = np.full((4, 2, 3), -80.1, np.float32)
    spectrograms[:, 1] = np.arange(3)
    chunks = chunks_in_memory(spectrograms, np.array(["train"] * 4))
    mean, deviation = chunks.band_statistics["array"]
    np.testing.assert_allclose(mean, [-80.1, 1], rtol=1e-6)
    np.testing.assert_allclose(deviation, [1e-3, np.sqrt(2 / 3)], rtol=1e-6)


def chunks_in_memory(spectrograms: np.ndarray, split: np.ndarray) -> Chunks:
    _, bands, frames = spectrograms.shape
    features = FeatureSet({"array": Array(bands=bands, frames=frames, value_type="float32")})
    track = np.zeros(len(split), np.int64)
    return Chunks(info_of(features), track, split, [track_of("a")], {"array": spectrograms})


# --- where the shards are ---


def test_features_are_streamed_where_they_take_more_than_the_memory(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    size = 8 * 6 * 4
    assert isinstance(open_chunks(tmp_path, ALL, size), Chunks)
    assert isinstance(open_chunks(tmp_path, ALL, size - 1), StreamedChunks)
    assert isinstance(open_chunks(tmp_path, ALL), Chunks)  # a quarter of this machine's memory


def test_a_node_without_the_folder_fetches_each_shard_from_the_storage(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "storage"))
    folder = written_dataset(tmp_path / "music")
    storage.put(folder, "datasets/music")
    chunks = open_chunks(folder, ALL, 0, storage)
    assert isinstance(chunks, StreamedChunks)
    for shard in range(2):
        shard_path(folder, shard).unlink()
    copies = chunks.dataset.on_this_node().folder
    try:
        np.testing.assert_array_equal(features_in(chunks)[2:4], chunks_of("a"))
        assert shard_path(copies, 0).exists()
    finally:
        chunks.dataset.on_this_node().clear("chunks")


# --- what is refused ---


def test_an_unfinished_dataset_is_refused_with_the_remedy(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    info_of().write(tmp_path)
    with pytest.raises(
        RequestError,
        match=r"is unfinished: run the command that makes it again, it continues where it stopped "
        rf"\(mgc-ray preprocess --tracks music --dataset {tmp_path}\)",
    ):
        load_chunks(tmp_path, ["train"])


def test_a_missing_shard_is_refused(tmp_path: Path, opened: Opened) -> None:
    written_dataset(tmp_path)
    shard_path(tmp_path, 1).unlink()
    with pytest.raises(RequestError, match=r"00001\.parquet is missing or damaged"):
        features_in(opened(tmp_path))


def test_genres_of_an_unlabelled_dataset_are_refused(tmp_path: Path) -> None:
    info: DatasetInfo = info_of(protocol="unlabelled", genres=())
    chunks = load_chunks(written_dataset(tmp_path, info), ["train"])
    with pytest.raises(
        RequestError,
        match="the dataset of music has no genres to learn, as it was made for pre-training "
        r"\(--protocol unlabelled\): give a dataset of labelled tracks",
    ):
        _ = chunks.genre
