"""Groups: what may never be on both sides of a split."""

from mgc_ray.data.split import (
    assign_groups,
    draw_split,
    groups_on_several_sides,
)
from mgc_ray.data.tracks import Track
from tests.data.made_tracks import tracks_of


def test_artists_are_compared_without_case_and_spaces() -> None:
    names = ("Ella Fitzgerald", "ELLA  FITZGERALD", " ella fitzgerald ", "Ella")
    tracks = [Track(f"{i}.wav", "jazz", str(i), name) for i, name in enumerate(names)]
    groups = [track.group for track in assign_groups(tracks, {})]
    assert groups == ["Ella Fitzgerald"] * 3 + ["Ella"]


def test_a_track_of_unknown_artist_is_a_group_of_its_own() -> None:
    tracks = tracks_of({"jazz": 3})
    assert [track.group for track in assign_groups(tracks, {})] == ["jazz.0", "jazz.1", "jazz.2"]


def test_identical_content_joins_artists_transitively_and_the_first_names_the_group() -> None:
    rows = [("0", "A", "x"), ("1", "B", "y"), ("2", "C", "z"), ("3", "B", "x"), ("4", "C", "y")]
    tracks = [Track(f"{i}.wav", "jazz", i, artist) for i, artist, _ in rows]
    hashes = {f"{i}.wav": content for i, _, content in rows}
    assert [track.group for track in assign_groups(tracks, hashes)] == ["A"] * 5


def test_a_group_joined_late_is_still_named_by_its_first() -> None:
    rows = [("0", "A", "x"), ("1", "B", "y"), ("2", "A", "y")]
    tracks = [Track(f"{i}.wav", "jazz", i, artist) for i, artist, _ in rows]
    hashes = {f"{i}.wav": content for i, _, content in rows}
    assert [track.group for track in assign_groups(tracks, hashes)] == ["A"] * 3


def test_groups_on_several_sides_are_found() -> None:
    tracks = [
        Track("0", "jazz", "0", group="A", split="train"),
        Track("1", "jazz", "1", group="A", split="test"),
        Track("2", "jazz", "2", group="B", split="valid"),
        Track("3", "jazz", "3", group="B", split="valid"),
    ]
    assert groups_on_several_sides(tracks) == ["A"]
    assert groups_on_several_sides(tracks[1:]) == []


def test_each_part_is_in_random_order_so_that_a_shard_is_a_sample_of_all_genres() -> None:
    split, _ = draw_split(tracks_of({"jazz": 200, "rock": 200}), {}, "grouped", seed=0)
    train = [track.genre for track in split if track.split == "train"]
    shares = [train[i : i + 16].count("jazz") / 16 for i in range(0, len(train) - 16, 16)]
    assert 0.1 < min(shares) < 0.5 < max(shares) < 0.9
    again, _ = draw_split(tracks_of({"jazz": 200, "rock": 200}), {}, "grouped", seed=1)
    assert [track.track_id for track in again] != [track.track_id for track in split]
