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
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import mgc_ray.data.synth
import mgc_ray.preprocess
import mgc_ray.tuning.cluster
from mgc_ray import RequestError
from mgc_ray.data.chunks import load_chunks
from mgc_ray.data.dataset import (
    TRACKS_PER_SHARD,
    DatasetInfo,
    read_info,
    read_track_rows,
    shard_path,
)
from mgc_ray.data.gtzan import fault_filtered
from mgc_ray.data.request import DatasetRequest
from mgc_ray.data.spectrogram import GTZAN_ARRAYS, BandGroups, LogMel, Precomputed
from mgc_ray.data.synth import synthesise
from mgc_ray.preprocess import dataset_key, preprocess

RATE = 22050
PARTS = ["train", "valid", "test"]


pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mgc_ray.preprocess, "TRACKS_PER_SHARD", 4)


def make(
    source: Path, dataset: Path, anew: bool = False, gpu: bool = False, **settings: Any
) -> DatasetInfo:
    return preprocess(DatasetRequest(str(source), **settings), dataset, anew=anew, gpu=gpu)


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


def arrays(folder: Path, bands: int = 8, frames: int = 47) -> Path:
    random = np.random.default_rng(0)
    for genre in ("jazz", "rock"):
        (folder / genre).mkdir(parents=True)
        for i in range(3):
            array = random.integers(0, 256, (bands, frames)).astype(np.uint8)
            np.save(folder / genre / f"{genre}{i}.npy", array)
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
    info = make(odd, dataset)
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
        make(table(tmp_path / "tracks.csv", rows), dataset, split_seed=seed)
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
    folder = arrays(tmp_path / "arrays") / "rock"
    np.save(folder / "bands.npy", np.random.default_rng(0).random((9, 47)))
    (folder / "zip.npy").write_bytes(b"PK\x03\x04 breaks off")
    info = make(tmp_path / "arrays", tmp_path / "dataset")
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
    info = make(table(tmp_path / "t.csv", rows), tmp_path / "dataset", protocol="given")
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
    make(tmp_path / "music", tmp_path / "dataset", protocol="fault-filtered")
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
    info = make(tmp_path / "music", tmp_path / "dataset", protocol="random-chunks", split_seed=1)
    assert info.leaky
    chunks = load_chunks(tmp_path / "dataset", PARTS)
    assert len(chunks.split) == 30
    assert len(chunks.rows("train")) == 24
    assert len(chunks.rows("valid")) == 6
    both = set(chunks.track[chunks.rows("train")]) & set(chunks.track[chunks.rows("valid")])
    assert both
    assert {track.split for track in chunks.tracks} == {""}


def test_the_folds_of_a_table_are_datasets_whose_test_parts_cover_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = music(tmp_path / "music", 5)
    for i in (3, 4):  # leaves rock three groups, which cannot be in four test parts
        (source / "rock" / f"rock{i}.wav").unlink()
    tested: list[str] = []
    for k in range(1, 5):
        dataset = tmp_path / f"fold{k}"
        info = make(source, dataset, protocol="cross-validation", fold=f"{k}/4")
        assert (info.fold, info.protocol_in_words) == (f"{k}/4", f"cross-validation, fold {k}/4")
        assert read_info(dataset) == info
        chunks = load_chunks(dataset, ["test"])
        tested += [track.track_id for track in chunks.tracks]
        warned = f"the test part of fold {k}/4 has no track of 'rock', which has fewer groups"
        there = {track.genre for track in chunks.tracks}
        assert (warned in capsys.readouterr().err) == (there == {"jazz"})
        assert {track.genre for track in load_chunks(dataset, ["valid"]).tracks} == {"jazz", "rock"}
    assert sorted(tested) == [f"jazz{i}" for i in range(5)] + [f"rock{i}" for i in range(3)]


def test_unlabelled_music_at_any_depth_becomes_a_dataset_without_genres(tmp_path: Path) -> None:
    for i in range(11):
        wav(tmp_path / "music" / ("deep" if i % 2 else ".") / f"{i}.wav", i)
    (tmp_path / "music" / "cover.jpg").write_bytes(b"no music")
    info = make(tmp_path / "music", tmp_path / "dataset", protocol="unlabelled")
    assert (info.genres, info.tracks) == ((), 11)
    assert list(reasons(tmp_path / "dataset")) == ["cover.jpg"]
    chunks = load_chunks(tmp_path / "dataset", PARTS)
    assert sorted(track.split for track in chunks.tracks) == ["train"] * 10 + ["valid"]
    assert {track.genre for track in chunks.tracks} == {""}
    for genres in ("genre", "track_genre"):
        with pytest.raises(
            RequestError,
            match=r"music has no genres to learn, as it was made for pre-training \(--protocol unl",
        ):
            getattr(chunks, genres)


# --- what chunks are made of ---


def test_the_length_of_chunks_can_be_asked_for(made: tuple[Path, Path], tmp_path: Path) -> None:
    source, dataset = made
    info = make(source, tmp_path / "short", chunk_seconds=1.5)
    assert info.features == LogMel(chunk_samples=33_075)
    assert load_chunks(tmp_path / "short", PARTS).spectrograms.shape == (16, 128, 130)
    with pytest.raises(
        RequestError, match=r"with features .*=66000.*, but .*=33075.* is asked for"
    ):
        make(source, dataset, chunk_seconds=1.5)


def test_further_groups_of_features_can_be_asked_for(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("librosa")
    source, _ = made
    info = make(source, tmp_path / "more", features=("mfcc", "log_mel"))
    assert info.features == BandGroups(("log_mel", "mfcc"))
    chunks = load_chunks(tmp_path / "more", PARTS)
    assert chunks.spectrograms.shape == (8, 148, 258)
    np.testing.assert_array_equal(
        chunks.spectrograms[0, :128], LogMel().chunks(chunks.tracks[chunks.track[0]].path)[0]
    )
    with pytest.raises(
        RequestError, match="--gpu makes log_mel alone, but --features mfcc log_mel is asked for"
    ):
        make(source, tmp_path / "gpu", features=("mfcc", "log_mel"), gpu=True)


def test_the_number_of_pieces_of_an_array_can_be_asked_for(tmp_path: Path) -> None:
    source = arrays(tmp_path / "arrays")
    for count, frames in ((1, 47), (2, 23), (47, 1)):
        dataset = tmp_path / f"dataset{count}"
        info = make(source, dataset, chunks_per_track=count)
        assert (info.features, info.chunks_per_track) == (Precomputed(8, frames, "uint8"), count)
        assert load_chunks(dataset, PARTS).spectrograms.shape == (6 * count, 8, frames)
    whole = load_chunks(tmp_path / "dataset1", PARTS)
    np.testing.assert_array_equal(whole.spectrograms[0], np.load(whole.tracks[whole.track[0]].path))
    with pytest.raises(RequestError, match="with chunks-per-track 1, but 10 is asked for: name an"):
        make(source, tmp_path / "dataset1")
    with pytest.raises(
        RequestError, match="must be at most the frames of most arrays, but it is 48 and they have"
    ):
        make(source, tmp_path / "dataset48", chunks_per_track=48)


# --- synthetic tracks ---


def test_synthetic_tracks_are_in_the_training_part_alone(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 5)
    make(source, tmp_path / "without")
    info = make(source, tmp_path / "with", synthetic=3)
    assert (info.synthetic, info.tracks) == (3, 16)
    chunks = load_chunks(tmp_path / "with", PARTS)
    added = [track for track in chunks.tracks if track.is_added]
    assert {track.path for track in added} == {
        str(tmp_path / "with" / "synthetic" / genre / f"{genre}.0000{i}.wav")
        for genre in ("jazz", "rock")
        for i in range(3)
    }
    assert {(track.artist, track.split) for track in added} == {("synthetic", "train")}
    assert len({track.group for track in added}) == 6
    real = {track.track_id: track.split for track in chunks.tracks if not track.is_added}
    without = load_chunks(tmp_path / "without", PARTS)
    assert real == {track.track_id: track.split for track in without.tracks}
    # as long as the others, 3 s, so that one counts as one of them
    assert Counter(chunks.track.tolist()) == dict.fromkeys(range(16), 1)
    track = next(i for i, track in enumerate(chunks.tracks) if track.is_added)
    np.testing.assert_array_equal(
        chunks.spectrograms[chunks.track == track], LogMel().chunks(chunks.tracks[track].path)
    )


def test_synthetic_tracks_are_no_tracks_of_any_corpus(tmp_path: Path) -> None:
    make(music(tmp_path / "music", 3), tmp_path / "dataset", synthetic=1)
    samples, rate = soundfile.read(
        tmp_path / "dataset/synthetic/jazz/jazz.00000.wav", dtype="float32"
    )
    assert (rate, len(samples)) == (RATE, 3 * RATE)
    expected = synthesise("jazz", 0, seed=2**31, seconds=3.0)
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-4)


def test_further_tracks_are_in_the_training_part_alone(tmp_path: Path) -> None:
    source, more = music(tmp_path / "music", 5), tmp_path / "more"
    for i in range(3):
        wav(more / "jazz" / f"other{i}.wav", 1000 + i)
    shutil.copy(source / "jazz" / "jazz0.wav", more / "jazz" / "copy.wav")
    make(source, tmp_path / "without")
    info = make(source, tmp_path / "with", more_tracks=str(more))
    assert info.more_source == str(more)
    chunks = load_chunks(tmp_path / "with", PARTS)
    added = [track for track in chunks.tracks if track.is_added]
    assert sorted(track.track_id for track in added) == [f"more:other{i}" for i in range(3)]
    assert {track.split for track in added} == {"train"}
    real = {track.track_id: track.split for track in chunks.tracks if not track.is_added}
    without = load_chunks(tmp_path / "without", PARTS)
    assert real == {track.track_id: track.split for track in without.tracks}
    assert "copy.wav,the same recording as" in (tmp_path / "with" / "skipped.csv").read_text()
    with pytest.raises(RequestError, match="was made with tracks added True, but False is asked"):
        make(source, tmp_path / "with")


def test_another_number_of_synthetic_tracks_is_refused_or_made_anew(
    made: tuple[Path, Path],
) -> None:
    source, dataset = made
    with pytest.raises(RequestError, match="made with synthetic 0, but 2 is asked for: name anoth"):
        make(source, dataset, synthetic=2)
    assert make(source, dataset, anew=True, synthetic=2).tracks == 12
    assert make(source, dataset, anew=True).tracks == 8
    assert not (dataset / "synthetic").exists()


def test_arrays_with_a_recipe_take_synthetic_tracks_too(tmp_path: Path) -> None:
    source = arrays(tmp_path / "arrays", 128, 387)
    info = make(source, tmp_path / "dataset", array_recipe="gtzan", synthetic=1)
    assert info.features == Precomputed(128, 38, "uint8", GTZAN_ARRAYS)
    assert read_info(tmp_path / "dataset") == info
    chunks = load_chunks(tmp_path / "dataset", PARTS)
    assert chunks.spectrograms.shape == (80, 128, 38)  # ten a track, synthetic ones of 30 s too
    assert sum(track.is_added for track in chunks.tracks) == 2


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    source = arrays(tmp_path / "arrays", 128, 387)
    make(source, tmp_path / "dataset")
    with pytest.raises(
        RequestError, match="made with array-recipe None, but ArrayRecipe.* is asked for: name an"
    ):
        make(source, tmp_path / "dataset", array_recipe="gtzan")


# --- the key of a request ---


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


# --- the same command again ---


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of music and the finished dataset of it, in two shards."""
    make(music(tmp_path / "music"), tmp_path / "dataset")
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
    assert make(source, dataset).finished
    assert times(dataset) == before


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
    write = mgc_ray.preprocess._write_shards

    def changed_before(*arguments: Any) -> None:
        wav(source / "rock" / "rock1.wav", 99, seconds=7)
        write(*arguments)

    monkeypatch.setattr(mgc_ray.preprocess, "_write_shards", changed_before)
    with pytest.raises(
        RequestError, match=r"rock1\.wav has changed while .* \(its length is another\): run .*anew"
    ):
        make(source, tmp_path / "dataset")
    assert not read_info(tmp_path / "dataset").finished


# --- tasks ---


# --- on a GPU ---


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
import sys, ray, mgc_ray.preprocess
from mgc_ray import RequestError
from mgc_ray.data.request import DatasetRequest
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
try:
    mgc_ray.preprocess.preprocess(DatasetRequest(sys.argv[1]), sys.argv[2], gpu=True)
except RequestError as error:
    print(error)
mgc_ray.preprocess._GPU_DEVICE = "cpu"
mgc_ray.preprocess.preprocess(DatasetRequest(sys.argv[1]), sys.argv[2], gpu=True)
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


# --- the command ---


def said_by_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> str:
    monkeypatch.setattr(sys, "argv", ["preprocess", *map(str, arguments)])
    assert mgc_ray.preprocess.main() == 0
    return capsys.readouterr().err


def test_the_command_counts_what_is_real_and_what_is_synthetic(
    made: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, _ = made
    options = ["--tracks", source, "--dataset", tmp_path / "other", "--chunk-seconds", "1.5"]
    options += ["--synthetic", "2", "--protocol", "cross-validation", "--fold", "1/4", "--seed"]
    said = said_by_main(monkeypatch, capsys, *options, "5")
    assert "12 tracks of 2 genres, 24 chunks (log-mel 128 bands x 130 frames, 1.50 s a ch" in said
    assert (
        "split cross-validation, fold 1/4, seed 5: 2 test, 8 train, 2 valid (4 of train were "
        "added)" in said
    )
    options = ["--tracks", source, "--dataset", tmp_path / "unlabelled", "--protocol", "unlabelled"]
    said = said_by_main(monkeypatch, capsys, *options)
    assert "8 tracks without genres, 8 chunks" in said
    assert "split unlabelled, seed 0: 7 train, 1 valid\n" in said


def test_the_command_needs_tracks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["preprocess", "--dataset", str(tmp_path)])
    with pytest.raises(RequestError, match="--tracks is needed: a folder with a subfolder a genre"):
        mgc_ray.preprocess.main()


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

    make(source, tmp_path / "uninterrupted")
    assert contents(dataset) == contents(tmp_path / "uninterrupted")
    assert len(load_chunks(dataset, PARTS).split) == 192
