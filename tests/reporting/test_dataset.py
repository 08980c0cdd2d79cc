"""What a report shows of a search's dataset, of datasets written here."""

from dataclasses import replace
from pathlib import Path

import pytest

from mgc_ray.config import DatasetConfig
from mgc_ray.data.dataset import DatasetInfo, TrackPlace, finish, write_skipped, write_tracks
from mgc_ray.data.features import FeatureSet
from mgc_ray.data.features.array import Array
from mgc_ray.data.tracks import Skipped, Track
from mgc_ray.reporting import dataset
from mgc_ray.results import SearchResult
from tests.reporting.made_search import write_search

PREDICTIONS = [("a", "Ann", 0, 0.1), ("b", "Bob", 1, 0.8)]
# three artists of blues, one of them with two songs; of rock one artist and a song of nobody
TRACKS = [
    ("a", "blues", "Ann", "Ann", "train"),
    ("b", "blues", "ann", "Ann", "train"),
    ("c", "blues", "Bob", "Bob", "valid"),
    ("d", "blues", "Cy", "Cy", "test"),
    ("e", "rock", "Di", "Di", "train"),
    ("f", "rock", "", "f", "test"),
]


def track_of(name: str, genre: str, artist: str, group: str, split: str) -> Track:
    return Track(f"{name}.wav", genre, name, artist=artist, group=group, split=split)


def place_of(name: str, lost_seconds: float = 0.0, recording: str = "") -> TrackPlace:
    return TrackPlace(0, 0, 10, 30.0, f"hash {name}", recording or name, lost_seconds)


def search_with(
    folder: Path,
    tracks: list[tuple[Track, TrackPlace]],
    warnings: tuple[str, ...] = (),
    **changes: object,
) -> SearchResult:
    """A search, and beside it a dataset of these tracks."""
    made = folder / "datasets" / "music"
    made.mkdir(parents=True)
    features = FeatureSet({"array": Array(bands=16, frames=12, value_type="float32")})
    info = DatasetInfo(DatasetConfig(tracks="music"), features, "", split_id="the split")
    finish(made, replace(info, warnings=warnings))
    write_tracks(made, tracks)
    changes = {"dataset": "results/datasets/music", "split_id": "the split"} | changes
    return write_search(folder / "first", PREDICTIONS, [], **changes)


@pytest.fixture
def tracks() -> list[tuple[Track, TrackPlace]]:
    return [(track_of(*row), place_of(row[0])) for row in TRACKS]


def test_tracks_and_artists_of_each_genre_in_each_part(
    tmp_path: Path, tracks: list[tuple[Track, TrackPlace]]
) -> None:
    table = dataset.split_table(
        [track for track, _ in dataset.read_tracks(search_with(tmp_path, tracks))]
    )
    assert table is not None
    assert table.head == ("genre", "train", "valid", "test", "all")
    assert table.rows == [
        ("blues", "2 (1)", "1 (1)", "1 (1)", "4 (3)"),
        ("rock", "1 (1)", "0 (0)", "1 (0)", "2 (1)"),
        ("all", "3 (2)", "1 (1)", "2 (1)", "6 (4)"),
    ]
    assert table.caption.endswith("of how many artists (1 track of unknown artist)")
    assert table.numbers == [False, True, True, True, True]


def test_where_no_artist_is_known_only_tracks_are_counted() -> None:
    rows = [("a", "blues", "", "a", "train"), ("b", "blues", "Unknown Artist", "b", "test")]
    table = dataset.split_table([track_of(*row) for row in rows])
    assert table is not None
    assert table.head == ("genre", "train", "test", "all")
    assert table.rows[0] == ("blues", "1", "1", "2")
    assert "artist" not in table.caption


def test_under_random_chunks_tracks_are_in_no_part() -> None:
    table = dataset.split_table([track_of("a", "blues", "Ann", "Ann", "")])
    assert table is not None
    assert table.head == ("genre", "all")
    assert table.rows == [("blues", "1 (1)"), ("all", "1 (1)")]


def test_another_dataset_in_its_place_is_not_shown(
    tmp_path: Path, tracks: list[tuple[Track, TrackPlace]]
) -> None:
    result = search_with(tmp_path, tracks, split_id="that of the search")
    assert dataset.read_tracks(result) == []
    assert dataset.split_table([]) is None
    assert dict(dataset.facts(result, [])) == {"from": "music", "features": "log_mel"}


@pytest.mark.parametrize("place", ["", "results/datasets/gone", "/etc"])
def test_a_dataset_that_is_not_at_hand_is_not_shown(tmp_path: Path, place: str) -> None:
    result = write_search(tmp_path / "first", PREDICTIONS, [], dataset=place, ensemble=None)
    assert dataset.read_tracks(result) == []
    assert dataset.read_warnings(result) == ()
    assert dataset.skipped_files(result) is None


def test_facts_of_the_data(tmp_path: Path, tracks: list[tuple[Track, TrackPlace]]) -> None:
    assert dict(dataset.facts(search_with(tmp_path / "1", tracks), tracks)) == {
        "from": "music",
        "tracks": "6 by 4 artists, 3 minutes",
        "features": "log_mel",
    }
    odd = [
        (replace(track, added=True, split="train"), replace(place, seconds=7200.0))
        if track.track_id == "e"
        else (track, replace(place, recording="one", lost_seconds=1.0))
        for track, place in tracks
    ]
    facts = dict(dataset.facts(search_with(tmp_path / "2", odd), odd))
    assert facts["tracks"] == "6 by 4 artists, 2.0 hours"
    assert facts["copies"] == "1 recording in 5 tracks; each counts as one group"
    assert facts["added to the training part"] == "1 track"
    assert facts["damaged or very long"] == "5 tracks, of which the rest is used"


def test_the_warnings_of_a_search_without_an_ensemble_are_those_of_its_dataset(
    tmp_path: Path, tracks: list[tuple[Track, TrackPlace]]
) -> None:
    result = search_with(tmp_path, tracks, ("no artist is known",), ensemble=None)
    assert dataset.read_warnings(result) == ("no artist is known",)


def test_files_that_were_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    made = tmp_path / "datasets" / "music"
    made.mkdir(parents=True)
    write_skipped(made, [Skipped(f"{i}.mp3", "not audio") for i in range(59)])
    result = write_search(tmp_path / "first", PREDICTIONS, [], dataset=str(made))
    tables = dataset.skipped_files(result)
    assert tables is not None
    reasons, files = tables
    assert reasons.rows == [("not audio", "59")]
    assert files.caption == "59 files, the first 50 of them"
    assert len(files.rows) == 50
