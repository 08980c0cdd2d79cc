"""Every file of a folder may be a song, is left out with a reason, or is counted as no audio."""

import os
from collections import Counter
from pathlib import Path

import pytest

from mgc_ray.data.walk import no_audio_in_words, walk


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in walk(folder).files]


def test_files_at_any_depth_with_any_ending_may_be_songs(tmp_path: Path) -> None:
    touched(tmp_path, "b.wav", "a/deep/er/c.MP3", "a.wma", "d.m4a", "no ending", "a/x.webm")
    assert found(tmp_path) == [
        "a/deep/er/c.MP3",
        "a/x.webm",
        "a.wma",
        "b.wav",
        "d.m4a",
        "no ending",
    ]
    assert walk(tmp_path).left_out == []


def test_a_walk_may_be_only_so_deep(tmp_path: Path) -> None:
    touched(tmp_path, "a.wav", "x/b.wav", "x/y/c.wav")
    assert [path.name for path in walk(tmp_path, depth=1).files] == ["a.wav", "b.wav"]


def test_what_is_no_audio_is_counted_by_ending(tmp_path: Path) -> None:
    touched(tmp_path, "a.wav", "cover.jpg", "x/Cover.JPG", "x/notes.txt", "._a.wav", ".DS_Store")
    assert found(tmp_path) == ["a.wav"]
    counts = walk(tmp_path).no_audio
    assert counts == {".jpg": 2, ".txt": 1, ".wav": 1, "without an ending": 1}
    assert no_audio_in_words(counts).startswith("5 files are no audio (2 .jpg, 1 ")
    assert no_audio_in_words(Counter([".cue"])) == "1 file is no audio (1 .cue)"
    assert no_audio_in_words(Counter(f".{n}" for n in range(6))).endswith("1 .4, ...)")
    assert no_audio_in_words(Counter()) == ""


def test_a_name_that_begins_with_several_dots_hides_nothing(tmp_path: Path) -> None:
    touched(tmp_path, "...And Justice for All/One.mp3", "metal/...Baby.mp3")
    assert found(tmp_path) == ["...And Justice for All/One.mp3", "metal/...Baby.mp3"]


def test_hidden_music_is_left_out_with_the_reason(tmp_path: Path) -> None:
    touched(tmp_path, ".trash/x/a.wav", "rock/.b.mp3", ".trash/cover.jpg", ".git/HEAD", "c.wav")
    assert found(tmp_path) == ["c.wav"]
    left_out = walk(tmp_path).left_out
    assert [path.name for path, _ in left_out] == ["a.wav", ".b.mp3"]
    assert {reason for _, reason in left_out} == {
        "is hidden: its name, or that of a folder it is in, begins with a dot"
    }
    assert walk(tmp_path).no_audio == {".jpg": 1, "without an ending": 1}


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    touched(tmp_path / "disk", "jazz/a.wav", "b.wav")
    (tmp_path / "music/rock").mkdir(parents=True)
    (tmp_path / "music/jazz").symlink_to(tmp_path / "disk/jazz")
    (tmp_path / "music/rock/b.wav").symlink_to("../../disk/b.wav")
    (tmp_path / "music/rock/gone.wav").symlink_to("nowhere.wav")  # found out when it is decoded
    assert found(tmp_path / "music") == ["jazz/a.wav", "rock/b.wav", "rock/gone.wav"]


def test_links_in_circles_are_cut_with_the_reason(tmp_path: Path) -> None:
    touched(tmp_path, "jazz/a.wav", "rock/b.wav")
    (tmp_path / "jazz/up").symlink_to(tmp_path)
    (tmp_path / "jazz/other").symlink_to("../rock")
    (tmp_path / "rock/other").symlink_to("../jazz")
    (tmp_path / "self").symlink_to("self")
    files = found(tmp_path)
    assert files == ["jazz/a.wav", "jazz/other/b.wav", "rock/b.wav", "rock/other/a.wav", "self"]
    reasons = {path.relative_to(tmp_path).as_posix(): r for path, r in walk(tmp_path).left_out}
    assert reasons["jazz/up"] == "is a link to a folder that it is in"
    assert reasons["jazz/other/other"] == "is a link to a folder that it is in"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission_is_left_out_with_the_reason(tmp_path: Path) -> None:
    touched(tmp_path, "jazz/a.wav", "rock/b.wav")
    (tmp_path / "rock").chmod(0)
    try:
        assert found(tmp_path) == ["jazz/a.wav"]
        assert walk(tmp_path).left_out == [
            (tmp_path / "rock", "this folder cannot be read: Permission denied")
        ]
    finally:
        (tmp_path / "rock").chmod(0o755)
