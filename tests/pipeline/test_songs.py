"""Files, folders and tables that are to be predicted."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc_ray import RequestError
from mgc_ray.pipeline.songs import Songs, find_songs
from tests.commands import command


def test_tables_stand_for_what_they_list(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("song\tartist\na.wav\tElla\nb.wav\t\na.wav\t\n")
    a, b = str(tmp_path / "a.wav"), str(tmp_path / "b.wav")
    assert find_songs(["x.wav", str(table), "y.csv.wav"], "song") == Songs(
        [("x.wav", ""), (a, ""), (b, ""), ("y.csv.wav", "")],
        [(a, "repeated in line 4; the first row is used")],
    )
    assert find_songs(["nothing.csv"]).files == [("nothing.csv", "")]


def test_a_table_that_cannot_be_read_is_a_file_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("song\tartist\na.wav\tElla\n")
    (table, reason), other = find_songs([str(tmp_path / "t.tsv"), "x.wav"]).files
    assert (table, other) == (str(tmp_path / "t.tsv"), ("x.wav", ""))
    assert "path is missing from its first line" in reason
    assert reason.endswith("name the column by --path-column NAME")


def test_folders_stand_for_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b/c.mp3", "b/a.wav", "b/.hidden.wav", "b/cover.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    songs = find_songs([str(tmp_path / "b"), "x.wav"])
    assert songs.files == [(str(tmp_path / "b" / n), "") for n in ("a.wav", "c.mp3")] + [
        ("x.wav", "")
    ]
    ((hidden, reason),) = songs.left_out
    assert hidden.endswith(".hidden.wav")
    assert reason.startswith("is hidden")
    assert capsys.readouterr().err == "1 file is no audio (1 .jpg)\n"


def test_a_folder_without_a_song_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no file that may be a song: give another folder"):
        find_songs([str(tmp_path)])


def test_predict_takes_a_table(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 66_150), 22_050)
    (tmp_path / "t.csv").write_text("File;genre\na.wav;noise\nb.wav;noise\n")
    done = command("predict", "t.csv", "--json", cwd=tmp_path, status=1)
    first, second = json.loads(done.stdout)
    assert first["file"] == str(tmp_path / "a.wav")
    assert len(first["genres"]) == 10
    assert second == {"file": str(tmp_path / "b.wav"), "error": "no such file"}
    assert "t.csv: takes the column 'File' as the path\n" in done.stderr
