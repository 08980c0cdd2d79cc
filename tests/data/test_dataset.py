"""The dataset on disk: what is written is what is read; damage and other settings are refused."""

import json
import re
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
from mgc_ray.config import DatasetConfig
from mgc_ray.data.dataset import (
    ShardContent,
    ShardTrack,
    TrackPlace,
    read_dataset_tracks,
    read_info,
    read_shard,
    read_shard_content,
    read_skipped,
    shard_path,
    split_identity,
    table_name,
    write_shard,
    write_skipped,
    write_tracks,
)
from mgc_ray.data.features import TrackFeatures, audio_features
from mgc_ray.data.files import write_json
from mgc_ray.data.tracks import Skipped, Track
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

# --- shards ---


def test_a_shard_returns_the_chunks_of_the_wanted_tracks(tmp_path: Path) -> None:
    path = shard_path(written_dataset(tmp_path), 0)  # of tracks b and a
    both = read_shard(path, info_of(), [0, 1], ["array"])
    np.testing.assert_array_equal(both["array"], [*chunks_of("b"), *chunks_of("a")])
    assert both["array"].dtype == np.float32
    one = read_shard(path, info_of(), [1], ["array"])
    np.testing.assert_array_equal(one["array"], chunks_of("a"))
    assert read_shard(path, info_of(), [], ["array"])["array"].shape == (0, BANDS, FRAMES)


def test_a_shard_records_its_tracks_and_what_was_skipped(tmp_path: Path) -> None:
    path = tmp_path / "chunks/00000.parquet"
    skipped = [Skipped("/music/x.wav", "empty file")]
    tracks = [(track_of("a"), features_of("a", 3)), (track_of("c"), features_of("c", 1))]
    write_shard(path, info_of(), tracks, skipped)
    assert read_shard_content(path, info_of()) == ShardContent(
        (
            ShardTrack("/music/a.wav", 0, 3, 9.0, "hash a"),
            ShardTrack("/music/c.wav", 1, 1, 3.0, "hash c"),
        ),
        tuple(skipped),
    )
    assert pq.ParquetFile(path).num_row_groups == 2


def test_a_shard_whose_tracks_were_all_skipped_has_no_rows(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, info_of(), [], [Skipped("/music/x.wav", "empty file")])
    assert pq.read_table(path).num_rows == 0
    assert len(read_shard_content(path, info_of()).skipped) == 1


def test_the_duration_of_an_array_is_not_known(tmp_path: Path) -> None:
    features = replace(features_of("a"), seconds=float("nan"))
    path = shard_path(tmp_path, 0)
    write_shard(path, info_of(), [(track_of("a"), features)], [])
    assert np.isnan(read_shard_content(path, info_of()).tracks[0].seconds)


def test_several_features_are_columns_of_their_own_shape_and_type(tmp_path: Path) -> None:
    info = info_of(audio_features(DatasetConfig(features=("log_mel", "mfcc"), chunk_seconds=1)))
    shapes = {name: (f.bands, f.frames) for name, f in info.features.columns.items()}
    assert shapes == {"log_mel": (128, 87), "mfcc": (20, 87)}
    random = np.random.default_rng(0)
    columns = {n: random.normal(size=(2, *shape)).astype("f4") for n, shape in shapes.items()}
    path = shard_path(tmp_path, 0)
    write_shard(path, info, [(track_of("a"), TrackFeatures(columns, 2.0, "hash"))], [])
    table = pq.read_table(path)
    assert table.column_names == ["track_id", "chunk", "log_mel", "mfcc"]
    for name, shape in shapes.items():
        assert table.schema.field(name).type == pa.fixed_shape_tensor(pa.float32(), shape)
        (column,) = read_shard(path, info, [0], [name]).values()
        np.testing.assert_array_equal(column, columns[name])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("feature", ["log_mel", "array"])  # float16 and float32
def test_spectrograms_with_values_that_are_no_numbers_are_refused(
    tmp_path: Path, feature: str, value: str
) -> None:
    """A stranger's dataset: training would only say that the loss of each trial is NaN."""
    features = audio_features(DatasetConfig(features=("log_mel",), chunk_seconds=1))
    info = info_of(features) if feature == "log_mel" else info_of()
    one = info.features.columns[feature]
    chunks = np.ones((2, one.bands, one.frames), one.dtype)
    path = shard_path(tmp_path, 0)
    write_shard(path, info, [(track_of("a"), TrackFeatures({feature: chunks}, 2.0, "h"))], [])
    np.testing.assert_array_equal(read_shard(path, info, [0], [feature])[feature], chunks)
    chunks[1, -1, -1] = float(value)
    write_shard(path, info, [(track_of("a"), TrackFeatures({feature: chunks}, 2.0, "h"))], [])
    with pytest.raises(
        RequestError, match=rf"{feature} holds NaN or infinity\): delete it and run"
    ):
        read_shard(path, info, [0], [feature])


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    wrong = TrackFeatures({"array": np.zeros((2, BANDS, FRAMES + 1), np.float32)}, 6.0, "hash")
    with pytest.raises((ValueError, TypeError, pa.ArrowException)):
        write_shard(shard_path(tmp_path, 0), info_of(), [(track_of("a"), wrong)], [])
    assert list((tmp_path / "chunks").iterdir()) == []


# --- tracks and skipped files ---


def test_tracks_and_places_are_read_as_they_were_written(tmp_path: Path) -> None:
    tracks = [track_of("a"), replace(track_of("b"), artist="Ünï – 音", split="", added=True)]
    places = [place_of(3, 1, 1, "a"), replace(place_of(0, 0, 10, "b"), seconds=float("nan"))]
    write_tracks(tmp_path, list(zip(tracks, places, strict=True)))
    tracks_read, places_read = read_dataset_tracks(tmp_path)
    assert tracks_read == tracks
    assert places_read[0] == places[0]
    assert np.isnan(places_read[1].seconds)
    assert replace(places_read[1], seconds=0.0) == replace(places[1], seconds=0.0)


def test_a_reason_with_commas_and_line_ends_stays_one_row(tmp_path: Path) -> None:
    skipped = [Skipped("a, b.wav", 'no "audio"\nat all')]
    write_skipped(tmp_path, skipped)
    rows = pd.read_csv(tmp_path / "skipped.csv")
    assert rows.to_dict("records") == [{"path": "a, b.wav", "reason": 'no "audio"\nat all'}]
    assert read_skipped(tmp_path) == skipped
    assert read_skipped(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("line", ["", "a.mp3", "a.mp3,x,y,z", "\0", '"a.mp3', "path,reason"])
def test_a_damaged_list_of_what_was_skipped_says_what_it_can(tmp_path: Path, line: str) -> None:
    (tmp_path / "skipped.csv").write_text(f"path,reason\n{line}\nb.mp3,silent\n")
    read = read_skipped(tmp_path)
    assert Skipped("b.mp3", "silent") in read or line in ("\0", '"a.mp3')


@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_a_missing_or_damaged_list_of_tracks_is_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "tracks.parquet").write_bytes(content)
    with pytest.raises(
        RequestError,
        match=r"tracks\.parquet is missing or damaged .*: make the dataset again with --overwrite",
    ):
        read_dataset_tracks(tmp_path)


def test_a_list_of_tracks_of_another_program_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.wav"]}), tmp_path / "tracks.parquet")
    with pytest.raises(
        RequestError, match=r"tracks\.parquet is missing or damaged \(0\.genre: Field required"
    ):
        read_dataset_tracks(tmp_path)


# --- readable by other programs ---


def test_plain_pyarrow_sees_a_fixed_shape_tensor_and_the_settings(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    table = pq.read_table(shard_path(tmp_path, 1))
    assert table.column_names == ["track_id", "chunk", "array"]
    assert table.schema.field("array").type == pa.fixed_shape_tensor(pa.float32(), [2, 3])
    tensor = table["array"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(tensor, [*chunks_of("d"), *chunks_of("c")])
    assert table["track_id"].to_pylist() == ["d", "d", "c", "c"]
    assert table["chunk"].to_pylist() == [0, 1, 0, 1]
    content = json.loads(table.schema.metadata[b"mgc_ray"])
    assert content["listing"] == "abc"
    assert content["features"] == array_of().to_json()
    assert [track["path"] for track in content["tracks"]] == ["/music/d.wav", "/music/c.wav"]


def test_the_folder_of_shards_is_one_table_for_pyarrow(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    (tmp_path / "chunks" / ".00002.parquet.1.tmp").write_bytes(b"a shard that was never complete")
    assert pq.read_table(tmp_path / "chunks").num_rows == 8


def test_pandas_gives_each_chunk_as_a_flat_array(tmp_path: Path) -> None:
    # pandas knows no tensors: a cell is the chunk's values in one dimension, [bands * frames], row
    # by row, so `cell.reshape(bands, frames)` is the chunk again.
    written_dataset(tmp_path)
    frame = pd.read_parquet(shard_path(tmp_path, 0))
    assert list(frame["track_id"]) == ["b", "b", "a", "a"]
    cell = frame["array"][3]
    assert isinstance(cell, np.ndarray)
    assert (cell.shape, cell.dtype) == ((6,), np.float32)
    np.testing.assert_array_equal(cell.reshape(BANDS, FRAMES), chunks_of("a")[1])


# --- damaged shards, and those of other settings ---


@pytest.mark.parametrize("changed", [{"listing": "abd"}, {"features": array_of("uint8")}])
def test_a_shard_of_other_settings_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    written_dataset(tmp_path / "one")
    written_dataset(tmp_path / "other", info_of(**changed))
    path = shard_path(tmp_path / "one", 1)
    shutil.copy(shard_path(tmp_path / "other", 1), path)
    refusal = (
        r"00001\.parquet was made with other settings than dataset\.json says: delete the folder "
        r"and make it again: mgc-ray preprocess --tracks music --dataset"
    )
    with pytest.raises(RequestError, match=refusal):
        read_shard(path, info_of(), [0], ["array"])
    with pytest.raises(RequestError, match=refusal):
        read_shard_content(path, info_of())


def test_a_shard_does_not_depend_on_the_split(tmp_path: Path) -> None:
    written_dataset(tmp_path)
    other = info_of(split_seed=4, protocol="random-chunks")
    assert len(read_shard_content(shard_path(tmp_path, 0), other).tracks) == 2


def test_a_parquet_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "00000.parquet"
    pq.write_table(pa.table({"split": ["train"]}), path)
    with pytest.raises(RequestError, match="was made with other settings"):
        read_shard(path, info_of(), [0], ["array"])


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "head", "middle", "tail"])
def test_a_missing_or_damaged_shard_is_refused_with_the_remedy(tmp_path: Path, damage: str) -> None:
    path = shard_path(written_dataset(tmp_path), 0)
    content = path.read_bytes()
    middle = bytearray(content)
    middle[4:300] = b"\xff" * 296
    path.unlink()
    if damage != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "text": b"no shard at all\n" * 9,
                "head": content[: len(content) // 2],
                "middle": bytes(middle),
                "tail": content[len(content) // 2 :],
            }[damage]
        )
    with pytest.raises(
        RequestError,
        match=rf"00000\.parquet is missing or damaged \(.*\): delete it and run again: "
        rf"mgc-ray preprocess --tracks music --dataset {tmp_path}$",
    ):
        read_shard(path, info_of(), [0, 1], ["array"])


def test_a_row_group_that_a_shard_does_not_have_is_refused(tmp_path: Path) -> None:
    path = shard_path(written_dataset(tmp_path), 0)
    with pytest.raises(RequestError, match="is missing or damaged"):
        read_shard(path, info_of(), [7], ["array"])


# --- dataset.json ---


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    changed = {"protocol": "cross-validation", "fold": "1/3", "chunks_per_track": 1, "synthetic": 5}
    for info in (info_of(), info_of(finished=True, **changed)):
        info.write(tmp_path)
        assert read_info(tmp_path) == info


def _rows(**changed: dict[str, Any]) -> list[tuple[Track, TrackPlace]]:
    """Four tracks; `changed`: fields of a track or its place, by the track's name."""
    rows = []
    for name in "abcd":
        track, place = track_of(name), place_of(0, 0, 2, name)
        fields = changed.get(name, {})
        of_place = {key: fields.pop(key) for key in ("content_hash", "shard") if key in fields}
        rows.append((replace(track, **fields), replace(place, **of_place)))
    return rows


def test_a_split_is_the_same_wherever_its_files_are() -> None:
    split = split_identity(_rows(), info_of())
    assert re.fullmatch("[0-9a-f]{16}", split)
    moved = _rows(a={"path": "/elsewhere/a.wav", "shard": 1})[::-1]
    assert split_identity(moved, info_of(listing="abd", tracks="elsewhere")) == split


@pytest.mark.parametrize(
    "change",
    [
        {"split": "valid"},
        {"group": "Kim"},
        {"genre": "blues"},
        {"added": True},
        {"track_id": "e"},
        {"content_hash": "another recording"},
    ],
)
def test_another_part_group_genre_or_recording_makes_another_split(change: dict[str, Any]) -> None:
    assert split_identity(_rows(a=change), info_of()) != split_identity(_rows(), info_of())


def test_one_track_less_makes_another_split() -> None:
    split = split_identity(_rows(), info_of())
    assert split_identity(_rows()[:-1], info_of()) != split
    # chunks of random-chunks are split by the seed, not by tracks
    assert split_identity(_rows(), info_of(split_seed=4)) != split


def test_a_folder_without_a_dataset_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError,
        match=r"is no dataset: dataset\.json is missing; make it with: mgc-ray preproc",
    ):
        read_info(tmp_path)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"config": None}, "config must be settings by name, but it is None"),
        ({"config": {"compression": "zstd"}}, "there is no setting 'config.compression'"),
        ({"config": {"split_seed": -1}}, "--split-seed must be a whole number from 0"),
        ({"features": "log_mel"}, "the description of features is damaged or from another version"),
        ({"features": {"columns": {"onsets": {}}}}, "there is no feature 'onsets'"),
        ({"genres": 5}, "genres must be a list of names, but it is 5"),
        ({"tracks": "many"}, "another version of this program .*: make it with: mgc-ray"),
    ],
)
def test_a_damaged_description_is_refused(
    tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    info_of().write(tmp_path)
    content = json.loads((tmp_path / "dataset.json").read_text())
    write_json(tmp_path / "dataset.json", content | changed)
    with pytest.raises(RequestError, match=reason):
        read_info(tmp_path)


@pytest.mark.parametrize("name", ["config", "features", "listing"])
def test_a_description_without_a_field_is_refused(tmp_path: Path, name: str) -> None:
    info_of().write(tmp_path)
    content = json.loads((tmp_path / "dataset.json").read_text())
    del content[name]
    write_json(tmp_path / "dataset.json", content)
    with pytest.raises(
        RequestError, match=f"another version of this program .{name} is needed.: make it"
    ):
        read_info(tmp_path)


def test_protocols_are_described_with_their_fold() -> None:
    assert info_of().protocol_in_words == "grouped"
    cross_validation = info_of(protocol="cross-validation", fold="2/5")
    assert cross_validation.protocol_in_words == "cross-validation, fold 2/5"
    assert not info_of().leaky
    assert info_of(protocol="random-chunks").leaky


def test_a_table_is_named_without_the_folders_of_this_machine() -> None:
    assert table_name("/home/ella/music/gtzan/tracks.csv") == "gtzan/tracks.csv"
    assert info_of().source_name == "music"
