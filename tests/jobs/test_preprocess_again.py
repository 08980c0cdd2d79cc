"""A dataset that is there already: what is gone on with, made anew or refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mgc_ray.data.synth
import mgc_ray.jobs.preprocess
import mgc_ray.tuning.cluster
from mgc_ray import RequestError
from mgc_ray.data.chunks import load_chunks
from mgc_ray.data.dataset import (
    read_info,
    shard_path,
)
from mgc_ray.data.request import DatasetRequest
from mgc_ray.data.storage import Storage
from mgc_ray.jobs.preprocess import dataset_key, preprocess
from tests.jobs.making import (
    PARTS,
    arrays,
    contents,
    make,
    music,
    own_environment,
    reasons,
    times,
    wav,
)

pytestmark = pytest.mark.usefixtures("ray_cluster", "small_shards")


def test_the_key_changes_with_every_setting_and_with_the_files(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 6, ("blues", "jazz"))
    arrays(tmp_path / "arrays")
    requests = [
        DatasetRequest(str(tracks), **settings)
        for tracks, settings in [
            (source, {}),
            (source, {"protocol": "random-chunks"}),
            (source, {"split_seed": 1}),
            (source, {"protocol": "cross-validation", "fold": "1/5"}),
            (source, {"protocol": "cross-validation", "fold": "2/5"}),
            (source, {"chunk_seconds": 5.0}),
            (source, {"synthetic": 2}),
            (source, {"synthetic": 3}),
            (tmp_path / "arrays", {}),
            (tmp_path / "arrays", {"chunks_per_track": 1}),
            (tmp_path / "arrays", {"array_recipe": "gtzan"}),
        ]
    ]
    keys = [dataset_key(request) for request in requests]
    assert len(set(keys)) == len(requests)
    assert all(len(key) == 8 for key in keys)
    assert keys == [dataset_key(request) for request in requests]
    wav(source / "jazz" / "jazz0.wav", 1000)
    assert dataset_key(requests[0]) != keys[0]


def test_the_order_in_which_features_are_named_is_no_other_key(tmp_path: Path) -> None:
    pytest.importorskip("librosa")
    source = str(music(tmp_path / "music", 3))
    keys = [
        dataset_key(DatasetRequest(source, features=features))
        for features in (("log_mel",), ("log_mel", "mfcc"), ("mfcc", "log_mel"))
    ]
    assert keys[0] != keys[1] == keys[2]


def test_another_version_of_the_generator_is_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = music(tmp_path / "music", 3)
    requests = [DatasetRequest(str(source), synthetic=count) for count in (0, 2)]
    before = [dataset_key(request) for request in requests]
    monkeypatch.setattr(mgc_ray.data.synth, "VERSION", mgc_ray.data.synth.VERSION + 1)
    after = [dataset_key(request) for request in requests]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_the_same_command_again_does_no_work(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dataset = made
    before = times(dataset)
    assert list(before) == ["00000.parquet", "00001.parquet"]

    def never(*_: Any) -> None:
        raise AssertionError("Ray was asked for")

    monkeypatch.setattr(mgc_ray.tuning.cluster, "connected", never)
    assert make(source, dataset).finished
    assert times(dataset) == before


def test_a_storage_named_later_gets_what_it_lacks(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Nodes that stream the dataset have its shards from the storage alone."""
    source, dataset = made
    there = tmp_path / "storage/datasets" / dataset.name
    for again in range(2):
        storage = Storage(str(tmp_path / "storage"))
        assert preprocess(DatasetRequest(str(source)), dataset, storage=storage).finished
        names = [path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()]
        shards = ["chunks/00000.parquet", "chunks/00001.parquet"]
        assert sorted(names) == [*shards, "dataset.json", "skipped.csv", "tracks.parquet"], again
        for name in names:
            assert (there / name).read_bytes() == (dataset / name).read_bytes()
        (there / shards[1]).unlink()  # and is sent again


def test_a_deleted_shard_alone_is_written_again(made: tuple[Path, Path]) -> None:
    source, dataset = made
    before, expected = times(dataset), contents(dataset)
    shard_path(dataset, 0).unlink()
    assert make(source, dataset).finished
    after = times(dataset)
    assert after["00001.parquet"] == before["00001.parquet"]
    assert after["00000.parquet"] != before["00000.parquet"]
    assert contents(dataset) == expected


def test_other_requests_of_the_same_folder_are_refused_with_both_values(
    made: tuple[Path, Path],
) -> None:
    source, dataset = made
    before = times(dataset)
    remedy = "name another --dataset, or add --anew to delete this one and make it again"
    with pytest.raises(RequestError, match=f"made with seed 0, but 7 is asked for: {remedy}"):
        make(source, dataset, split_seed=7)
    with pytest.raises(
        RequestError, match=f"made with protocol grouped, but random-chunks is asked for: {remedy}"
    ):
        make(source, dataset, protocol="random-chunks")
    wav(source / "jazz" / "new.wav", 77)
    with pytest.raises(
        RequestError,
        match=rf"was made from {source} with 8 usable tracks, but {source} has changed since or is "
        rf"another \(9 rows\): {remedy}",
    ):
        make(source, dataset)
    (source / "jazz" / "new.wav").unlink()
    wav(source / "jazz" / "jazz0.wav", 78)
    with pytest.raises(RequestError, match="has changed since"):
        make(source, dataset)
    assert times(dataset) == before


def test_features_of_another_version_are_refused(made: tuple[Path, Path]) -> None:
    source, dataset = made
    content = json.loads((dataset / "dataset.json").read_text())
    content["features"]["n_fft"] = 2048
    (dataset / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(
        RequestError,
        match=r"made with features LogMel\(.*n_fft=2048.*, but LogMel\(.*=1024.* is ask",
    ):
        make(source, dataset)


def test_anew_makes_it_anew(made: tuple[Path, Path]) -> None:
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
    info = make(source, dataset, split_seed=7, anew=True)
    assert (info.seed, info.genres, info.tracks) == (7, ("blues", "jazz"), 7)
    assert all(times(dataset)[name] != before[name] for name in before)
    ids = {track.track_id for track in load_chunks(dataset, PARTS).tracks}
    assert ids == {"jazz3", "rock3", "new0", "new1", "new2", "new_blues0", "new_blues1"}


def test_anew_needs_no_dataset(tmp_path: Path) -> None:
    assert make(music(tmp_path / "music", 3), tmp_path / "dataset", anew=True).finished


def test_a_file_that_changes_between_the_passes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = music(tmp_path / "music", 3)
    write = mgc_ray.jobs.preprocess.write_shards

    def changed_before(*arguments: Any) -> None:
        wav(source / "rock" / "rock1.wav", 99, seconds=7)
        write(*arguments)

    monkeypatch.setattr(mgc_ray.jobs.preprocess, "write_shards", changed_before)
    with pytest.raises(
        RequestError, match=r"rock1\.wav has changed while .* \(its length is another\): run .*anew"
    ):
        make(source, tmp_path / "dataset")
    assert not read_info(tmp_path / "dataset").finished


def test_a_gpu_that_is_not_there_is_told_before_anything_is_deleted(
    made: tuple[Path, Path],
) -> None:
    source, dataset = made
    before = times(dataset)
    with pytest.raises(RequestError, match="--gpu needs a GPU in the Ray cluster, but there is no"):
        make(source, dataset, anew=True, gpu=True)
    assert times(dataset) == before
    assert make(source, dataset, gpu=True).finished  # nothing is left to do


def test_a_gpu_has_no_use_for_arrays(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"but the tracks are \.npy spectrograms: leave it out"):
        make(arrays(tmp_path / "arrays"), tmp_path / "dataset", gpu=True)


def test_the_gpus_road_makes_the_same_dataset(tmp_path: Path) -> None:
    # a cluster that claims a GPU, whose tasks then work on the CPU
    source = music(tmp_path / "music")
    wav(source / "rock" / "long.wav", 52, seconds=9.1)
    program = """
import sys, ray, mgc_ray.jobs.passes, mgc_ray.jobs.preprocess
from mgc_ray import RequestError
from mgc_ray.data.request import DatasetRequest
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
try:
    mgc_ray.jobs.preprocess.preprocess(DatasetRequest(sys.argv[1]), sys.argv[2], gpu=True)
except RequestError as error:
    print(error)
mgc_ray.jobs.passes._GPU_DEVICE = "cpu"
mgc_ray.jobs.preprocess.preprocess(DatasetRequest(sys.argv[1]), sys.argv[2], gpu=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, source, tmp_path / "gpu"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=own_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "but PyTorch sees none there: install a CUDA build" in done.stdout
    make(source, tmp_path / "cpu")
    gpu, cpu = (load_chunks(tmp_path / name, PARTS) for name in ("gpu", "cpu"))
    assert gpu.tracks == cpu.tracks
    np.testing.assert_array_equal(gpu.track, cpu.track)
    np.testing.assert_allclose(gpu.spectrograms, cpu.spectrograms, rtol=0, atol=1e-3)
    assert not np.array_equal(gpu.spectrograms, cpu.spectrograms)  # PyTorch's numbers, rounded so


def test_a_genre_without_a_usable_track_is_refused_by_name_and_can_be_mended(
    tmp_path: Path,
) -> None:
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
    assert not (dataset / "dataset.json").exists()
    shutil.rmtree(source / "blues")
    assert make(source, dataset).genres == ("jazz", "rock")


def test_too_few_usable_groups_are_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    (source / "rock" / "rock1.wav").write_text("no audio")
    with pytest.raises(RequestError, match=r"grouped needs 3 groups .* but 'rock' has 2"):
        make(source, tmp_path / "dataset")


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for anew in (False, True):
        with pytest.raises(RequestError, match="mine is a folder with other things in it"):
            make(source, tmp_path / "mine", anew=anew)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="--dataset .*file cannot be made: File exists"):
        make(source, tmp_path / "file")
    with pytest.raises(RequestError, match="--dataset .* cannot be made: Not a directory"):
        make(source, tmp_path / "file" / "dataset")


def test_a_dataset_among_the_genres_is_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    with pytest.raises(RequestError, match="lies in --tracks .*, whose folders are genres"):
        make(source, source / "dataset")
    assert not (source / "dataset").exists()


def test_bad_requests_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3, ("jazz",))
    with pytest.raises(RequestError, match="at least two genres"):
        make(source, tmp_path / "dataset")
    with pytest.raises(RequestError, match="does not exist"):
        make(tmp_path / "nowhere", tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
