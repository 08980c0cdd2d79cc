"""Artists of songs that no table gives: from tags and folders, in real files."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc_ray import RequestError
from mgc_ray.data.split.protocols import check_table
from mgc_ray.data.tags import artist_in_tags, artists_in_words, with_artists
from mgc_ray.data.tracks import TrackTable, read_tracks

RATE = 22_050


def song(path: Path, artist: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, RATE)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        if artist:
            file.artist = artist
        file.write(samples)
    return path


def artists(table: TrackTable) -> dict[str, str]:
    return {Path(track.path).name: track.artist for track in table.tracks}


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "a.wav", "a.aiff"])
def test_the_artist_is_read_from_the_tags_of_each_format(tmp_path: Path, name: str) -> None:
    artist = "Bjork" if name == "a.mp3" else "Björk"  # of which libsndfile writes no valid ID3
    assert artist_in_tags(str(song(tmp_path / name, artist))) == artist
    assert artist_in_tags(str(song(tmp_path / f"without-{name}"))) == ""


@pytest.mark.parametrize("artist", ["Unknown Artist", "Various Artists", " - "])
def test_a_tag_that_names_nobody_is_no_artist(tmp_path: Path, artist: str) -> None:
    assert artist_in_tags(str(song(tmp_path / "a.flac", artist))) == ""


def test_files_without_readable_tags_have_no_artist(tmp_path: Path) -> None:
    (tmp_path / "text.mp3").write_text("no music")
    (tmp_path / "empty.flac").touch()
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    whole = song(tmp_path / "a.flac", "Ella").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[:30])
    for name in ("text.mp3", "empty.flac", "a.npy", "cut.flac", "nowhere.wav"):
        assert artist_in_tags(str(tmp_path / name)) == ""


@pytest.mark.timeout(10)
def test_a_pipe_has_no_tags(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp3")
    assert artist_in_tags(str(tmp_path / "a.mp3")) == ""


def test_tags_come_before_folders_and_the_table_before_both(tmp_path: Path) -> None:
    song(tmp_path / "jazz/Folder Artist/Album/tagged.flac", "Ella")
    song(tmp_path / "jazz/Folder Artist/Album/untagged.flac")
    song(tmp_path / "jazz/Folder Artist/Album/CD 2/disc.flac")
    song(tmp_path / "jazz/Album Only/CD2/ambiguous.flac")
    song(tmp_path / "jazz/Various Artists/Album/various.flac")
    song(tmp_path / "jazz/loose.flac")
    table = with_artists(read_tracks(tmp_path))
    assert artists(table) == {
        "tagged.flac": "Ella",
        "untagged.flac": "Folder Artist",
        "disc.flac": "Folder Artist",
        "ambiguous.flac": "",
        "various.flac": "",
        "loose.flac": "",
    }
    assert table.artists_from == {"tags": 1, "folders": 2, "unknown": 3}
    assert artists_in_words(table.artists_from) == "artists: 1 from tags, 2 from folders; 3 unknown"
    (tmp_path / "t.csv").write_text(
        "path,genre,artist\njazz/Folder Artist/Album/tagged.flac,jazz,Somebody\n"
        "jazz/Folder Artist/Album/untagged.flac,jazz,\n"
    )
    table = with_artists(read_tracks(tmp_path / "t.csv"))
    assert artists(table) == {"tagged.flac": "Somebody", "untagged.flac": ""}  # a CSV has no layout
    assert artists_in_words(table.artists_from) == "artists: 1 from the table; 1 unknown"
    assert artists_in_words(Counter(unknown=2)) == "artists: none is known"


def test_songs_in_one_folder_stay_together_where_it_may_be_an_artist_or_an_album(
    tmp_path: Path,
) -> None:
    for genre, folders in (("jazz", "ABC"), ("rock", "AB")):
        for folder in folders:
            for i in (0, 1):
                song(tmp_path / genre / folder / f"{genre}{folder}{i}.flac")
    groups = {track.track_id: track.group for track in with_artists(read_tracks(tmp_path)).tracks}
    assert {groups[f"jazz{folder}{i}"] for folder in "ABC" for i in (0, 1)} == {
        *("jazz/A", "jazz/B", "jazz/C")
    }
    # songs without a group count one by one, also where others have one
    for i in range(3):
        song(tmp_path / "pop" / f"{i}.flac")
    check_table(with_artists(read_tracks(tmp_path)), "grouped")
    # two folders could not be split into three parts
    assert {groups[f"rock{folder}{i}"] for folder in "AB" for i in (0, 1)} == {""}


def test_a_copied_file_keeps_its_artist(tmp_path: Path) -> None:
    first = song(tmp_path / "jazz/a.mp3", "Ella/Louis")
    shutil.copy(first, tmp_path / "jazz/b.mp3")
    assert set(artists(with_artists(read_tracks(tmp_path))).values()) == {"Ella/Louis"}


@pytest.mark.parametrize("what", ["artist", "album"])
def test_folders_called_like_the_artists_or_albums_in_them_are_no_genres(
    tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "my rock"
    for name in ("Abba", "Queen", "Beyonce"):
        for i in range(3):
            path = folder / name / f"{name}{i}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            with soundfile.SoundFile(path, "w", RATE, 1) as file:
                setattr(file, what, "Beyoncé" if name == "Beyonce" else name)
                file.write(np.random.default_rng(i).uniform(-0.1, 0.1, 100))
    with pytest.raises(
        RequestError,
        match=f"the folders of .*/my rock seem to be {what}s, no genres: the tags of most songs in "
        f"Abba have Abba among the {what}s. .* if this one is a genre .--tracks {tmp_path}",
    ):
        with_artists(read_tracks(folder))
    # below genres they are what they should be
    folder.rename(tmp_path / "rock")
    song(tmp_path / "jazz" / "Ella" / "a.flac", "Ella")
    assert with_artists(read_tracks(tmp_path)).genres == ["jazz", "rock"]


def test_an_artist_called_like_a_genre_is_no_reason_to_refuse(tmp_path: Path) -> None:
    for genre, artist in (("blues", "Blues"), ("jazz", "Ella"), ("rock", "Kid Rock")):
        for i in range(3):
            song(tmp_path / genre / f"{genre}{i}.flac", artist)
    assert len(with_artists(read_tracks(tmp_path)).tracks) == 9
