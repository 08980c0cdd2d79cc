"""The tables of FMA and of GTZAN's usual download, made small."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.tracks import Skipped, Track, read_artists, read_tracks
from tests.data.test_tracks import touched

# the first columns and rows of FMA's tracks.csv are like these
FMA_HEADER = [
    ["", "album", "album", "artist", "artist", "set", "set", "track", "track", "track"],
    [
        "",
        "comments",
        "information",
        "bio",
        "name",
        "split",
        "subset",
        "genre_top",
        "genres",
        "title",
    ],
    ["track_id", "", "", "", "", "", "", "", "", ""],
]
TEXT = '<p>"Lines",\nand, commas,\n\nand more</p>'


def fma(folder: Path) -> Path:
    """The table as it is unpacked: fma_metadata/tracks.csv."""
    folder.mkdir(parents=True)
    rows = [
        ["2", "0", TEXT, TEXT, "AWOL", "training", "small", "Hip-Hop", "[21]", "Food"],
        ["3", "0", TEXT, "", "AWOL", "validation", "small", "", "[21]", "Electric Ave"],
        ["5", "0", "", "", "Kurt, Vile", "test", "small", "Rock", "[21]", "This World"],
        ["1005", "0", "", "", "Nicky Cook", "training", "large", "Rock", "[10]", "Freeway"],
        ["155320", "0", "", "", "Spowey Kid", "training", "large", "Rock", "[10]", "Hmm"],
    ]
    with (folder / "tracks.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([*FMA_HEADER, *rows])
    return folder / "tracks.csv"


def test_fmas_table_is_read_with_the_audio_beside_it(tmp_path: Path) -> None:
    source = fma(tmp_path / "fma_metadata")
    audio = touched(tmp_path / "fma_small", "000/000002.mp3", "000/000003.mp3", "000/000005.mp3")
    touched(tmp_path / "fma_small", "001/001005.mp3", "README.txt", "checksums")
    table = read_tracks(source)
    assert table.tracks == [
        Track(str(audio / "000/000002.mp3"), "Hip-Hop", "000002", "AWOL", split="train"),
        Track(str(audio / "000/000005.mp3"), "Rock", "000005", "Kurt, Vile", split="test"),
        Track(str(audio / "001/001005.mp3"), "Rock", "001005", "Nicky Cook", split="train"),
    ]
    assert table.skipped == [
        Skipped(str(audio / "000/000003.mp3"), "the table has no genre for it"),
        Skipped(str(audio / "155/155320.mp3"), "is not in fma_small"),
    ]
    assert [sentence.removeprefix(f"{source}: ") for sentence in table.notes] == [
        "takes the column 'track.genre_top' as the genre, 'artist.name' as the artist, "
        "'set.split' as the split",
        f"is FMA's table: 4 of its 5 tracks are in {audio}",
        "takes the split 'training' as train, 'validation' as valid",
    ]
    assert [t.track_id for t in read_tracks(source, labelled=False).tracks] == [
        *("000002", "000003", "000005", "001005")
    ]
    assert read_artists(source)[0] == ["AWOL", "Kurt, Vile", "Nicky Cook", "Spowey Kid"]


def test_fmas_audio_is_found_where_it_is_usually_unpacked(tmp_path: Path) -> None:
    source = fma(tmp_path / "fma_metadata/fma_metadata")
    touched(tmp_path, "fma_small/fma_small/000/000002.mp3", "fma_small/README.txt")
    assert [track.track_id for track in read_tracks(source).tracks] == ["000002"]
    # converted
    touched(tmp_path, "fma_small/fma_small/000/000005.flac")
    assert [Path(t.path).name for t in read_tracks(source).tracks] == ["000002.mp3", "000005.flac"]


def test_fmas_table_is_refused_where_its_audio_is_not_clear(tmp_path: Path) -> None:
    source = fma(tmp_path / "fma_metadata")
    with pytest.raises(
        RequestError, match=rf"no folder with their audio .* is beside it: .*cp {source} FOLDER"
    ):
        read_tracks(source)
    for size in ("small", "medium"):
        touched(tmp_path, f"fma_{size}/000/000002.mp3")
    with pytest.raises(
        RequestError, match=rf"several folders .*fma_medium and .*fma_small: .* cp {source} "
    ):
        read_tracks(source)
    shutil.copy(source, tmp_path / "fma_medium")
    tracks = read_tracks(tmp_path / "fma_medium/tracks.csv").tracks
    assert [track.path for track in tracks] == [str(tmp_path / "fma_medium/000/000002.mp3")]


def gtzan(folder: Path) -> Path:
    """The folder Data of the usual download."""
    header = "filename,length,chroma_stft_mean,chroma_stft_var,tempo,label"
    songs = [(genre, f"{genre}.{i:05d}") for genre in ("blues", "rock") for i in range(4)]
    for genre, song in songs:
        touched(
            folder, f"genres_original/{genre}/{song}.wav", f"images_original/{genre}/{song}.png"
        )
    whole = [f"{song}.wav,661794,0.35,0.08,123.0,{genre}" for genre, song in songs]
    parts = [f"{s}.{i}.wav,66149,0.35,0.08,123.0,{g}" for g, s in songs for i in range(10)]
    (folder / "features_30_sec.csv").write_text("\n".join([header, *whole]))
    (folder / "features_3_sec.csv").write_text("\n".join([header, *parts]))
    return folder


def test_the_feature_table_of_gtzans_songs_gives_their_files(tmp_path: Path) -> None:
    table = read_tracks(gtzan(tmp_path) / "features_30_sec.csv")
    audio = tmp_path / "genres_original"
    assert table.tracks[0] == Track(str(audio / "blues/blues.00000.wav"), "blues", "blues.00000")
    assert Counter(track.genre for track in table.tracks) == {"blues": 4, "rock": 4}
    assert all(Path(track.path).exists() for track in table.tracks)
    assert any("--protocol fault-filtered has their published artists" in s for s in table.notes)


def test_the_feature_table_of_parts_of_gtzans_songs_is_refused_with_what_to_type(
    tmp_path: Path,
) -> None:
    source = gtzan(tmp_path) / "features_3_sec.csv"
    message = r"parts of songs \(blues.00000.0.wav\) that are no files; .*whole ones: --tracks {}"
    whole = tmp_path / "features_30_sec.csv"
    with pytest.raises(RequestError, match=message.format(whole)):
        read_tracks(source)
    whole.unlink()
    with pytest.raises(RequestError, match=message.format(tmp_path / "genres_original")):
        read_tracks(source)
    # parts that are files, as some cut them
    touched(tmp_path, "genres_original/blues/blues.00000.0.wav")
    assert read_tracks(source).tracks[0].track_id == "blues.00000.0"
