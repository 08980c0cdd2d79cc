"""What a dataset's maker reads about its split."""

import io

import pytest
from rich.console import Console

from mgc_ray.data.tracks import Track
from mgc_ray.pipeline import findings
from mgc_ray.pipeline.findings import report_split


def _track(genre: str, split: str, artist: str, number: int) -> Track:
    return Track(f"{number}.wav", genre, str(number), artist, artist or str(number), split)


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(findings, "console", Console(file=text, width=100, highlight=False))
    return text


def test_the_split_is_a_table_of_tracks_and_artists(printed: io.StringIO) -> None:
    rows = [("jazz", "train", "Ella"), ("jazz", "train", "Ella"), ("jazz", "test", "Miles")]
    rows += [("rock", "train", "Queen"), ("rock", "train", "Yes"), ("rock", "test", "Muse")]
    report_split([_track(*row, number) for number, row in enumerate(rows)])
    caption, *lines = printed.getvalue().splitlines()
    assert caption == "Tracks of each genre in each part; in brackets, of how many artists:"
    assert [line.split() for line in lines] == [
        ["genre", "train", "test", "all"],
        ["jazz", "2", "(1)", "1", "(1)", "3", "(2)"],
        ["rock", "2", "(2)", "1", "(1)", "3", "(3)"],
        ["all", "4", "(3)", "2", "(2)", "6", "(5)"],
    ]


def test_without_artists_there_are_tracks_alone(printed: io.StringIO) -> None:
    report_split([_track("jazz", "train", "", 1), _track("jazz", "valid", "", 2)])
    assert printed.getvalue().splitlines()[2].split() == ["jazz", "1", "1", "2"]


def test_many_genres_are_not_all_listed(printed: io.StringIO) -> None:
    report_split([_track(f"genre {n:03}", "train", "", n) for n in range(100)])
    *_, others, everything = printed.getvalue().splitlines()
    assert others.split() == ["71", "other", "genres"]
    assert everything.split() == ["all", "100", "100"]


def test_a_split_by_chunks_has_no_parts_to_list(printed: io.StringIO) -> None:
    report_split([_track("jazz", "", "", 1)])
    assert printed.getvalue() == ""
