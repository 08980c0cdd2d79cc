"""From files to a dataset on real Ray: what is made, and what is left out and why."""

import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from mgc_ray import RequestError
from mgc_ray.corpus.composer import synthesise
from mgc_ray.data.chunks import Chunks, load_chunks
from mgc_ray.data.dataset import read_dataset_tracks, read_info
from mgc_ray.data.features import FeatureSet
from mgc_ray.data.features.array import RECIPES, Array
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.data.split.gtzan import fault_filtered
from tests.pipeline.making import PARTS, RATE, arrays, make, music, reasons, table, wav

pytestmark = pytest.mark.usefixtures("ray_cluster", "small_shards")

LOG_MEL = FeatureSet({"log_mel": LogMel()})


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four usable tracks per genre, and files that are none."""
    folder = music(tmp_path_factory.mktemp("odd") / "music")
    jazz = folder / "jazz"
    (jazz / "text.wav").write_text("no audio")
    (jazz / "empty.wav").touch()
    soundfile.write(jazz / "silent.wav", np.zeros(RATE * 3), RATE)
    soundfile.write(jazz / "nan.wav", np.array([0.1, np.nan] * RATE), RATE, subtype="FLOAT")
    wav(jazz / "tiny.wav", 50, seconds=0.04)
    wav(jazz / "short.wav", 54, seconds=1.49)
    whole = wav(jazz / "truncated.flac", 51).read_bytes()
    (jazz / "truncated.flac").write_bytes(whole[:5000])
    (jazz / "gone.wav").symlink_to("nowhere.wav")
    (jazz / b"caf\xe9.wav".decode("utf-8", "surrogateescape")).write_bytes(b"RIFF")
    (jazz / ".hidden.wav").write_text("hidden")
    (folder / "notes.txt").write_text("outside of the genres")
    wav(folder / "rock" / "long.wav", 52, seconds=6.1)
    wav(folder / "rock" / "hi_fi.wav", 53, seconds=6.1, rate=44_100)
    return folder


def test_genres_that_turn_out_to_be_small_are_left_out_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = music(tmp_path, genres=("jazz", "rock", "polka"), count=3)
    shutil.copy(folder / "polka/polka0.wav", folder / "polka/polka1.wav")  # now two recordings
    (folder / "ska").mkdir()
    rows = [(f"{g}/{g}{i}.wav", g) for g in ("jazz", "rock", "polka") for i in range(3)]
    rows += [(f"ska/ska{i}.wav", "ska") for i in range(3)]  # of no file
    source = table(tmp_path / "tracks.csv", [*rows, ("jazz/jazz0.wav", "jazz")], "path,genre")
    wav(tmp_path / "more1.wav", 60)
    wav(tmp_path / "more2.wav", 61)
    more_rows = [("more1.wav", "polka"), ("more2.wav", "rock")]
    more = table(tmp_path / "more.csv", more_rows, "path,genre")
    with pytest.raises(RequestError, match="'ska' has no usable track: .* by --drop-small-genres"):
        make(source, tmp_path / "dataset")
    info = make(
        source,
        tmp_path / "dataset",
        overwrite=True,
        drop_small_genres=True,
        more_tracks=str(more),
    )
    assert info.genres == ("jazz", "rock")
    tracks, _ = read_dataset_tracks(tmp_path / "dataset")
    assert sorted(Path(track.path).stem for track in tracks) == [
        *(f"jazz{i}" for i in range(3)),
        "more2",
        *(f"rock{i}" for i in range(3)),
    ]
    polka = (
        "its genre 'polka' has 2 of the 3 groups (artists, or tracks of unknown artist) that "
        "--protocol grouped needs: left out by --drop-small-genres"
    )
    assert reasons(tmp_path / "dataset") == {
        "jazz0.wav": "repeated in line 14; the first row is used",
        **{f"ska{i}.wav": "no such file" for i in range(3)},
        **{f"polka{i}.wav": polka for i in range(3)},
        "more1.wav": "no usable genre 'polka' in --tracks",
    }
    printed = capsys.readouterr().err
    assert "genre 'ska' has no usable track: the reasons are in" in printed
    assert f"3 tracks left out: {polka}" in printed


def test_all_usable_tracks_are_there_and_the_others_are_listed_with_reasons(
    odd: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    info = make(odd, dataset)
    assert reasons(dataset) == {
        "caf\\xe9.wav": "its name is not UTF-8",
        "empty.wav": "empty file",
        "gone.wav": "no such file",
        "nan.wav": "holds NaN or infinity",
        "short.wav": "1.49 s, shorter than half a chunk (of 2.99 s)",
        "tiny.wav": "0.040 s is shorter than one FFT window (1024 samples at 22050 Hz)",
        "silent.wav": "silent: peak to peak 0.0e+00 of full scale",
        "text.wav": "not audio, or corrupt: Format not recognised",
        "truncated.flac": "corrupt: 0.0 of 3.0 s can be decoded",
        ".hidden.wav": "is hidden: its name, or that of a folder it is in, begins with a dot",
    }
    assert info == read_info(dataset)
    # 18 rows may be tracks, and there are four in a shard
    assert (info.finished, info.tracks, info.genres, info.shards) == (True, 10, ("jazz", "rock"), 5)
    assert (info.protocol, info.seed, info.features) == ("grouped", 0, LOG_MEL)
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
        own = chunks.track == i
        assert set(chunks.split[own]) == {track.split}
        expected = LOG_MEL.compute(track.path).columns["log_mel"]
        np.testing.assert_array_equal(chunks.features["log_mel"][own], expected)
    tracks, places = read_dataset_tracks(dataset)
    by_id = {track.track_id: place for track, place in zip(tracks, places, strict=True)}
    assert {name: place.chunks for name, place in by_id.items()} == per_track
    assert by_id["long"].seconds == pytest.approx(6.1, abs=1e-3)
    assert not list(dataset.rglob("*.tmp"))


def test_identical_audio_under_two_artists_is_in_one_part(tmp_path: Path) -> None:
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
        tracks, places = read_dataset_tracks(dataset)
        joined = [t for t in tracks if Path(t.path).stem in ("jazz0", "copy", "again", "jazz5")]
        assert len(joined) == 4
        assert {track.group for track in joined} == {"jazz artist 0"}
        assert len({track.split for track in joined}) == 1
        by_group, by_content = defaultdict(set), defaultdict(set)
        for track, place in zip(tracks, places, strict=True):
            by_group[track.group].add(track.split)
            by_content[place.content_hash].add(track.split)
        assert all(len(parts) == 1 for parts in [*by_group.values(), *by_content.values()])


def test_a_song_and_its_mp3_are_in_one_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = music(tmp_path / "music", 5)
    samples = synthesise("jazz", 0, seconds=7.0)
    soundfile.write(source / "jazz" / "jazz0.wav", samples, RATE)
    soundfile.write(source / "jazz" / "zz.mp3", samples[RATE // 2 :] / 2, RATE, format="MP3")
    for seed in (0, 1, 2, 3):
        make(source, tmp_path / f"dataset{seed}", split_seed=seed)
        tracks, places = read_dataset_tracks(tmp_path / f"dataset{seed}")
        recording = {Path(t.path).name: p.recording for t, p in zip(tracks, places, strict=True)}
        part = {Path(t.path).name: t.split for t in tracks}
        assert recording["zz.mp3"] == recording["jazz0.wav"]
        assert len(set(recording.values())) == len(tracks) - 1 == 10
        assert part["zz.mp3"] == part["jazz0.wav"]
    printed = " ".join(capsys.readouterr().err.split())
    assert "1 recording that the table has several times" in printed
    assert f"{source}/jazz/jazz0.wav = {source}/jazz/zz.mp3" in printed


def test_arrays_are_cut_into_ten_chunks(tmp_path: Path) -> None:
    folder = arrays(tmp_path / "arrays") / "rock"
    np.save(folder / "bands.npy", np.random.default_rng(0).random((9, 47)))
    (folder / "zip.npy").write_bytes(b"PK\x03\x04 breaks off")
    info = make(tmp_path / "arrays", tmp_path / "dataset")
    # one readable array holds floats
    expected = Array(bands=8, frames=4, value_type="float32")
    assert info.features == FeatureSet({"array": expected})
    skipped = reasons(tmp_path / "dataset")
    assert set(skipped) == {"bands.npy", "zip.npy"}
    assert skipped["bands.npy"] == "has 9 bands, but most arrays of this table have 8"
    chunks = load_chunks(tmp_path / "dataset", PARTS)
    # 47 frames are eleven whole chunks of 4
    assert chunks.features["array"].shape == (6 * 11, 8, 4)
    first = np.load(chunks.tracks[chunks.track[0]].path)
    np.testing.assert_array_equal(chunks.features["array"][0], first[:, :4])


def test_the_tables_own_split_is_used_with_a_warning_where_it_leaks(tmp_path: Path) -> None:
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
        ("jazz4.wav", "rock4.wav"), "the table has no split for it"
    )
    warning = "groups on several sides of the table's own split: 1, e.g. 'Both'"
    assert any(one.startswith(warning) for one in info.warnings)


def test_one_recording_with_two_genres_is_warned_of(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3)
    for copy in ("copy.wav", "again.wav"):
        shutil.copy(source / "jazz/jazz0.wav", source / "rock" / copy)
    info = make(source, tmp_path / "dataset", protocol="random-chunks")
    assert info.warnings == (
        f"{source}/rock/again.wav is the same recording as {source}/jazz/jazz0.wav, but their "
        "genres are 'rock' and 'jazz', and 1 more such track: correct them",
    )


def test_a_genre_whose_files_were_made_otherwise_is_warned_of(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 8, ("jazz", "rock"))
    for i in range(8):
        wav(source / "zouk" / f"zouk{i}.wav", 1000 + i, rate=44_100)
    info = make(source, tmp_path / "dataset")
    unknown, zouk = info.warnings
    assert unknown.startswith("no artist is known")
    assert zouk.startswith("'zouk' can be told from the other genres without its music")
    assert "(sample rate or bandwidth alone; F1 1.00 on 6 tracks)" in zouk
    assert info.accuracy_without_music == pytest.approx(0.67, abs=0.17)
    assert read_info(tmp_path / "dataset") == info


def test_gtzan_tracks_get_their_published_artist_and_split(tmp_path: Path) -> None:
    facts = fault_filtered()
    ids = [
        next(i for i, fact in facts.items() if i.startswith(genre) and fact.split == part)
        for genre in ("country", "rock")
        for part in PARTS
    ]
    filtered = "country.00008"
    for seed, track_id in enumerate([*ids, filtered, "rock.00100"]):
        wav(tmp_path / "music" / track_id.split(".")[0] / f"{track_id}.wav", seed)
    make(tmp_path / "music", tmp_path / "dataset", protocol="fault-filtered")
    tracks, _ = read_dataset_tracks(tmp_path / "dataset")
    assert {t.track_id: (t.artist, t.split) for t in tracks} == {
        i: (facts[i].artist, facts[i].split) for i in ids
    }
    assert reasons(tmp_path / "dataset") == {
        f"{filtered}.wav": "left out by the published lists",
        "rock.00100.wav": "rock.00100 is not an id of GTZAN",
    }


def test_random_chunks_holds_out_a_fifth_of_the_chunks_and_is_marked_leaky(tmp_path: Path) -> None:
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


def test_the_test_parts_of_all_folds_together_are_the_table(tmp_path: Path) -> None:
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
        warning = f"the test part of fold {k}/4 has no track of 'rock', which has fewer groups"
        genres = {track.genre for track in chunks.tracks}
        assert any(one.startswith(warning) for one in info.warnings) == (genres == {"jazz"})
        assert {track.genre for track in load_chunks(dataset, ["valid"]).tracks} == {"jazz", "rock"}
    assert sorted(tested) == [f"jazz{i}" for i in range(5)] + [f"rock{i}" for i in range(3)]


def test_datasets_that_differ_in_their_split_share_their_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = music(tmp_path / "music", 4)
    (source / "jazz" / "text.wav").write_text("no audio")
    for fold in ("1/3", "2/3"):
        make(source, tmp_path / fold[0], protocol="cross-validation", fold=fold)
    assert "features of 9 tracks are those of" in capsys.readouterr().err
    first, second = (sorted((tmp_path / name / "chunks").iterdir()) for name in "12")
    assert len(first) > 1
    assert [one.stat().st_ino for one in first] == [one.stat().st_ino for one in second]
    assert reasons(tmp_path / "1") == reasons(tmp_path / "2")
    one, two = (load_chunks(tmp_path / name, ["train", "valid", "test"]) for name in "12")
    assert {t.path: t.split for t in one.tracks} != {t.path: t.split for t in two.tracks}
    # other music has features of its own, as has what is not where it should be
    wav(source / "jazz" / "more.wav", 99)
    make(source, tmp_path / "3", protocol="cross-validation", fold="1/3")
    assert "are those of" not in capsys.readouterr().err
    shutil.rmtree(tmp_path / "1")
    for shard in second[1:]:
        shard.unlink()
        shutil.copyfile(second[0], shard)
    (source / "jazz" / "more.wav").unlink()
    make(source, tmp_path / "4", protocol="cross-validation", fold="2/3")
    assert len(load_chunks(tmp_path / "4", ["train", "valid", "test"]).tracks) == 8


def test_unlabelled_music_at_any_depth_becomes_a_dataset_without_genres(tmp_path: Path) -> None:
    for i in range(11):
        wav(tmp_path / "music" / ("deep" if i % 2 else ".") / f"{i}.wav", i)
    (tmp_path / "music" / "cover.jpg").write_bytes(b"no music")
    info = make(tmp_path / "music", tmp_path / "dataset", protocol="unlabelled")
    assert (info.genres, info.tracks) == ((), 11)
    assert reasons(tmp_path / "dataset") == {}  # a picture is only counted
    chunks = load_chunks(tmp_path / "dataset", PARTS)
    assert sorted(track.split for track in chunks.tracks) == ["train"] * 10 + ["valid"]
    assert {track.genre for track in chunks.tracks} == {""}
    for genres in ("genre", "track_genre"):
        with pytest.raises(
            RequestError,
            match=r"music has no genres to learn, as it was made for pre-training \(--protocol unl",
        ):
            getattr(chunks, genres)


def test_of_a_damaged_file_the_rest_is_used_and_the_loss_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    music, dataset = tmp_path / "music", tmp_path / "dataset"
    for i in range(6):
        wav(music / ("jazz" if i % 2 else "rock") / f"{i}.wav", i)
    damaged = wav(music / "jazz" / "damaged.flac", 7, seconds=9.0)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 2000] = bytes(2000)
    damaged.write_bytes(content)
    assert make(music, dataset).tracks == 7
    tracks = pd.read_parquet(dataset / "tracks.parquet").set_index("track_id")
    lost = tracks.loc["damaged", "lost_seconds"]
    assert 0.1 < lost < 1
    assert tracks.loc["damaged", "seconds"] + lost == pytest.approx(9, abs=1e-3)
    assert (tracks.drop("damaged")["lost_seconds"] == 0).all()
    said = " ".join(capsys.readouterr().err.split())
    assert "1 track of damaged or very long files, of which the rest is used" in said
    assert f"damaged.flac: {lost:.1f} of 9.0 s are lost" in said


def test_the_length_of_chunks_can_be_chosen(made: tuple[Path, Path], tmp_path: Path) -> None:
    source, dataset = made
    info = make(source, tmp_path / "short", chunk_seconds=1.5)
    assert info.features.columns == {"log_mel": LogMel(chunk_samples=33_075)}
    chunks = load_chunks(tmp_path / "short", PARTS)
    assert chunks.features["log_mel"].shape == (16, 128, 130)
    with pytest.raises(
        RequestError, match=r"was made with features .* 2\.99 s .*, but now they are .* 1\.50 s"
    ):
        make(source, dataset, chunk_seconds=1.5)


def test_a_genre_of_short_songs_is_refused_with_the_remedy(tmp_path: Path) -> None:
    source = music(tmp_path / "music")
    for i in range(3):
        wav(source / "jingles" / f"{i}.wav", 500 + i, seconds=1.0)
    with pytest.raises(
        RequestError,
        match=r"'jingles' has no usable track: the reasons are in .*skipped\.csv, the first is: "
        r"1\.00 s, shorter than half a chunk \(of 2\.99 s\); give a smaller --chunk-seconds, add",
    ):
        make(source, tmp_path / "dataset")
    info = make(source, tmp_path / "dataset", chunk_seconds=2.0)
    assert info.genres == ("jazz", "jingles", "rock")


def test_arrays_of_frames_and_bands_make_the_same_dataset(tmp_path: Path) -> None:
    source = arrays(tmp_path / "arrays", bands=40, frames=47)
    info = make(source, tmp_path / "dataset")
    for path in source.rglob("*.npy"):
        np.save(path, np.load(path).T)
    swapped = make(source, tmp_path / "swapped")
    assert swapped.features.columns["array"] == replace(
        info.features.columns["array"], transposed=True
    )
    assert swapped.split_id == info.split_id
    one, other = (load_chunks(tmp_path / name, PARTS) for name in ("dataset", "swapped"))
    np.testing.assert_array_equal(one.features["array"], other.features["array"])


def test_arrays_shorter_than_half_a_chunk_are_left_out(tmp_path: Path) -> None:
    source = arrays(tmp_path / "arrays")
    for frames in (23, 24):
        np.save(source / "jazz" / f"of {frames}.npy", np.eye(8, frames, dtype=np.uint8))
    make(source, tmp_path / "dataset", chunks_per_track=1)
    assert reasons(tmp_path / "dataset") == {
        "of 23.npy": "23 frames, shorter than half a chunk (of 47)"
    }


def test_several_features_are_computed_side_by_side(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    source, _ = made
    info = make(source, tmp_path / "more", features=("mfcc", "log_mel"))
    assert list(info.features.columns) == ["log_mel", "mfcc"]
    chunks = load_chunks(tmp_path / "more", PARTS)
    assert {name: x.shape for name, x in chunks.features.items()} == {
        "log_mel": (8, 128, 258),
        "mfcc": (8, 20, 258),
    }
    path = chunks.tracks[chunks.track[0]].path
    for name, expected in info.features.compute(path).columns.items():
        np.testing.assert_array_equal(chunks.features[name][:1], expected)


def test_the_number_of_chunks_of_an_array_can_be_chosen(tmp_path: Path) -> None:
    source = arrays(tmp_path / "arrays")
    for count, frames in ((1, 47), (2, 23), (47, 1)):
        dataset = tmp_path / f"dataset{count}"
        info = make(source, dataset, chunks_per_track=count)
        expected = Array(bands=8, frames=frames, value_type="uint8")
        assert info.features.columns == {"array": expected}
        assert info.config.chunks_per_track == count
        assert load_chunks(dataset, PARTS).features["array"].shape == (6 * count, 8, frames)
    whole = load_chunks(tmp_path / "dataset1", PARTS)
    array = np.load(whole.tracks[whole.track[0]].path)
    np.testing.assert_array_equal(whole.features["array"][0], array)
    with pytest.raises(RequestError, match="with chunks_per_track 1, but it is now 10: give anoth"):
        make(source, tmp_path / "dataset1")
    with pytest.raises(
        RequestError, match="must be at most the frames of most arrays, but it is 48 and they have"
    ):
        make(source, tmp_path / "dataset48", chunks_per_track=48)


def _splits(chunks: Chunks) -> dict[str, str]:
    """The split of each track that was not added."""
    return {track.track_id: track.split for track in chunks.tracks if not track.added}


def test_synthetic_tracks_are_in_the_training_part_alone(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 5)
    make(source, tmp_path / "without")
    info = make(source, tmp_path / "with", synthetic=3)
    assert (info.config.synthetic, info.tracks) == (3, 16)
    chunks = load_chunks(tmp_path / "with", PARTS)
    added = [track for track in chunks.tracks if track.added]
    assert {track.path for track in added} == {
        str(tmp_path / "with" / "synthetic" / genre / f"{genre}.0000{i}.wav")
        for genre in ("jazz", "rock")
        for i in range(3)
    }
    assert {(track.artist, track.split) for track in added} == {("synthetic", "train")}
    assert len({track.group for track in added}) == 6
    assert _splits(chunks) == _splits(load_chunks(tmp_path / "without", PARTS))
    # as long as the others, 3 s, so that one counts as one of them
    assert Counter(chunks.track.tolist()) == dict.fromkeys(range(16), 1)
    track = next(i for i, track in enumerate(chunks.tracks) if track.added)
    expected = LOG_MEL.compute(chunks.tracks[track].path).columns["log_mel"]
    np.testing.assert_array_equal(chunks.features["log_mel"][chunks.track == track], expected)


def test_synthetic_tracks_are_no_tracks_of_any_corpus(tmp_path: Path) -> None:
    make(music(tmp_path / "music", 3), tmp_path / "dataset", synthetic=1)
    samples, rate = soundfile.read(
        tmp_path / "dataset/synthetic/jazz/jazz.00000.wav", dtype="float32"
    )
    assert (rate, len(samples)) == (RATE, 3 * RATE)
    expected = synthesise("jazz", 0, seed=2**31, seconds=3.0)
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-4)


def test_more_tracks_are_in_the_training_part_alone(tmp_path: Path) -> None:
    source, more = music(tmp_path / "music", 5), tmp_path / "more"
    for i in range(3):
        wav(more / "jazz" / f"other{i}.wav", 1000 + i)
    shutil.copy(source / "jazz" / "jazz0.wav", more / "jazz" / "copy.wav")
    samples, _ = soundfile.read(source / "jazz" / "jazz1.wav", dtype="float32")
    soundfile.write(more / "jazz" / "copy.ogg", samples, RATE)
    make(source, tmp_path / "without")
    info = make(source, tmp_path / "with", more_tracks=str(more))
    assert info.config.more_tracks == str(more)
    chunks = load_chunks(tmp_path / "with", PARTS)
    added = [track for track in chunks.tracks if track.added]
    assert sorted(track.track_id for track in added) == [f"more:other{i}" for i in range(3)]
    assert {track.split for track in added} == {"train"}
    assert _splits(chunks) == _splits(load_chunks(tmp_path / "without", PARTS))
    skipped = reasons(tmp_path / "with")
    assert skipped["copy.wav"] == f"the same recording as {source}/jazz/jazz0.wav"
    assert skipped["copy.ogg"] == f"the same recording as {source}/jazz/jazz1.wav"
    with pytest.raises(RequestError, match="changed since or is another table"):
        make(source, tmp_path / "with")


def test_another_number_of_synthetic_tracks_is_refused_or_overwrites(
    made: tuple[Path, Path],
) -> None:
    source, dataset = made
    with pytest.raises(RequestError, match="made with synthetic 0, but it is now 2: give another"):
        make(source, dataset, synthetic=2)
    assert make(source, dataset, overwrite=True, synthetic=2).tracks == 12
    assert make(source, dataset, overwrite=True).tracks == 8
    assert not (dataset / "synthetic").exists()


def test_arrays_with_a_recipe_take_synthetic_tracks_too(tmp_path: Path) -> None:
    source = arrays(tmp_path / "arrays", 128, 387)
    info = make(source, tmp_path / "dataset", array_recipe="gtzan", synthetic=1)
    expected = Array(bands=128, frames=38, value_type="uint8", recipe=RECIPES["gtzan"])
    assert info.features.columns == {"array": expected}
    assert read_info(tmp_path / "dataset") == info
    chunks = load_chunks(tmp_path / "dataset", PARTS)
    # ten per track, synthetic ones of 30 s too
    assert chunks.features["array"].shape == (80, 128, 38)
    assert sum(track.added for track in chunks.tracks) == 2


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    source = arrays(tmp_path / "arrays", 128, 387)
    make(source, tmp_path / "dataset")
    with pytest.raises(RequestError, match="made with array_recipe '', but it is now 'gtzan': giv"):
        make(source, tmp_path / "dataset", array_recipe="gtzan")
