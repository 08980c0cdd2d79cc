"""A dataset that is there already: when it is continued, overwritten or refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import mgc_ray.corpus.composer
import mgc_ray.pipeline.preprocess
import mgc_ray.tuning.cluster
from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.chunks import load_chunks
from mgc_ray.data.dataset import read_dataset_tracks, shard_path
from mgc_ray.data.tracks import Skipped, Track
from mgc_ray.pipeline.tables import read_tables
from tests.pipeline.making import (
    PARTS,
    arrays,
    contents,
    make,
    music,
    reasons,
    shards,
    times,
    wav,
)
from tests.places import DAMAGE

pytestmark = pytest.mark.usefixtures("ray_cluster", "small_shards")


def _key(source: Path, **settings: Any) -> str:
    return read_tables(DatasetConfig(tracks=str(source), **settings)).key


def test_the_key_changes_with_every_setting_and_with_the_files(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 6, ("blues", "jazz"))
    spectrograms = arrays(tmp_path / "arrays")
    requests: list[tuple[Path, dict[str, Any]]] = [
        (source, {}),
        (source, {"protocol": "random-chunks"}),
        (source, {"split_seed": 1}),
        (source, {"protocol": "cross-validation", "fold": "1/5"}),
        (source, {"protocol": "cross-validation", "fold": "2/5"}),
        (source, {"chunk_seconds": 5.0}),
        (source, {"synthetic": 2}),
        (source, {"synthetic": 3}),
        (spectrograms, {}),
        (spectrograms, {"chunks_per_track": 1}),
    ]
    keys = [_key(tracks, **settings) for tracks, settings in requests]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 8 for key in keys)
    assert keys == [_key(tracks, **settings) for tracks, settings in requests]
    wav(source / "jazz" / "jazz0.wav", 1000)
    assert _key(source) != keys[0]
    of_size = arrays(tmp_path / "gtzan", 128, 387)
    assert _key(of_size) != _key(of_size, array_recipe="gtzan")


def test_the_order_of_features_does_not_change_the_key(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    keys = [_key(source, features=f) for f in ("log_mel", ("log_mel", "mfcc"), ("mfcc", "log_mel"))]
    assert keys[0] != keys[1] == keys[2]


def test_another_version_of_the_composer_changes_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = music(tmp_path / "music", 3)
    before = [_key(source, synthetic=count) for count in (0, 2)]
    composer = mgc_ray.corpus.composer
    monkeypatch.setattr(composer, "VERSION", composer.VERSION + 1)
    after = [_key(source, synthetic=count) for count in (0, 2)]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_finished_dataset_needs_no_work_and_no_ray(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dataset = made
    before = times(dataset)
    assert list(before) == ["00000.parquet", "00001.parquet"]

    def never(*_: Any) -> None:
        raise AssertionError("Ray was asked for")

    monkeypatch.setattr(mgc_ray.tuning.cluster, "ray_cluster", never)
    assert make(source, dataset).finished
    assert times(dataset) == before


def test_a_storage_that_is_given_later_gets_what_it_lacks(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    """Nodes that stream the dataset have its shards from the storage alone."""
    source, dataset = made
    copy = tmp_path / "storage/datasets" / dataset.name
    for run in range(2):
        assert make(source, dataset, storage=str(tmp_path / "storage")).finished
        names = [path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()]
        chunks = ["chunks/00000.parquet", "chunks/00001.parquet"]
        assert sorted(names) == [*chunks, "dataset.json", "skipped.csv", "tracks.parquet"], run
        for name in names:
            assert (copy / name).read_bytes() == (dataset / name).read_bytes()
        (copy / chunks[1]).unlink()  # and is sent again


def test_a_head_that_has_nothing_continues_from_the_storage(tmp_path: Path) -> None:
    source, dataset = music(tmp_path / "music"), tmp_path / "a/dataset"
    storage = str(tmp_path / "storage")
    make(source, dataset, storage=storage)
    expected = contents(dataset)
    shutil.rmtree(tmp_path / "a")
    sent = {path: path.stat().st_mtime_ns for path in Path(storage).rglob("*.parquet")}
    assert make(source, dataset, storage=storage).finished
    assert contents(dataset) == expected
    assert {path: path.stat().st_mtime_ns for path in sent} == sent  # no shard was computed again


@pytest.mark.parametrize("how", [None, *DAMAGE])
def test_only_a_shard_that_is_deleted_or_damaged_is_written_again(
    made: tuple[Path, Path], how: str | None
) -> None:
    source, dataset = made
    before, expected = times(dataset), contents(dataset)
    if how:
        DAMAGE[how](shard_path(dataset, 0))
    else:
        shard_path(dataset, 0).unlink()
    assert make(source, dataset).finished
    after = times(dataset)
    assert after["00001.parquet"] == before["00001.parquet"]
    assert after["00000.parquet"] != before["00000.parquet"]
    assert contents(dataset) == expected


@pytest.mark.parametrize("name", ["dataset.json", "tracks.parquet"])
def test_a_damaged_description_is_made_again_from_the_shards(
    made: tuple[Path, Path], name: str
) -> None:
    source, dataset = made
    before, expected = times(dataset), contents(dataset)
    DAMAGE["empty"](dataset / name)
    assert make(source, dataset).finished
    assert times(dataset) == before
    assert contents(dataset) == expected


def test_other_settings_for_the_same_folder_are_refused_with_both_values(
    made: tuple[Path, Path],
) -> None:
    source, dataset = made
    before = times(dataset)
    remedy = "give another --dataset, or add --overwrite to delete this one and make it again"
    with pytest.raises(RequestError, match=f"made with split_seed 0, but it is now 7: {remedy}"):
        make(source, dataset, split_seed=7)
    with pytest.raises(
        RequestError,
        match=f"made with protocol 'grouped', but it is now 'random-chunks': {remedy}",
    ):
        make(source, dataset, protocol="random-chunks")
    wav(source / "jazz" / "new.wav", 77)
    with pytest.raises(
        RequestError,
        match=rf"was made from {source} with 8 usable tracks, but {source} has changed since or is "
        rf"another table \(9 rows\): {remedy}",
    ):
        make(source, dataset)
    (source / "jazz" / "new.wav").unlink()
    wav(source / "jazz" / "jazz0.wav", 78)
    with pytest.raises(RequestError, match="has changed since"):
        make(source, dataset)
    assert times(dataset) == before


def test_features_of_other_settings_are_refused(made: tuple[Path, Path]) -> None:
    source, dataset = made
    content = json.loads((dataset / "dataset.json").read_text())
    content["features"]["columns"]["log_mel"]["n_mels"] = 64
    (dataset / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(
        RequestError,
        match=r"made with features log_mel 64 bands .*, but now they are log_mel 128 bands",
    ):
        make(source, dataset)


def test_overwrite_deletes_what_was_there(made: tuple[Path, Path]) -> None:
    source, dataset = made
    before = times(dataset)
    for i in range(3):  # what was made of these must not stay
        (source / "jazz" / f"jazz{i}.wav").unlink()
        (source / "rock" / f"rock{i}.wav").unlink()
    for i in range(3):
        wav(source / "jazz" / f"new{i}.wav", 80 + i)
    (source / "rock").rename(source / "blues")
    for i in range(2):
        wav(source / "blues" / f"new_blues{i}.wav", 90 + i)
    info = make(source, dataset, split_seed=7, overwrite=True)
    assert (info.seed, info.genres, info.tracks) == (7, ("blues", "jazz"), 7)
    assert all(times(dataset)[name] != before[name] for name in before)
    ids = {track.track_id for track in load_chunks(dataset, PARTS).tracks}
    assert ids == {"jazz3", "rock3", "new0", "new1", "new2", "new_blues0", "new_blues1"}


def test_overwrite_needs_no_dataset(tmp_path: Path) -> None:
    assert make(music(tmp_path / "music", 3), tmp_path / "dataset", overwrite=True).finished


def test_the_split_is_drawn_after_all_features_and_before_any_chunk_has_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a dataset in which one recording is in two shards, under two artists' names."""
    source, dataset = music(tmp_path / "music", 8), tmp_path / "dataset"
    drawn: list[Sequence[Track]] = []
    original = mgc_ray.pipeline.preprocess.draw_split

    def draw(
        tracks: Sequence[Track], hashes: dict[str, str], *settings: Any
    ) -> tuple[list[Track], list[Skipped]]:
        assert len(shards(dataset)) == 4
        for path in shards(dataset):
            assert pq.read_schema(path).names == ["track_id", "chunk", "log_mel"]
        assert set(hashes) == {track.path for track in tracks}
        assert not (dataset / "tracks.parquet").exists()
        assert {track.split for track in tracks} == {""}
        drawn.append(tracks)
        return original(tracks, hashes, *settings)

    monkeypatch.setattr(mgc_ray.pipeline.preprocess, "draw_split", draw)
    make(source, dataset)
    assert len(drawn) == 1
    tracks, places = read_dataset_tracks(dataset)
    assert {track.split for track in tracks} == set(PARTS)
    assert {place.shard for place in places} == {0, 1, 2, 3}


def test_the_shards_do_not_depend_on_the_protocol(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 5)
    for protocol in ("grouped", "random-chunks"):
        make(source, tmp_path / protocol, protocol=protocol)
    assert contents(tmp_path / "grouped") == contents(tmp_path / "random-chunks")


def test_a_genre_without_a_usable_track_is_refused_and_can_be_mended(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    for i in range(3):
        path = source / "blues" / f"blues{i}.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_text("no audio")
    dataset = tmp_path / "dataset"
    with pytest.raises(
        RequestError,
        match=rf"genre 'blues' has no usable track: the reasons are in {dataset}/skipped\.csv",
    ):
        make(source, dataset)
    assert set(reasons(dataset)) == {"blues0.wav", "blues1.wav", "blues2.wav"}
    assert not shards(dataset)
    shutil.rmtree(source / "blues")
    assert make(source, dataset).genres == ("jazz", "rock")


def test_too_few_usable_groups_are_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    (source / "rock" / "rock1.wav").write_text("no audio")
    with pytest.raises(RequestError, match=r"grouped needs 3 groups .* but 'rock' has 2"):
        make(source, tmp_path / "dataset")
    wav(source / "rock" / "another.wav", 99)
    assert make(source, tmp_path / "dataset").tracks == 6


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(RequestError, match="mine is a folder with other things in it"):
            make(source, tmp_path / "mine", overwrite=overwrite)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="--dataset must be a folder, but .*file is a file"):
        make(source, tmp_path / "file")
    with pytest.raises(RequestError, match="--dataset must be a folder, but .*file is a file"):
        make(source, tmp_path / "file" / "dataset")


def test_a_dataset_among_the_genres_is_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    with pytest.raises(RequestError, match="is inside --tracks .*, whose folders are genres"):
        make(source, source / "dataset")
    assert not (source / "dataset").exists()


def test_bad_requests_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3, ("jazz",))
    with pytest.raises(RequestError, match="at least two genres"):
        make(source, tmp_path / "dataset")
    with pytest.raises(RequestError, match="does not exist"):
        make(tmp_path / "nowhere", tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
