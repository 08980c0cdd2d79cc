"""Playlists: every song in one, whatever genres and files are called."""

from collections import Counter
from pathlib import Path

import pytest

from mgc_ray.pipeline.playlists import file_names, write_playlists, write_similar

ODD = [
    *("rock", "Funk/Soul", "Funk-Soul", "funk-soul", "Funk\\Soul", "..", ".", "/", " ", ".hip hop"),
    *("nan", "drum:bass", "a\nb", "日本の音楽", "שלום", "🎸", "é", "e\u0301", "L" * 300, "é" * 299),
]


def read(path: Path) -> tuple[str, list[str]]:
    """A playlist as a player reads it: its title, and the lines that are no comment."""
    first, title, *lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    assert first == "#EXTM3U"
    return title, [line for line in lines if not line.startswith("#")]


def test_no_song_is_lost_whatever_genres_are_called(tmp_path: Path) -> None:
    songs = []
    for number, genre in enumerate(ODD):
        (tmp_path / f"{number}.wav").touch()
        songs.append((f"{number}.wav", genre, 0.5))
    write_playlists(tmp_path / "lists", tmp_path, songs, ODD)
    written = sorted((tmp_path / "lists").iterdir())
    assert len(written) == len(ODD)
    listed = Counter(Path(line).name for path in written for line in read(path)[1])
    assert listed == Counter(f"{number}.wav" for number in range(len(ODD)))
    assert not list(tmp_path.glob("*.m3u8"))  # of a genre called ..
    assert read(tmp_path / "lists/rock.m3u8") == ("#PLAYLIST:rock", ["../0.wav"])


def test_names_of_playlists() -> None:
    names = file_names(ODD)
    assert names["rock"] == "rock.m3u8"
    assert names["Funk-Soul"] == "Funk-Soul.m3u8"  # a file's name already
    assert names["funk-soul"] == "funk-soul (2).m3u8"  # where case makes no difference
    assert names["Funk/Soul"] == "Funk-Soul (3).m3u8"
    assert names["Funk\\Soul"] == "Funk-Soul (4).m3u8"
    assert {names[genre] for genre in ("..", ".", " ")} == {
        *("genre.m3u8", "genre (2).m3u8", "genre (3).m3u8")
    }
    assert names[".hip hop"] == "hip hop.m3u8"
    assert names["drum:bass"] == "drum-bass.m3u8"
    assert names["nan"] == "nan.m3u8"
    assert names["L" * 300] == "L" * 200 + ".m3u8"
    assert names["é" * 299] == "é" * 100 + ".m3u8"
    assert all(len(name.encode()) <= 230 for name in names.values())
    assert file_names(ODD[::-1]) == names


@pytest.mark.parametrize(
    ("song", "line"),
    [
        ("#1 hit.mp3", "./#1 hit.mp3"),
        ("#EXTM3U/a.mp3", "./#EXTM3U/a.mp3"),
        (" a.mp3", "./ a.mp3"),
        ("http:a.mp3", "./http:a.mp3"),
        ("plain.mp3", "plain.mp3"),
        ("...And Justice for All/1.mp3", "...And Justice for All/1.mp3"),
        (b"caf\xe9.mp3".decode("utf-8", "surrogateescape"), "caf\udce9.mp3"),
    ],
)
def test_a_song_is_found_by_its_line(song: str, line: str, tmp_path: Path) -> None:
    (tmp_path / song).parent.mkdir(exist_ok=True)
    (tmp_path / song).touch()
    write_playlists(tmp_path, tmp_path, [(song, "rock", 0.9)], ["rock"])
    assert read(tmp_path / "rock.m3u8")[1] == [line]
    assert (tmp_path / line).exists()


def test_the_most_certain_songs_come_first(tmp_path: Path) -> None:
    songs = [("b.wav", "rock", 0.5), ("c.wav", "rock", 0.904), ("a.wav", "rock", 0.5)]
    write_playlists(tmp_path, tmp_path, songs, ["rock"])
    assert (tmp_path / "rock.m3u8").read_text().splitlines() == [
        *("#EXTM3U", "#PLAYLIST:rock"),
        *("#EXTINF:-1,c (90%)", "c.wav"),
        *("#EXTINF:-1,a (50%)", "a.wav"),
        *("#EXTINF:-1,b (50%)", "b.wav"),
    ]


def test_a_name_with_a_line_break_is_left_out_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = [("a\nb.wav", "rock", 0.5), ("c.wav", "rock", 0.5)]
    write_playlists(tmp_path, tmp_path, songs, ["rock"])
    assert read(tmp_path / "rock.m3u8")[1] == ["c.wav"]
    assert "line breaks: 1, e.g. a\\nb.wav\n" in capsys.readouterr().err


def test_a_genre_that_has_no_songs_any_more_has_an_empty_playlist(tmp_path: Path) -> None:
    write_playlists(tmp_path, tmp_path, [("a.wav", "rock", 0.5)], ["jazz", "rock"])
    write_playlists(tmp_path, tmp_path, [("a.wav", "jazz", 0.5)], ["jazz", "rock"])
    assert read(tmp_path / "rock.m3u8")[1] == []
    assert read(tmp_path / "jazz.m3u8")[1] == ["a.wav"]


def test_similar_songs_are_listed_in_the_order_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = [("b.wav", "rock", 0.5), ("c\nd.wav", "rock", 0.4), ("#a.wav", "hip\nhop", -0.123)]
    playlist = tmp_path / "lists" / "like.m3u8"
    playlist.parent.mkdir()
    write_similar(playlist, "Similar to x", tmp_path / "music", songs)
    assert playlist.read_text().splitlines() == [
        *("#EXTM3U", "#PLAYLIST:Similar to x"),
        *("#EXTINF:-1,b (rock, 0.50)", "../music/b.wav"),
        *("#EXTINF:-1,#a (hip\\nhop, -0.12)", "../music/#a.wav"),
    ]
    assert "line breaks: 1, e.g. c\\nd.wav\n" in capsys.readouterr().err
