"""The track tables of a dataset: which settings go together, what its key depends on."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.features.array import Array
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.pipeline.tables import check_config, read_tables


def folder(
    tmp_path: Path, suffix: str, genres: Sequence[str] = ("jazz", "rock"), count: int = 4
) -> str:
    """Files of these genres; arrays of 400 frames, or empty audio files, which are not opened."""
    for genre in genres:
        (tmp_path / genre).mkdir(parents=True)
        for i in range(count):
            path = tmp_path / genre / f"{genre}{i}{suffix}"
            if suffix == ".npy":
                np.save(path, np.zeros((128, 400), np.uint8))
            else:
                path.touch()
    return str(tmp_path)


# --- settings that do not go together ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"fold": "1/5"},
            "--fold 1/5 is for --protocol cross-validation, but the protocol is grouped: leave it "
            "out, or add --protocol cross-validation",
        ),
        ({"protocol": "cross-validation"}, "needs --fold K/N .*, but there is none: give e.g."),
        ({"protocol": "cross-validation", "fold": "6/5"}, "but it is '6/5'"),
        (
            {"protocol": "unlabelled", "synthetic": 2},
            "dataset.synthetic=2 adds tracks of known genres, but --protocol unlabelled ignores",
        ),
        (
            {"protocol": "unlabelled", "more_tracks": "more.csv"},
            "--more-tracks more.csv adds tracks of known genres, but --protocol unlabelled ignores",
        ),
        (
            {"protocol": "unlabelled", "genre_column": "style"},
            "--genre-column style is for labelled tracks, but --protocol unlabelled ignores genres",
        ),
        (
            {"protocol": "unlabelled", "drop_small_genres": True},
            "--drop-small-genres is for labelled tracks, but --protocol unlabelled ignores genres",
        ),
        ({"features": ("loudness",)}, "--features must be among ast, chroma, .*'loudness'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        check_config(DatasetConfig(tracks="music", **settings))


@pytest.mark.parametrize(
    ("suffix", "settings", "message"),
    [
        (
            ".npy",
            {"features": ("log_mel", "chroma")},
            "--features log_mel chroma is computed from audio, but the tracks are .npy "
            "spectrograms: leave it out",
        ),
        (
            ".npy",
            {"chunk_seconds": 5.0},
            "--chunk-seconds 5 cuts audio, but the tracks are .npy spectrograms: cut them by "
            "--chunks-per-track N",
        ),
        (
            ".npy",
            {"synthetic": 3},
            "dataset.synthetic=3 makes audio, but the tracks are .npy spectrograms: say how they "
            r"were made \(--set dataset.array_recipe=gtzan\), or leave it out",
        ),
        (
            ".wav",
            {"chunks_per_track": 1},
            "--chunks-per-track 1 cuts .npy spectrograms, but the tracks are audio: cut it by "
            "--chunk-seconds S",
        ),
        (
            ".wav",
            {"array_layout": "frames-bands"},
            "dataset.array_layout=frames-bands says what .npy spectrograms hold, but the tracks "
            "are audio: leave it out",
        ),
        (
            ".wav",
            {"array_recipe": "gtzan"},
            "dataset.array_recipe=gtzan says how .npy spectrograms were made, but the tracks are "
            "audio: leave it out",
        ),
    ],
)
def test_settings_for_the_other_kind_of_table_are_refused(
    tmp_path: Path, suffix: str, settings: dict[str, Any], message: str
) -> None:
    config = DatasetConfig(tracks=folder(tmp_path, suffix), **settings)
    with pytest.raises(RequestError, match=message):
        read_tables(config)


def test_genres_that_the_generator_does_not_know_are_refused(tmp_path: Path) -> None:
    tracks = folder(tmp_path, ".wav", ("jazz", "polka", "techno"))
    with pytest.raises(
        RequestError,
        match="dataset.synthetic makes music of the genres blues, .*, rock, but the table has "
        "polka, techno: rename its genres where they are the same, or leave it out",
    ):
        read_tables(DatasetConfig(tracks=tracks, synthetic=1))
    assert read_tables(DatasetConfig(tracks=tracks)).main.genres == ["jazz", "polka", "techno"]


# --- what is read ---


def test_tables_of_audio_have_the_features_of_the_request(tmp_path: Path) -> None:
    tables = read_tables(
        DatasetConfig(tracks=folder(tmp_path, ".wav"), chunk_seconds=5, synthetic=2)
    )
    assert len(tables.tracks) == 8
    assert tables.added == tables.skipped == []
    assert tables.features.columns == {"log_mel": LogMel(chunk_samples=110_250)}


def test_arrays_are_cut_into_equal_chunks(tmp_path: Path) -> None:
    tracks = folder(tmp_path, ".npy")
    whole = read_tables(
        DatasetConfig(tracks=tracks, chunks_per_track=1, array_recipe="", synthetic=0)
    )
    assert whole.features.columns == {"array": Array(bands=128, frames=400, value_type="uint8")}
    tenth = read_tables(DatasetConfig(tracks=tracks, array_recipe="gtzan", synthetic=2))
    array = tenth.features.columns["array"]
    assert isinstance(array, Array)
    assert (array.frames, array.value_type) == (40, "uint8")
    assert array.recipe
    assert array.recipe.n_mels == 128


def test_the_most_common_size_of_the_arrays_is_used(tmp_path: Path) -> None:
    tracks = folder(tmp_path, ".npy")
    np.save(tmp_path / "jazz" / "jazz0.npy", np.zeros((96, 50)))
    (tmp_path / "jazz" / "jazz1.npy").write_text("no array")
    array = read_tables(DatasetConfig(tracks=tracks)).features.columns["array"]
    # not all of them hold uint8
    assert array == Array(bands=128, frames=40, value_type="float32")


def test_arrays_that_cannot_be_cut_are_refused(tmp_path: Path) -> None:
    tracks = folder(tmp_path, ".npy")
    with pytest.raises(
        RequestError,
        match="--chunks-per-track must be at most the frames of most arrays, but it is 401 and "
        "they have 400: give a smaller number",
    ):
        read_tables(DatasetConfig(tracks=tracks, chunks_per_track=401))
    for path in tmp_path.rglob("*.npy"):
        path.write_text("no array")
    with pytest.raises(RequestError, match="none of the table's arrays can be read: expected .npy"):
        read_tables(DatasetConfig(tracks=tracks))


def test_an_unlabelled_table_needs_no_genre_folders(tmp_path: Path) -> None:
    (tmp_path / "song.wav").touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other.wav").touch()
    tables = read_tables(DatasetConfig(tracks=str(tmp_path), protocol="unlabelled"))
    assert sorted(track.track_id for track in tables.tracks) == ["other", "song"]
    assert tables.main.genres == []


def test_tracks_are_added_and_artists_excluded(tmp_path: Path) -> None:
    tracks = folder(tmp_path / "music", ".wav")
    (tmp_path / "more.csv").write_text("path,genre\nx.wav,rock\ny.wav,polka\n")
    (tmp_path / "x.wav").touch()
    more = DatasetConfig(tracks=tracks, more_tracks=str(tmp_path / "more.csv"))
    tables = read_tables(more)
    assert [track.track_id for track in tables.added] == ["more:x.wav"]
    assert tables.tracks == [*tables.main.tracks, *tables.added]
    assert [one.reason for one in tables.skipped] == ["no genre 'polka' in --tracks"]
    table = tmp_path / "tracks.csv"
    rows = [f"{genre}{i}.wav,{genre},{genre} {i}" for genre in ("jazz", "rock") for i in range(4)]
    table.write_text("\n".join(["path,genre,artist", *rows]))
    (tmp_path / "jazz0.wav").touch()
    (tmp_path / "unwanted.csv").write_text("artist\nRock 3\n")
    unwanted = str(tmp_path / "unwanted.csv")
    tables = read_tables(DatasetConfig(tracks=str(table), exclude_artists=unwanted))
    assert len(tables.tracks) == 7
    assert [Path(one.path).name for one in tables.skipped] == ["rock3.wav"]


def test_artists_of_the_published_lists_are_known_to_the_added_tracks(tmp_path: Path) -> None:
    # the table has no artists, but blues.00000 is by John Lee Hooker
    for genre in ("blues", "jazz"):
        (tmp_path / "music" / genre).mkdir(parents=True)
        for i in range(100):
            (tmp_path / "music" / genre / f"{genre}.{i:05d}.wav").touch()
    more = tmp_path / "more.csv"
    more.write_text(
        'path,genre,track_id,artist\nx.wav,blues,x,"Hooker, John Lee"\ny.wav,blues,y,Somebody\n'
    )
    for name in "xy":
        (tmp_path / f"{name}.wav").touch()
    config = DatasetConfig(
        tracks=str(tmp_path / "music"), protocol="fault-filtered", more_tracks=str(more)
    )
    assert [track.track_id for track in read_tables(config).added] == ["more:y"]
    grouped = read_tables(replace(config, protocol="grouped"))
    assert [track.track_id for track in grouped.added] == ["more:x", "more:y"]


def test_a_table_of_which_no_file_is_there_is_refused(tmp_path: Path) -> None:
    tracks = folder(tmp_path / "music", ".wav")
    elsewhere = tmp_path / "tables" / "tracks.csv"
    elsewhere.parent.mkdir()
    rows = [f"music/{genre}/{genre}{i}.wav,{genre}" for genre in ("jazz", "rock") for i in range(4)]
    elsewhere.write_text("\n".join(["path,genre", *rows]))
    message = (
        f"none of the 8 files that {elsewhere} lists is there, the first: "
        f"{tmp_path}/tables/music/jazz/jazz0.wav; paths are relative to the table's folder: move"
    )
    with pytest.raises(RequestError, match=message):
        read_tables(DatasetConfig(tracks=str(elsewhere)))
    with pytest.raises(RequestError, match=message):
        read_tables(DatasetConfig(tracks=tracks, more_tracks=str(elsewhere)))
    elsewhere.rename(tmp_path / "tracks.csv")
    assert len(read_tables(DatasetConfig(tracks=str(tmp_path / "tracks.csv"))).tracks) == 8


def test_all_tables_are_read_by_the_same_rules_and_what_is_assumed_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path, ".wav")
    rows = [f"{g}\\{g}{i}.wav;{g};{g} {i}" for g in ("jazz", "rock") for i in range(4)]
    (tmp_path / "tracks.csv").write_text("\n".join(["song;Style;Performer", *rows]))
    (tmp_path / "more.csv").write_text("File\tStyle\nmore.wav\tjazz\n", "utf-16")
    (tmp_path / "more.wav").touch()
    (tmp_path / "unwanted.csv").write_bytes("Artist\nRock 3\nÉdith\n".encode("cp1252"))
    config = DatasetConfig(
        tracks=str(tmp_path / "tracks.csv"),
        path_column="song",
        genre_column="style",
        more_tracks=str(tmp_path / "more.csv"),
        exclude_artists=str(tmp_path / "unwanted.csv"),
    )
    tables = read_tables(config)
    assert len(tables.main.tracks) == 7
    assert all(Path(track.path).exists() for track in tables.tracks)
    assert [track.path for track in tables.added] == [str(tmp_path / "more.wav")]
    printed = capsys.readouterr().err.splitlines()
    for line, (table, text) in zip(
        printed,
        [
            ("tracks.csv", "takes the column 'Performer' as the artist"),
            ("tracks.csv", "paths that have \\ for /: 8, e.g. "),
            ("unwanted.csv", "not UTF-8, so read as Windows-1252 (cp1252), e.g. 'Édith' in line 3"),
            ("more.csv", "takes the column 'File' as the path"),
        ],
        strict=True,
    ):
        assert line.startswith(f"{tmp_path / table}: {text}")
    # how the columns are called is no part of what identifies a dataset
    text = (tmp_path / "tracks.csv").read_text().replace("song;Style", "path;genre")
    (tmp_path / "tracks.csv").write_text(text)
    renamed = replace(config, path_column="", genre_column="")
    (tmp_path / "more.csv").write_text("path,genre\nmore.wav,jazz\n")
    assert read_tables(renamed).key == tables.key


# --- small genres ---


def small(tmp_path: Path) -> Path:
    """Four jazz and rock songs by an artist each, two of polka, and three of ska by one artist."""
    counts = {"jazz": 4, "rock": 4, "polka": 2, "ska": 3}
    rows = [
        f"{genre}{i}.wav,{genre},{genre} {0 if genre == 'ska' else i}"
        for genre, count in counts.items()
        for i in range(count)
    ]
    (tmp_path / "tracks.csv").write_text("\n".join(["path,genre,artist", *rows]))
    (tmp_path / "jazz0.wav").touch()
    return tmp_path / "tracks.csv"


def test_what_is_assumed_of_a_table_that_is_refused_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = small(tmp_path).read_text().replace("genre", "label")
    (tmp_path / "tracks.csv").write_text(text)
    with pytest.raises(RequestError, match="'polka' has 2"):
        read_tables(DatasetConfig(tracks=str(tmp_path / "tracks.csv")))
    assert "tracks.csv: takes the column 'label' as the genre\n" in capsys.readouterr().err


def test_a_small_genre_is_refused_with_the_option_that_leaves_it_out(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError,
        match="needs 3 groups .* but 'polka' has 2: .*leave out all that are too small by "
        "--drop-small-genres",
    ):
        read_tables(DatasetConfig(tracks=str(small(tmp_path))))


def test_small_genres_are_left_out_where_asked_each_track_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.csv").write_text("path,genre,artist\nx.wav,polka,x\ny.wav,rock,y\n")
    (tmp_path / "y.wav").touch()
    config = DatasetConfig(
        tracks=str(small(tmp_path)),
        drop_small_genres=True,
        more_tracks=str(tmp_path / "more.csv"),
    )
    tables = read_tables(config)
    assert tables.main.genres == ["jazz", "rock"]
    reasons = {Path(one.path).name: one.reason for one in tables.skipped}
    needed = "3 groups (artists, or tracks of unknown artist) that --protocol grouped needs"
    polka = f"its genre 'polka' has 2 of the {needed}: left out by --drop-small-genres"
    ska = f"its genre 'ska' has 1 of the {needed}: left out by --drop-small-genres"
    assert reasons == {
        **{f"polka{i}.wav": polka for i in range(2)},
        **{f"ska{i}.wav": ska for i in range(3)},
        "x.wav": "no genre 'polka' in --tracks",
    }
    printed = capsys.readouterr().err
    assert f"3 tracks left out: {ska}\n2 tracks left out: {polka}\n" in printed


# --- what identifies a dataset ---


def test_the_key_changes_with_settings_rows_and_files(tmp_path: Path) -> None:
    tracks = folder(tmp_path / "music", ".wav")
    (tmp_path / "more.csv").write_text("path,genre\nx.wav,rock\n")
    (tmp_path / "x.wav").touch()
    config = DatasetConfig(tracks=tracks)
    settings: list[dict[str, Any]] = [
        {},
        {"split_seed": 1},
        {"protocol": "random-chunks"},
        {"features": ("log_mel", "mfcc")},
        {"chunk_seconds": 5},
        {"more_tracks": str(tmp_path / "more.csv")},
        {"synthetic": 1},
        {"synthetic": 2},
        {"drop_small_genres": True},
    ]
    keys = [read_tables(replace(config, **changed)).key for changed in settings]
    assert len(set(keys)) == len(settings)
    assert all(len(key) == 8 for key in keys)
    song = tmp_path / "music/jazz/jazz0.wav"
    before = song.stat()
    song.write_bytes(b"music")
    keys.append(read_tables(config).key)
    os.utime(song, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    keys.append(read_tables(config).key)
    song.unlink()
    keys.append(read_tables(config).key)
    assert len(set(keys)) == len(settings) + 3


def test_the_key_changes_with_the_version_of_generated_music(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DatasetConfig(tracks=folder(tmp_path, ".wav"))
    keys = []
    for version in (1, 2):
        monkeypatch.setattr("mgc_ray.corpus.composer.VERSION", version)
        keys.append([read_tables(replace(config, synthetic=n)).key for n in (0, 1)])
    assert keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1]


def test_the_key_does_not_depend_on_how_the_table_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = folder(tmp_path / "music", ".wav")
    absolute = read_tables(DatasetConfig(tracks=tracks))
    monkeypatch.chdir(tmp_path)
    relative = read_tables(DatasetConfig(tracks="music/../music"))
    assert relative.key == absolute.key
    assert relative.config.tracks == absolute.config.tracks == tracks


def arrays(tmp_path: Path, *shapes: tuple[int, int]) -> str:
    """Arrays of these shapes, in turn."""
    for genre in ("jazz", "rock"):
        (tmp_path / genre).mkdir(parents=True)
        for i in range(4):
            shape = shapes[i % len(shapes)]
            np.save(tmp_path / genre / f"{genre}{i}.npy", np.zeros(shape, np.uint8))
    return str(tmp_path)


def test_arrays_of_frames_and_bands_are_recognised_with_a_note(tmp_path: Path) -> None:
    tables = read_tables(DatasetConfig(tracks=arrays(tmp_path, (387, 128))))
    feature = Array(bands=128, frames=38, value_type="uint8", transposed=True)
    assert tables.features.columns == {"array": feature}
    assert tables.notes == [
        "genres: jazz (4 files), rock (4)",
        "the arrays are [frames, bands], with 128 bands",
    ]


@pytest.mark.parametrize(("layout", "bands"), [("bands-frames", 96), ("frames-bands", 64)])
def test_arrays_that_may_be_either_are_refused_with_what_to_type(
    tmp_path: Path, layout: str, bands: int
) -> None:
    tracks = arrays(tmp_path, (96, 64))
    with pytest.raises(
        RequestError,
        match=r"hold \[bands, frames\], but most of these are 96 x 64, which may also be \[frames, "
        r"bands\]: say which they are by --set dataset.array_layout=bands-frames or frames-bands",
    ):
        read_tables(DatasetConfig(tracks=tracks))
    features = read_tables(DatasetConfig(tracks=tracks, array_layout=layout)).features
    assert (features.columns["array"].bands, features.columns["array"].frames) == (
        bands,
        (160 - bands) // 10,
    )


@pytest.mark.parametrize(
    ("protocol", "used"),
    [
        ("given", "is used: --protocol given"),
        ("grouped", "is not used (--protocol given would): --protocol grouped"),
    ],
)
def test_whether_the_split_of_a_table_is_used_is_said(
    tmp_path: Path, protocol: Any, used: str
) -> None:
    for part in ("train", "val", "test"):
        folder(tmp_path / "music" / part, ".wav")
    tables = read_tables(DatasetConfig(tracks=str(tmp_path / "music"), protocol=protocol))
    assert tables.notes == [
        "genres: jazz (12 files), rock (12)",
        f"the split of music {used}",
    ]
