"""The command predict on files: whatever their names are, and whatever lies among them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mgc_ray.corpus.files import write_track
from tests.commands import command

LATIN_1 = b"caf\xe9.wav".decode("utf-8", "surrogateescape")
ODD = ("a\nb.wav", "\x1b[2J.wav", "[red]x[red].wav", LATIN_1, "日本.wav")


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of songs with odd names, a picture and a subfolder."""
    folder = tmp_path_factory.mktemp("music") / "album"
    (folder / "live" / "cd 2").mkdir(parents=True)
    write_track(folder / "plain.wav", "rock", 0, 0, 3.0)
    for name in (*ODD, "live/1.wav", "live/cd 2/2.wav", "live/.hidden.wav"):
        os.link(folder / "plain.wav", folder / name)
    (folder / "live" / "cover.jpg").write_bytes(b"\xff\xd8")
    (folder / "live" / "notes.wav").write_text("no sound")
    return folder


def test_names_that_are_not_utf_8_or_hold_control_characters_end_nothing(album: Path) -> None:
    done = command("predict", *ODD, cwd=album)
    names = [line.partition(": ")[0] for line in done.stdout.splitlines()]
    assert names == ["a\\nb.wav", "\\x1b[2J.wav", "[red]x[red].wav", "caf\\xe9.wav", "日本.wav"]
    (line,) = command("predict", *ODD, "--json", cwd=album).stdout.splitlines()
    assert [one["file"] for one in json.loads(line)] == [*ODD[:3], "caf\\xe9.wav", "日本.wav"]


@pytest.mark.parametrize("option", [(), ("--json",)], ids=["text", "json"])
def test_odd_names_in_a_process_of_its_own(album: Path, option: tuple[str, ...]) -> None:
    """Where Python encodes what is printed strictly, as it does in a UTF-8 locale."""
    done = subprocess.run(
        [sys.executable, "-m", "mgc_ray.predict", *option, *ODD, "missing.wav"],
        cwd=album,
        capture_output=True,
        env=os.environ | {"LC_ALL": "C.UTF-8", "COLUMNS": "20"},
        timeout=200,
    )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["missing.wav: error: no such file"]
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 1 if option else len(ODD)
    assert "caf\\\\xe9.wav" in lines[0] if option else lines[3].startswith("caf\\xe9.wav: ")


def test_a_folder_among_the_files_stands_for_all_its_songs(album: Path) -> None:
    given = sorted(path.name for path in album.iterdir())  # as `album/*`
    done = command("predict", *given, cwd=album, status=1)
    assert len(done.stdout.splitlines()) == len(ODD) + 1 + 2
    assert "live/1.wav: " in done.stdout
    assert "live/cd 2/2.wav: " in done.stdout
    assert "live/notes.wav: error: not audio, or corrupt: Format not recognised" in done.stderr
    assert "live/.hidden.wav: left out: is hidden" in done.stderr
    assert "1 file is no audio (1 .jpg)" in done.stderr


def test_a_folder_alone_stands_for_all_its_songs(album: Path) -> None:
    (line,) = command("predict", "live/cd 2", "--json", cwd=album).stdout.splitlines()
    (song,) = json.loads(line)
    assert song["file"] == "live/cd 2/2.wav"
    assert sum(song["genres"].values()) == pytest.approx(1)


def test_a_folder_without_music_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").touch()
    done = command("predict", "texts", cwd=tmp_path, status=2)
    assert "texts has no file that may be a song: give another folder" in done.stderr


def test_a_prediction_for_a_short_song_is_marked(album: Path, tmp_path: Path) -> None:
    """Shorter than half of the shortest chunks that the included model reads, 3 s."""
    write_track(tmp_path / "whole.wav", "rock", 0, 0, 15.0)
    write_track(tmp_path / "jingle.wav", "rock", 0, 0, 1.0)
    done = command("predict", "whole.wav", "jingle.wav", cwd=tmp_path)
    whole, jingle = done.stdout.splitlines()
    assert "short" not in whole
    assert jingle.endswith(" (1.00 s, shorter than half a chunk (of 2.99 s))")
    (line,) = command(
        "predict", "whole.wav", "jingle.wav", "--json", cwd=tmp_path
    ).stdout.splitlines()
    assert [one["short"] for one in json.loads(line)] == [
        None,
        "1.00 s, shorter than half a chunk (of 2.99 s)",
    ]
