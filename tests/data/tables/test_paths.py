"""Paths in tables of other systems -> files on disk."""

import unicodedata
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.tables.paths import PathFinder
from tests.data.test_tracks import touched


def find(folder: Path, *written: str, genre: str = "") -> tuple[list[str], list[str]]:
    """Where the files are, below the folder, and what was assumed."""
    finder = PathFinder(folder)
    rows = [(one, genre) for one in written]
    paths = finder.find(rows, lambda i: f"line {i + 2}")
    return [str(Path(path).relative_to(folder)) for path in paths], finder.assumed()


NFC = unicodedata.normalize("NFC", "Sigur Rós/Ágætis.wav")
NFD = unicodedata.normalize("NFD", NFC)


@pytest.mark.parametrize(
    ("on_disk", "written", "way"),
    [
        (NFC, NFC, ""),
        (NFD, NFC, "have another Unicode form than on disk"),
        (NFC, NFD, "have another Unicode form than on disk"),
        ("Rock/A.WAV", "rock/a.wav", "have another case than on disk"),
        ("rock/a.wav", "rock\\a.wav", r"have \ for /"),
        ("rock/a.wav", ".\\rock\\a.wav", r"have \ for /"),
        ("rock\\a.wav", "rock\\a.wav", ""),  # a name that has a backslash
        ("~/a.wav", "~/a.wav", ""),  # a folder that is called so
        ("s3:/b/a.wav", "s3://b/a.wav", ""),
        ("rock/a.wav", "x/../rock//a.wav", ""),
    ],
)
def test_a_file_is_found_however_it_is_written(
    tmp_path: Path, on_disk: str, written: str, way: str
) -> None:
    touched(tmp_path, on_disk, "other.wav")
    paths, assumed = find(tmp_path, written)
    assert paths == [on_disk]
    assert [sentence.startswith(f"paths that {way}: 1, e.g. ") for sentence in assumed] == (
        [True] if way else []
    )


@pytest.mark.parametrize(
    ("written", "way"),
    [
        ("file://{}/a%20b%23%C3%A9.wav", "begin with file://"),
        ("FILE://localhost{}/a b#é.wav", "begin with file://"),
        ("file:{}/a%20b%23é.wav", "begin with file://"),
        ("~/a b#é.wav", "begin with ~"),
    ],
)
def test_urls_of_files_and_home_folders(
    tmp_path: Path, written: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    touched(tmp_path, "a b#é.wav")
    paths, assumed = find(tmp_path, written.format(tmp_path))
    assert paths == ["a b#é.wav"]
    assert len(assumed) == 1
    assert f"paths that {way}: 1" in assumed[0]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "s3://bucket/rock/a.wav",
            r"line 3: music is read from files, but 's3://bucket/rock/a.wav' is a URL: copy it "
            r"into a folder \(aws s3 cp --recursive s3://BUCKET/FOLDER FOLDER\) and give the path",
        ),
        ("https://example.org/a.wav", "is a URL: copy it into a folder and give the path there"),
        ("file://server/share/a.wav", "is a URL: copy it into a folder and give the path there"),
    ],
)
def test_other_urls_are_refused_with_the_line(tmp_path: Path, written: str, message: str) -> None:
    touched(tmp_path, "a.wav")
    with pytest.raises(RequestError, match=message):
        find(tmp_path, "a.wav", written)


def test_what_may_be_two_files_is_none(tmp_path: Path) -> None:
    touched(tmp_path, "a.WAV", "A.wav", "b.wav")
    assert find(tmp_path, "a.wav", "b.wav") == (["a.wav", "b.wav"], [])


def test_the_exact_unicode_form_comes_before_another_case(tmp_path: Path) -> None:
    lower, upper = unicodedata.normalize("NFD", "é.wav"), unicodedata.normalize("NFC", "É.wav")
    touched(tmp_path, lower, upper, "b.wav")
    assert find(tmp_path, unicodedata.normalize("NFC", "é.wav"), "b.wav")[0] == [lower, "b.wav"]


def test_bare_names_are_found_in_subfolders_where_no_file_is_where_the_table_says(
    tmp_path: Path,
) -> None:
    touched(tmp_path, "audio/jazz/1.wav", "audio/rock/1.wav", "audio/rock/2.wav", "x/2.wav")
    touched(tmp_path, "x/y/z/deep.wav", "x/.hidden.wav")
    paths, assumed = find(
        tmp_path, "1.wav", "2.wav", "3.wav", "deep.wav", ".hidden.wav", genre="Rock"
    )
    assert paths == ["audio/rock/1.wav", "audio/rock/2.wav", "3.wav", "deep.wav", ".hidden.wav"]
    assert len(assumed) == 1
    assert "paths that are of a file in a subfolder: 2, e.g. '1.wav'" in assumed[0]
    assert find(tmp_path, "rock/1.wav", "jazz\\1.wav")[0] == [
        "audio/rock/1.wav",
        "audio/jazz/1.wav",
    ]
    # one that is missing is not replaced by another of its name
    touched(tmp_path, "3.wav")
    assert find(tmp_path, "1.wav", "3.wav") == (["1.wav", "3.wav"], [])


@pytest.mark.parametrize(
    "written", ["a/" * 5000 + "b.wav", "/" * 3000, "..", "a" * 5000, "\\", "~"]
)
def test_strange_paths_do_no_harm(tmp_path: Path, written: str) -> None:
    finder = PathFinder(tmp_path)
    assert len(finder.find([(written, "")], str)) == 1
