"""The dataset on disk: what is written is what is read, and what is not whole is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks, load_chunks
from mgc_ray.data.dataset import (
    DatasetInfo,
    describe,
    finish,
    read_info,
    read_track_rows,
    shard_path,
    write_shard,
    write_skipped,
    write_tracks,
)
from mgc_ray.data.files import read_json, write_csv, write_json, written_whole
from mgc_ray.data.spectrogram import BandGroups, Inspection, LogMel, Precomputed
from mgc_ray.data.tracks import Skipped, Track

BANDS, FRAMES = 2, 3
SPLIT_OF = {"a": "train", "b": "valid", "c": "train", "d": "test"}
GENRE_OF = {"a": "jazz", "b": "jazz", "c": "blues", "d": "blues"}


def info_of(**changed: Any) -> DatasetInfo:
    info = DatasetInfo(
        features=Precomputed(BANDS, FRAMES, "float32"),
        genres=("blues", "jazz"),
        protocol="grouped",
        seed=3,
        source="music",
        listing="abc",
        shards=2,
        tracks=4,
    )
    return replace(info, **changed)


def track_of(name: str) -> Track:
    return Track(f"/music/{name}.wav", GENRE_OF[name], name, "Ella", "Ella", SPLIT_OF[name])


def chunks_of(name: str, count: int = 2) -> np.ndarray:
    """[count, 2, 3] numbers that are found nowhere else: 100 for each track, 10 for each chunk."""
    base = 100 * "abcd".index(name) + 10 * np.arange(count)
    return (base[:, None, None] + np.arange(6).reshape(2, 3)).astype(np.float32)


def written_dataset(folder: Path, info: DatasetInfo | None = None) -> Path:
    """Tracks a and b in the first shard, c and d in the second; two chunks each."""
    info = info or info_of()
    for shard, names in enumerate(("ab", "cd")):
        dtype = info.features.dtype
        rows = [(track_of(n), chunks_of(n).astype(dtype), [SPLIT_OF[n]] * 2) for n in names]
        assert write_shard(folder, shard, info, rows) == 4
    found = [Inspection(6.0, 2, f"hash {name}") for name in "abcd"]
    write_tracks(folder, [track_of(name) for name in "abcd"], found)
    finish(folder, info)
    return folder


# --- what is written is what is read ---


def test_all_chunks_come_back_in_their_order(tmp_path: Path) -> None:
    chunks = load_chunks(written_dataset(tmp_path), ["train", "valid", "test"])
    assert chunks.info == info_of(finished=True)
    np.testing.assert_array_equal(
        chunks.spectrograms, np.concatenate([chunks_of(name) for name in "abcd"])
    )
    assert chunks.spectrograms.dtype == np.float32
    assert chunks.tracks == [track_of(name) for name in "abcd"]
    np.testing.assert_array_equal(chunks.track, [0, 0, 1, 1, 2, 2, 3, 3])
    assert list(chunks.split) == ["train"] * 2 + ["valid"] * 2 + ["train"] * 2 + ["test"] * 2
    np.testing.assert_array_equal(chunks.track_genre, [1, 1, 0, 0])
    np.testing.assert_array_equal(chunks.genre, [1, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(chunks.rows("train"), [0, 1, 4, 5])


def test_bytes_stay_bytes(tmp_path: Path) -> None:
    info = info_of(features=Precomputed(BANDS, FRAMES, "uint8"))
    chunks = load_chunks(written_dataset(tmp_path, info), ["train"])
    assert chunks.spectrograms.dtype == np.uint8
    expected = np.concatenate([chunks_of("a"), chunks_of("c")]).astype(np.uint8)
    np.testing.assert_array_equal(chunks.spectrograms, expected)


def test_rows_of_unwanted_splits_are_not_returned(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    chunks = load_chunks(tmp_path, ["train", "valid"])
    assert set(chunks.split) == {"train", "valid"}
    assert [track.track_id for track in chunks.tracks] == ["a", "b", "c"]
    np.testing.assert_array_equal(chunks.track, [0, 0, 1, 1, 2, 2])
    assert chunks.spectrograms.max() < 300
    test = load_chunks(tmp_path, ["test"])
    assert [track.track_id for track in test.tracks] == ["d"]
    np.testing.assert_array_equal(test.track, [0, 0])
    np.testing.assert_array_equal(test.spectrograms, chunks_of("d"))


def test_a_part_that_no_track_is_in_is_empty(tmp_path: Path) -> None:
    chunks = load_chunks(written_dataset(tmp_path), ["elsewhere"])
    assert chunks.spectrograms.shape == (0, BANDS, FRAMES)
    assert chunks.tracks == []
    assert len(chunks.track) == len(chunks.split) == 0


def test_chunks_of_one_track_may_be_in_two_parts(tmp_path: Path) -> None:
    info = info_of(protocol="random-chunks", shards=1, tracks=1)
    track = replace(track_of("a"), split="")
    write_shard(tmp_path, 0, info, [(track, chunks_of("a", 3), ["train", "valid", "train"])])
    write_tracks(tmp_path, [track], [Inspection(9.0, 3, "hash a")])
    finish(tmp_path, info)
    assert info.leaky
    train, valid = load_chunks(tmp_path, ["train"]), load_chunks(tmp_path, ["valid"])
    np.testing.assert_array_equal(train.spectrograms, chunks_of("a", 3)[[0, 2]])
    np.testing.assert_array_equal(valid.spectrograms, chunks_of("a", 3)[[1]])
    assert train.tracks == valid.tracks == [track]


def test_a_shard_without_rows_can_be_written(tmp_path: Path) -> None:
    assert write_shard(tmp_path, 0, info_of(), []) == 0
    assert pq.read_table(shard_path(tmp_path, 0)).num_rows == 0


def test_tracks_and_findings_come_back(tmp_path: Path) -> None:
    tracks = [track_of("a"), replace(track_of("b"), artist="Ünï – 音", split="")]
    found = [Inspection(1.5, 1, "x"), Inspection(float("nan"), 10, "y")]
    write_tracks(tmp_path, tracks, found)
    tracks_read, found_read = read_track_rows(tmp_path)
    assert tracks_read == tracks
    assert found_read[0] == found[0]
    assert np.isnan(found_read[1].seconds)
    assert (found_read[1].chunks, found_read[1].content_hash) == (10, "y")


def test_reasons_with_commas_and_line_ends_stay_one_row(tmp_path: Path) -> None:
    write_skipped(tmp_path, [Skipped("a, b.wav", 'no "audio"\nat all')])
    rows = pd.read_csv(tmp_path / "skipped.csv")
    assert rows.to_dict("records") == [{"path": "a, b.wav", "reason": 'no "audio"\nat all'}]


# --- readable by others ---


def test_plain_pyarrow_sees_a_fixed_shape_tensor_and_the_settings(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    table = pq.read_table(shard_path(tmp_path, 1))
    assert table.column_names == ["track_id", "chunk", "genre", "group", "split", "log_mel"]
    assert table.schema.field("log_mel").type == pa.fixed_shape_tensor(pa.float32(), [2, 3])
    tensor = table["log_mel"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(tensor, np.concatenate([chunks_of("c"), chunks_of("d")]))
    assert table["track_id"].to_pylist() == ["c", "c", "d", "d"]
    assert table["chunk"].to_pylist() == [0, 1, 0, 1]
    assert table["genre"].to_pylist() == ["blues"] * 4
    assert table["group"].to_pylist() == ["Ella"] * 4
    assert table["split"].to_pylist() == ["train", "train", "test", "test"]
    assert json.loads(table.schema.metadata[b"mgc_ray"]) == {
        "features": {"kind": "precomputed", "bands": 2, "frames": 3, "value_type": "float32"},
        "genres": ["blues", "jazz"],
        "protocol": "grouped",
        "seed": 3,
        "source": "music",
        "listing": "abc",
        "shards": 2,
        "tracks": 4,
    }


def test_the_folder_of_shards_is_one_table_for_pyarrow(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    (tmp_path / "chunks" / ".00002.parquet.1.tmp").write_bytes(b"a shard that was never whole")
    assert pq.read_table(tmp_path / "chunks").num_rows == 8


def test_pandas_gives_each_chunk_as_a_flat_array(tmp_path: Path) -> None:
    # pandas knows no tensors: a cell is the chunk's values in one dimension, [bands * frames], row
    # by row, so `cell.reshape(bands, frames)` is the chunk again.
    written_dataset(tmp_path)
    frame = pd.read_parquet(shard_path(tmp_path, 0))
    assert list(frame["track_id"]) == ["a", "a", "b", "b"]
    cell = frame["log_mel"][1]
    assert isinstance(cell, np.ndarray)
    assert (cell.shape, cell.dtype) == ((6,), np.float32)
    np.testing.assert_array_equal(cell.reshape(BANDS, FRAMES), chunks_of("a")[1])


# --- statistics ---


def test_statistics_are_those_of_the_train_rows_alone(tmp_path: Path) -> None:
    chunks = load_chunks(written_dataset(tmp_path), ["train", "valid", "test"])
    mean, deviation = chunks.band_statistics
    train = np.concatenate([chunks_of("a"), chunks_of("c")])
    np.testing.assert_allclose(mean, train.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(deviation, train.std((0, 2)), rtol=1e-6)
    # a: 0 1 2 and 10 11 12; c: 200 more; the second band is 3 more than the first
    np.testing.assert_allclose(mean, [106, 109])
    assert mean.dtype == deviation.dtype == np.float32


def test_statistics_of_many_chunks_are_numpys() -> None:
    random = np.random.default_rng(0)
    info = info_of(features=Precomputed(4, 5, "float32"))
    spectrograms = random.normal([[-40], [0], [20], [3]], 5, (700, 4, 5)).astype(np.float32)
    split = random.choice(["train", "valid"], 700)
    chunks = _chunks(info, spectrograms, split)
    train = spectrograms[split == "train"].astype(np.float64)
    mean, deviation = chunks.band_statistics
    np.testing.assert_allclose(mean, train.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(deviation, train.std((0, 2)), rtol=1e-5)


def test_a_band_that_never_changes_does_not_divide_by_zero() -> None:
    spectrograms = np.full((4, 2, 3), -80.1, np.float32)
    spectrograms[:, 1] = np.arange(3)
    mean, deviation = _chunks(info_of(), spectrograms, np.array(["train"] * 4)).band_statistics
    np.testing.assert_allclose(mean, [-80.1, 1], rtol=1e-6)
    np.testing.assert_allclose(deviation, [1e-3, np.sqrt(2 / 3)], rtol=1e-6)


def _chunks(info: DatasetInfo, spectrograms: np.ndarray, split: np.ndarray) -> Chunks:
    return Chunks(info, np.zeros(len(split), np.int64), split, [track_of("a")], spectrograms)


# --- what is refused ---


def test_an_unfinished_dataset_is_refused_with_the_remedy(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    info_of().write(tmp_path)
    assert not read_info(tmp_path).finished
    with pytest.raises(
        RequestError,
        match=rf"is unfinished: run the same command .*--tracks music --dataset {tmp_path}\)",
    ):
        load_chunks(tmp_path, ["train"])


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 4},
        {"protocol": "random-chunks"},
        {"listing": "abd"},
        {"features": Precomputed(BANDS, FRAMES, "uint8")},
        {"genres": ("blues", "rock")},
        {"fold": "1/5"},
        {"synthetic": 1},
    ],
)
def test_a_shard_of_other_settings_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    written_dataset(tmp_path / "one")
    written_dataset(tmp_path / "other", info_of(**changed))
    shutil.copy(shard_path(tmp_path / "other", 1), shard_path(tmp_path / "one", 1))
    with pytest.raises(
        RequestError,
        match=r"00001\.parquet was made with other settings than dataset\.json says: delete the",
    ):
        load_chunks(tmp_path / "one", ["train"])


def test_a_parquet_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    pq.write_table(pa.table({"split": ["train"]}), shard_path(tmp_path, 0))
    with pytest.raises(RequestError, match="was made with other settings"):
        load_chunks(tmp_path, ["train"])


def test_a_missing_shard_is_refused_with_the_remedy(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    shard_path(tmp_path, 1).unlink()
    with pytest.raises(
        RequestError,
        match=rf"00001\.parquet is missing or damaged .*: delete it and run again: python -m "
        rf"mgc_ray\.preprocess --tracks music --dataset {tmp_path}$",
    ):
        load_chunks(tmp_path, ["train"])


@pytest.mark.parametrize("damage", ["empty", "text", "head", "middle", "tail"])
def test_a_damaged_shard_is_refused(tmp_path: Path, damage: str) -> None:
    written_dataset(tmp_path)
    path = shard_path(tmp_path, 0)
    content = path.read_bytes()
    middle = bytearray(content)
    middle[4:400] = b"\xff" * 396
    path.write_bytes(
        {
            "empty": b"",
            "text": b"no shard at all\n" * 9,
            "head": content[: len(content) // 2],
            "middle": bytes(middle),
            "tail": content[len(content) // 2 :],
        }[damage]
    )
    with pytest.raises(RequestError, match=r"00000\.parquet is missing or damaged \("):
        load_chunks(tmp_path, ["train", "valid"])


@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_a_missing_or_damaged_list_of_tracks_is_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    written_dataset(tmp_path)
    (tmp_path / "tracks.parquet").unlink()
    if content is not None:
        (tmp_path / "tracks.parquet").write_bytes(content)
    with pytest.raises(RequestError, match=r"tracks\.parquet is missing or damaged .* --anew"):
        load_chunks(tmp_path, ["train"])


def test_a_folder_without_a_dataset_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError,
        match=r"is no dataset: dataset\.json is missing; make it with: python -m mgc_ray.preproc",
    ):
        read_info(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no dataset: dataset.json: Expecting value"),
        ("no json", "is no dataset: dataset.json: Expecting value"),
        ('{"genres": ["a"', "is no dataset: dataset.json: Expecting"),
        ("[1, 2]", "is no dataset: dataset.json holds no object"),
        ("{}", r"was made by another version of this program \('features'\): make it with"),
        ('{"features": "log_mel", "genres": []}', "features must be one of"),
        ('{"features": {"kind": "mfcc"}, "genres": []}', "features must be one of"),
        ('{"features": {"kind": "log_mel"}}', r"another version of this program \('genres'\)"),
        ('{"features": {"kind": "log_mel"}, "genres": 5}', "another version of this program"),
        ('{"features": {"kind": "log_mel"}, "genres": []}', "another version .* missing"),
    ],
)
def test_garbage_in_dataset_json_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(RequestError, match=told):
        load_chunks(tmp_path, ["train"])


def test_dataset_json_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(RequestError, match="is no dataset: dataset.json: 'utf-8' codec"):
        read_info(tmp_path)


def test_a_field_of_a_later_version_is_refused(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    content = json.loads((tmp_path / "dataset.json").read_text())
    write_json(tmp_path / "dataset.json", content | {"compression": "zstd"})
    with pytest.raises(RequestError, match=r"another version of this program \(.*compression"):
        read_info(tmp_path)


# --- files that are whole or not there ---


class Interruption(BaseException):
    """Like KeyboardInterrupt: no Exception, may come anywhere."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Interruption])
def test_a_block_that_raises_leaves_the_old_file_and_no_other(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), written_whole(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_raises_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half"), written_whole(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise ValueError("half")
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_only_when_the_block_is_done(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with written_whole(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.name.startswith(".")
        assert not temporary.match("*.parquet")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected length 2 but got length 1"):
        write_shard(tmp_path, 0, info_of(), [(track_of("a"), chunks_of("a"), ["train"])])
    assert not shard_path(tmp_path, 0).exists()


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, None], "a": "音"})
    assert list(read_json(tmp_path / "a.json", "file", "")) == ["b", "a"]
    assert read_json(tmp_path / "a.json", "file", "") == {"b": [1, None], "a": "音"}


def test_csv_has_a_header_and_plain_line_ends(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["a", "b"], [[1, "x,y"]])
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\n1,"x,y"\n'


def test_features_are_described_in_words() -> None:
    assert describe(LogMel()) == "log-mel 128 bands x 258 frames, 2.99 s a chunk"
    assert describe(Precomputed(128, 38, "uint8")) == "precomputed 128 bands x 38 frames a chunk"
    groups = BandGroups(("chroma", "log_mel"), LogMel(chunk_samples=44_100))
    assert describe(groups) == "log-mel, chroma 140 bands x 173 frames, 2.00 s a chunk"


def test_protocols_are_told_with_their_fold() -> None:
    assert info_of().protocol_in_words == "grouped"
    cross_validation = info_of(protocol="cross-validation", fold="2/5")
    assert cross_validation.protocol_in_words == "cross-validation, fold 2/5"


def test_settings_that_stand_at_their_default_are_left_out_as_in_older_datasets(
    tmp_path: Path,
) -> None:
    older = {"genres", "protocol", "seed", "source", "listing", "shards", "tracks", "features"}
    assert set(info_of().settings) == older
    info = info_of(fold="1/3", chunks_per_track=1, synthetic=5)
    assert set(info.settings) == older | {"fold", "chunks_per_track", "synthetic"}
    for one in (info_of(), info):
        one.write(tmp_path)
        assert read_info(tmp_path) == one
