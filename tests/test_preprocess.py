"""From files to a dataset on real Ray: what is left out and why, and going on after any end."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import mgc_ray.preprocess
import mgc_ray.tuning.cluster
from mgc_ray import RequestError
from mgc_ray.data.chunks import load_chunks
from mgc_ray.data.dataset import (
    TRACKS_PER_SHARD,
    read_info,
    read_track_rows,
    shard_path,
)
from mgc_ray.data.gtzan import fault_filtered
from mgc_ray.data.spectrogram import LogMel, Precomputed
from mgc_ray.preprocess import _pieces, preprocess

RATE = 22050
PARTS = ["train", "valid", "test"]


pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mgc_ray.preprocess, "TRACKS_PER_SHARD", 4)


def wav(path: Path, seed: int, seconds: float = 3.0, rate: int = RATE) -> Path:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def music(folder: Path, count: int = 4, genres: tuple[str, ...] = ("jazz", "rock")) -> Path:
    for g, genre in enumerate(genres):
        for i in range(count):
            wav(folder / genre / f"{genre}{i}.wav", 100 * g + i)
    return folder


def table(
    path: Path, rows: list[tuple[str, ...]], columns: str = "path,genre,artist,split"
) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return path


def reasons(dataset: Path) -> dict[str, str]:
    with open(dataset / "skipped.csv", newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def shards(dataset: Path) -> list[Path]:
    return sorted((dataset / "chunks").glob("*.parquet"))


def times(dataset: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in shards(dataset)}


def contents(dataset: Path) -> list[Any]:
    return [pq.read_table(path) for path in shards(dataset)]


# --- what is made, and what is left out ---


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four usable tracks a genre, and files that are none."""
    folder = music(tmp_path_factory.mktemp("odd") / "music")
    jazz = folder / "jazz"
    (jazz / "text.wav").write_text("no audio")
    (jazz / "empty.wav").touch()
    soundfile.write(jazz / "silent.wav", np.zeros(RATE * 3), RATE)
    soundfile.write(jazz / "nan.wav", np.array([0.1, np.nan] * RATE), RATE, subtype="FLOAT")
    wav(jazz / "short.wav", 50, seconds=0.04)
    whole = wav(jazz / "truncated.flac", 51).read_bytes()
    (jazz / "truncated.flac").write_bytes(whole[:5000])
    (jazz / "gone.wav").symlink_to("nowhere.wav")
    (jazz / b"caf\xe9.wav".decode("utf-8", "surrogateescape")).write_bytes(b"RIFF")
    (jazz / ".hidden.wav").write_text("hidden")
    (folder / "notes.txt").write_text("outside of the genres")
    wav(folder / "rock" / "long.wav", 52, seconds=6.1)
    wav(folder / "rock" / "hi_fi.wav", 53, seconds=6.1, rate=44_100)
    return folder


def test_usable_tracks_are_all_there_and_the_others_are_listed_with_reasons(
    odd: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    info = preprocess(odd, dataset)
    assert reasons(dataset) == {
        "notes.txt": "lies outside of the genre folders",
        "caf\\udce9.wav": "its name is not UTF-8",
        "empty.wav": "empty file",
        "gone.wav": "no such file",
        "nan.wav": "holds NaN or infinity",
        "short.wav": "0.040 s is shorter than one FFT window (1024 samples at 22050 Hz)",
        "silent.wav": "silent: peak to peak 0.0e+00 of full scale",
        "text.wav": "not audio, or corrupt: Format not recognised",
        "truncated.flac": "not audio, or corrupt: flac decoder lost sync",
    }
    assert info == read_info(dataset)
    assert (info.finished, info.tracks, info.genres, info.shards) == (True, 10, ("jazz", "rock"), 3)
    assert (info.protocol, info.seed, info.features) == ("grouped", 0, LogMel())
    chunks = load_chunks(dataset, PARTS)
    ids = [f"jazz{i}" for i in range(4)] + ["hi_fi", "long"] + [f"rock{i}" for i in range(4)]
    assert sorted(track.track_id for track in chunks.tracks) == sorted(ids)
    counts = np.bincount(chunks.track)
    per_track = {t.track_id: n for t, n in zip(chunks.tracks, counts, strict=True)}
    assert per_track == dict.fromkeys(ids, 1) | {"hi_fi": 2, "long": 2}
    assert {(t.genre, t.split) for t in chunks.tracks} == {
        (genre, part) for genre in ("jazz", "rock") for part in PARTS
    }
    for i, track in enumerate(chunks.tracks):
        mine = chunks.track == i
        assert set(chunks.split[mine]) == {track.split}
        np.testing.assert_array_equal(chunks.spectrograms[mine], LogMel().chunks(track.path))
    tracks, found = read_track_rows(dataset)
    inspected = {t.track_id: i for t, i in zip(tracks, found, strict=True)}
    assert {name: inspection.chunks for name, inspection in inspected.items()} == per_track
    assert inspected["long"].seconds == pytest.approx(6.1, abs=1e-3)
    assert not list(dataset.rglob("*.tmp"))


def test_identical_audio_under_two_artists_lands_on_one_side(tmp_path: Path) -> None:
    rows = []
    for g, genre in enumerate(("jazz", "rock")):
        for i in range(6):
            path = wav(tmp_path / f"{genre}{i}.wav", 100 * g + i)
            rows.append((path.name, genre, f"{genre} artist {i}", ""))
    samples, _ = soundfile.read(tmp_path / "jazz0.wav", dtype="int16")
    for copy, artist in (("copy.flac", "another"), ("again.wav", "jazz artist 5")):
        soundfile.write(tmp_path / copy, samples, RATE)
        rows.append((copy, "jazz", artist, ""))
    for seed in (0, 1):
        dataset = tmp_path / f"dataset{seed}"
        preprocess(table(tmp_path / "tracks.csv", rows), dataset, seed=seed)
        tracks, found = read_track_rows(dataset)
        joined = [t for t in tracks if Path(t.path).stem in ("jazz0", "copy", "again", "jazz5")]
        assert len(joined) == 4
        assert {track.group for track in joined} == {"jazz artist 0"}
        assert len({track.split for track in joined}) == 1
        sides, contents = defaultdict(set), defaultdict(set)
        for track, inspection in zip(tracks, found, strict=True):
            sides[track.group].add(track.split)
            contents[inspection.content_hash].add(track.split)
        assert all(len(parts) == 1 for parts in [*sides.values(), *contents.values()])


def test_arrays_are_cut_into_ten_pieces(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for genre in ("jazz", "rock"):
        (tmp_path / "arrays" / genre).mkdir(parents=True)
        for i in range(3):
            array = random.integers(0, 256, (8, 47)).astype(np.uint8)
            np.save(tmp_path / "arrays" / genre / f"{genre}{i}.npy", array)
    folder = tmp_path / "arrays" / "rock"
    np.save(folder / "bands.npy", random.random((9, 47)))
    (folder / "zip.npy").write_bytes(b"PK\x03\x04 breaks off")
    info = preprocess(tmp_path / "arrays", tmp_path / "dataset")
    assert info.features == Precomputed(8, 4, "float32")  # one readable array holds floats
    told = reasons(tmp_path / "dataset")
    assert set(told) == {"bands.npy", "zip.npy"}
    assert told["bands.npy"] == "has 9 bands, but most arrays of this table have 8"
    chunks = load_chunks(tmp_path / "dataset", PARTS)
    assert chunks.spectrograms.shape == (6 * 11, 8, 4)  # 47 frames are eleven whole pieces of 4
    first = np.load(chunks.tracks[0].path)
    np.testing.assert_array_equal(chunks.spectrograms[0], first[:, :4])


# --- the protocols ---


def test_the_tables_own_split_is_taken_and_told_where_it_leaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ("train", "train", "valid", "test", "")
    rows = [
        (wav(tmp_path / f"{genre}{i}.wav", 100 * g + i).name, genre, "Both", part)
        for g, genre in enumerate(("jazz", "rock"))
        for i, part in enumerate(parts)
    ]
    info = preprocess(table(tmp_path / "t.csv", rows), tmp_path / "dataset", "given")
    assert (info.protocol, info.leaky, info.tracks) == ("given", False, 8)
    chunks = load_chunks(tmp_path / "dataset", PARTS)
    assert {Path(t.path).name: t.split for t in chunks.tracks} == {
        name: part for name, _, _, part in rows if part
    }
    assert reasons(tmp_path / "dataset") == dict.fromkeys(
        ("jazz4.wav", "rock4.wav"), "the table gives it no split"
    )
    assert "warning: 1 groups (e.g. 'Both') are on several sides" in capsys.readouterr().err


def test_gtzan_tracks_get_their_published_artist_and_split(tmp_path: Path) -> None:
    ids = [
        next(i for i, fact in fault_filtered().items() if i.startswith(genre) and fact.split == s)
        for genre in ("country", "rock")
        for s in PARTS
    ]
    filtered = "country.00008"
    for seed, track_id in enumerate([*ids, filtered, "rock.00100"]):
        wav(tmp_path / "music" / track_id.split(".")[0] / f"{track_id}.wav", seed)
    preprocess(tmp_path / "music", tmp_path / "dataset", "fault-filtered")
    tracks, _ = read_track_rows(tmp_path / "dataset")
    facts = fault_filtered()
    assert {t.track_id: (t.artist, t.split) for t in tracks} == {
        i: (facts[i].artist, facts[i].split) for i in ids
    }
    assert reasons(tmp_path / "dataset") == {
        f"{filtered}.wav": "filtered out by the published lists",
        "rock.00100.wav": "rock.00100 is no id of GTZAN",
    }


def test_random_chunks_puts_a_fifth_of_the_chunks_aside_and_is_marked_leaky(tmp_path: Path) -> None:
    for g, genre in enumerate(("jazz", "rock")):
        for i in range(3):
            wav(tmp_path / "music" / genre / f"{genre}{i}.wav", 100 * g + i, seconds=15.1)
    info = preprocess(tmp_path / "music", tmp_path / "dataset", "random-chunks", seed=1)
    assert info.leaky
    chunks = load_chunks(tmp_path / "dataset", PARTS)
    assert len(chunks.split) == 30
    assert len(chunks.rows("train")) == 24
    assert len(chunks.rows("valid")) == 6
    both = set(chunks.track[chunks.rows("train")]) & set(chunks.track[chunks.rows("valid")])
    assert both
    assert {track.split for track in chunks.tracks} == {""}


# --- the same command again ---


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of music and the finished dataset of it, in two shards."""
    preprocess(music(tmp_path / "music"), tmp_path / "dataset")
    return tmp_path / "music", tmp_path / "dataset"


def test_the_same_command_again_does_no_work(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dataset = made
    before = times(dataset)
    assert list(before) == ["00000.parquet", "00001.parquet"]

    def never(*_: Any) -> None:
        raise AssertionError("Ray was asked for")

    monkeypatch.setattr(mgc_ray.tuning.cluster, "connected", never)
    assert preprocess(source, dataset).finished
    assert times(dataset) == before


def test_a_deleted_shard_alone_is_written_again(made: tuple[Path, Path]) -> None:
    source, dataset = made
    before, expected = times(dataset), contents(dataset)
    shard_path(dataset, 0).unlink()
    assert preprocess(source, dataset).finished
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
        preprocess(source, dataset, seed=7)
    with pytest.raises(
        RequestError, match=f"made with protocol grouped, but random-chunks is asked for: {remedy}"
    ):
        preprocess(source, dataset, "random-chunks")
    wav(source / "jazz" / "new.wav", 77)
    with pytest.raises(
        RequestError,
        match=rf"was made from {source} with 8 usable tracks, but {source} has changed since or is "
        rf"another \(9 rows\): {remedy}",
    ):
        preprocess(source, dataset)
    (source / "jazz" / "new.wav").unlink()
    wav(source / "jazz" / "jazz0.wav", 78)
    with pytest.raises(RequestError, match="has changed since"):
        preprocess(source, dataset)
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
        preprocess(source, dataset)


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
    info = preprocess(source, dataset, seed=7, anew=True)
    assert (info.seed, info.genres, info.tracks) == (7, ("blues", "jazz"), 7)
    assert all(times(dataset)[name] != before[name] for name in before)
    ids = {track.track_id for track in load_chunks(dataset, PARTS).tracks}
    assert ids == {"jazz3", "rock3", "new0", "new1", "new2", "new_blues0", "new_blues1"}


def test_anew_needs_no_dataset(tmp_path: Path) -> None:
    assert preprocess(music(tmp_path / "music", 3), tmp_path / "dataset", anew=True).finished


def test_a_file_that_changes_between_the_passes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = music(tmp_path / "music", 3)
    write = mgc_ray.preprocess._write_shards

    def changed_before(*arguments: Any) -> None:
        wav(source / "rock" / "rock1.wav", 99, seconds=7)
        write(*arguments)

    monkeypatch.setattr(mgc_ray.preprocess, "_write_shards", changed_before)
    with pytest.raises(
        RequestError, match=r"rock1\.wav has changed while .* \(its length is another\): run .*anew"
    ):
        preprocess(source, tmp_path / "dataset")
    assert not read_info(tmp_path / "dataset").finished


# --- tasks ---


def test_pieces_are_large_at_first_and_small_at_the_end() -> None:
    items = list(range(1000))
    pieces = _pieces(items, 4, 8, 64)
    assert [item for piece in pieces for item in piece] == items
    # 64 while a quarter of what is left is more: 12 of them leave 232, of which 58 is a quarter
    sizes = [64] * 12 + [58, 43, 32, 24, 18, 14, 10, 8, 8, 8, 8, 1]
    assert [len(piece) for piece in pieces] == sizes
    assert _pieces(items[:3], 64, 8, 64) == [items[:3]]
    assert _pieces([], 4, 8, 64) == []


def test_a_million_tracks_are_no_million_tasks() -> None:
    for at_least, at_most, count in ((8, 64, 1_000_000), (1, 4, 62_500)):
        sizes = [len(piece) for piece in _pieces(range(count), 4, at_least, at_most)]
        assert sum(sizes) == count
        assert 4000 <= len(sizes) < 4200


# --- on a GPU ---


def test_a_gpu_that_is_not_there_is_told_before_anything_is_deleted(
    made: tuple[Path, Path],
) -> None:
    source, dataset = made
    before = times(dataset)
    with pytest.raises(RequestError, match="--gpu needs a GPU in the Ray cluster, but there is no"):
        preprocess(source, dataset, anew=True, gpu=True)
    assert times(dataset) == before
    assert preprocess(source, dataset, gpu=True).finished  # nothing is left to do


def test_a_gpu_has_no_use_for_arrays(tmp_path: Path) -> None:
    for genre in ("jazz", "rock"):
        (tmp_path / "arrays" / genre).mkdir(parents=True)
        for i in range(3):
            np.save(tmp_path / "arrays" / genre / f"{genre}{i}.npy", np.eye(8, 40))
    with pytest.raises(RequestError, match=r"but the tracks are \.npy spectrograms: leave it out"):
        preprocess(tmp_path / "arrays", tmp_path / "dataset", gpu=True)


def test_the_gpus_road_makes_the_same_dataset(tmp_path: Path) -> None:
    # a cluster that claims a GPU, whose tasks then work on the CPU
    source = music(tmp_path / "music")
    wav(source / "rock" / "long.wav", 52, seconds=9.1)
    program = """
import sys, ray, mgc_ray.preprocess
from mgc_ray import RequestError
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
try:
    mgc_ray.preprocess.preprocess(sys.argv[1], sys.argv[2], gpu=True)
except RequestError as error:
    print(error)
mgc_ray.preprocess._GPU_DEVICE = "cpu"
mgc_ray.preprocess.preprocess(sys.argv[1], sys.argv[2], gpu=True)
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
    preprocess(source, tmp_path / "cpu")
    gpu, cpu = (load_chunks(tmp_path / name, PARTS) for name in ("gpu", "cpu"))
    assert gpu.tracks == cpu.tracks
    np.testing.assert_array_equal(gpu.track, cpu.track)
    np.testing.assert_allclose(gpu.spectrograms, cpu.spectrograms, rtol=0, atol=1e-3)
    assert not np.array_equal(gpu.spectrograms, cpu.spectrograms)  # PyTorch's numbers, rounded so


# --- what is refused ---


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
        preprocess(source, dataset)
    assert set(reasons(dataset)) == {"blues0.wav", "blues1.wav", "blues2.wav"}
    assert not (dataset / "dataset.json").exists()
    shutil.rmtree(source / "blues")
    assert preprocess(source, dataset).genres == ("jazz", "rock")


def test_too_few_usable_groups_are_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    (source / "rock" / "rock1.wav").write_text("no audio")
    with pytest.raises(RequestError, match=r"grouped needs 3 groups .* but 'rock' has 2"):
        preprocess(source, tmp_path / "dataset")


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for anew in (False, True):
        with pytest.raises(RequestError, match="mine is a folder with other things in it"):
            preprocess(source, tmp_path / "mine", anew=anew)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="--dataset .*file cannot be made: File exists"):
        preprocess(source, tmp_path / "file")
    with pytest.raises(RequestError, match="--dataset .* cannot be made: Not a directory"):
        preprocess(source, tmp_path / "file" / "dataset")


def test_a_dataset_among_the_genres_is_refused(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    with pytest.raises(RequestError, match="lies in --tracks .*, whose folders are genres"):
        preprocess(source, source / "dataset")
    assert not (source / "dataset").exists()


def test_bad_requests_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3, ("jazz",))
    with pytest.raises(RequestError, match="at least two genres"):
        preprocess(source, tmp_path / "dataset")
    with pytest.raises(RequestError, match="does not exist"):
        preprocess(tmp_path / "nowhere", tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


# --- the command ---


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "mgc_ray.preprocess", *map(str, arguments)]


def own_environment() -> dict[str, str]:
    """Without what would lead the command to another cluster."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_ADDRESS")}


def test_a_refused_request_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3, ("jazz",))
    done = subprocess.run(
        command("--tracks", source, "--dataset", tmp_path / "dataset"),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=own_environment(),
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "mgc_ray.preprocess: error: a classifier needs at least two genres, but there is only "
        "'jazz': add a folder (or rows) of another\n"
    )


def processes_of_session(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # after the name: state, parent, process group, session
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def kill_session(child: subprocess.Popen) -> None:
    """End a process and the Ray cluster that it started, at once, as a loss of power would."""
    child.kill()
    deadline = time.monotonic() + 30
    while (left := processes_of_session(child.pid)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    child.wait()


def test_a_killed_command_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mgc_ray.preprocess, "TRACKS_PER_SHARD", TRACKS_PER_SHARD)
    source, dataset = tmp_path / "music", tmp_path / "dataset"
    for g, genre in enumerate(("jazz", "rock")):
        for i in range(3 * TRACKS_PER_SHARD):
            wav(source / genre / f"{genre}{i}.wav", 1000 * g + i, seconds=6)
    arguments = command("--tracks", source, "--dataset", dataset, "--json")
    child = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=own_environment(),
    )
    try:
        deadline = time.monotonic() + 100
        while not shards(dataset):
            assert child.poll() is None, "the command ended before it was killed"
            assert time.monotonic() < deadline, "no shard was written"
            time.sleep(0.005)
    finally:
        kill_session(child)

    info = read_info(dataset)
    assert (info.finished, info.shards) == (False, 6)
    kept = times(dataset)
    assert 1 <= len(kept) < 6
    for path in shards(dataset):
        assert pq.read_table(path).num_rows == 2 * TRACKS_PER_SHARD
    with pytest.raises(RequestError, match="is unfinished"):
        load_chunks(dataset, PARTS)

    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=100, check=False, env=own_environment()
    )
    assert done.returncode == 0, done.stderr
    assert '"finished"' not in done.stdout
    assert '"chunks": 192' in done.stdout
    assert {name: t for name, t in times(dataset).items() if name in kept} == kept
    assert read_info(dataset).finished

    preprocess(source, tmp_path / "uninterrupted")
    assert contents(dataset) == contents(tmp_path / "uninterrupted")
    assert len(load_chunks(dataset, PARTS).split) == 192
