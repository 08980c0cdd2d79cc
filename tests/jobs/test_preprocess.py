"""From files to a dataset on real Ray: what is made, and what is left out and why."""

import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc_ray import RequestError
from mgc_ray.data.chunks import load_chunks
from mgc_ray.data.dataset import (
    read_info,
    read_track_rows,
)
from mgc_ray.data.gtzan import fault_filtered
from mgc_ray.data.spectrogram import GTZAN_ARRAYS, BandGroups, LogMel, Precomputed
from mgc_ray.data.synth import synthesise
from tests.jobs.making import PARTS, RATE, arrays, make, music, reasons, table, wav

pytestmark = pytest.mark.usefixtures("ray_cluster", "small_shards")


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
