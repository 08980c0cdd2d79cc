"""Groups: tracks that must stay together."""

from mgc_ray.data.split.groups import assign_groups, groups_on_several_sides
from mgc_ray.data.tracks import Track
from tests.data.made_tracks import tracks_of


def test_artists_are_compared_without_case_and_spaces() -> None:
    names = ("Ella Fitzgerald", "ELLA  FITZGERALD", " ella fitzgerald ", "Ella")
    tracks = [Track(f"{i}.wav", "jazz", str(i), name) for i, name in enumerate(names)]
    groups = [track.group for track in assign_groups(tracks, {})]
    assert groups == ["Ella Fitzgerald"] * 3 + ["Ella"]


def test_who_plays_together_is_one_group() -> None:
    """In any spelling, as --more-tracks and --exclude-artists compare artists."""
    names = ("Earth, Wind & Fire", "Peter Tosh", "Earth Wind and Fire", "Peter Tosh feat. Sting")
    names += ("Mick Jagger", "Jagger, Mick & Peter Tosh", "Unknown Artist", "Unknown Artist")
    tracks = [Track(f"{i}.wav", "pop", str(i), name) for i, name in enumerate(names)]
    groups = [track.group for track in assign_groups(tracks, {})]
    assert groups[:6] == ["Earth, Wind & Fire", "Peter Tosh"] * 2 + ["Peter Tosh"] * 2
    assert len(set(groups[6:])) == 2


def test_a_track_of_unknown_artist_is_its_own_group() -> None:
    tracks = tracks_of({"jazz": 3})
    assert [track.group for track in assign_groups(tracks, {})] == ["jazz.0", "jazz.1", "jazz.2"]


def test_identical_content_joins_artists_transitively() -> None:
    rows = [("0", "A", "x"), ("1", "B", "y"), ("2", "C", "z"), ("3", "B", "x"), ("4", "C", "y")]
    tracks = [Track(f"{i}.wav", "jazz", i, artist) for i, artist, _ in rows]
    hashes = {f"{i}.wav": content for i, _, content in rows}
    assert [track.group for track in assign_groups(tracks, hashes)] == ["A"] * 5


def test_a_group_is_named_after_its_first_artist_also_when_joined_later() -> None:
    rows = [("0", "A", "x"), ("1", "B", "y"), ("2", "A", "y")]
    tracks = [Track(f"{i}.wav", "jazz", i, artist) for i, artist, _ in rows]
    hashes = {f"{i}.wav": content for i, _, content in rows}
    assert [track.group for track in assign_groups(tracks, hashes)] == ["A"] * 3


def test_groups_in_more_than_one_part_are_found() -> None:
    tracks = [
        Track("0", "jazz", "0", group="A", split="train"),
        Track("1", "jazz", "1", group="A", split="test"),
        Track("2", "jazz", "2", group="B", split="valid"),
        Track("3", "jazz", "3", group="B", split="valid"),
    ]
    assert groups_on_several_sides(tracks) == ["A"]
    assert groups_on_several_sides(tracks[1:]) == []
