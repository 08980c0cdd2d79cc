"""The protocols `unlabelled`, `given`, `fault-filtered` and `random-chunks`."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.data.split.groups import groups_on_several_sides
from mgc_ray.data.split.gtzan import fault_filtered
from mgc_ray.data.split.protocols import (
    check_table,
    chunk_splits,
    draw_split,
    drop_small_genres,
)
from mgc_ray.data.tracks import Skipped, Track
from tests.data.made_tracks import sides_of_groups, table_of, tracks_of

# --- the protocol `unlabelled` ---


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), min_size=1, max_size=60),
    st.integers(0, 2**31 - 1),
)
def test_a_tenth_of_the_groups_is_valid_and_there_is_no_test_part(
    artists: list[str], seed: int
) -> None:
    tracks = [Track(f"{i}.wav", "", str(i), artist) for i, artist in enumerate(artists)]
    count = len(set(artists))
    if count < 2:
        with pytest.raises(RequestError, match=f"the {len(tracks)} usable tracks are of 1: add tr"):
            draw_split(tracks, {}, "unlabelled", seed)
        return
    split, skipped = draw_split(tracks, {}, "unlabelled", seed)
    sides = sides_of_groups(split)
    assert skipped == []
    assert Counter(side for (side,) in sides.values())["valid"] == max(1, round(count / 10))
    assert {track.split for track in split} == {"train", "valid"}
    assert draw_split(tracks, {}, "unlabelled", seed) == (split, [])


# --- the protocol `given` ---


def test_given_uses_the_split_of_the_table_and_leaves_out_rows_without_one() -> None:
    parts = ("train", "train", "valid", "test", "")
    tracks = [
        Track(f"{genre}{i}.wav", genre, f"{genre}{i}", "Both", split=part)
        for genre in ("jazz", "rock")
        for i, part in enumerate(parts)
    ]
    split, skipped = draw_split(tracks, {}, "given", 0)
    assert [track.split for track in split] == ["train", "train", "valid", "test"] * 2
    assert {track.group for track in split} == {"Both"}
    assert skipped == [
        Skipped("jazz4.wav", "the table has no split for it"),
        Skipped("rock4.wav", "the table has no split for it"),
    ]
    assert groups_on_several_sides(split) == ["Both"]


def test_given_is_refused_where_a_genre_has_no_usable_train_track() -> None:
    tracks = [
        *tracks_of({"jazz": 2}, split="train"),
        *tracks_of({"rock": 2}, split="valid"),
    ]
    with pytest.raises(RequestError, match="train rows of every genre, but 'rock' has none"):
        draw_split(tracks, {}, "given", 0)


# --- small genres ---


def test_genres_that_are_too_small_are_left_out_where_asked() -> None:
    tracks = tracks_of({"blues": 3, "jazz": 4, "polka": 2, "ska": 3})
    same = {track.path: track.genre for track in tracks if track.genre == "ska"}  # one recording
    split, skipped = draw_split(tracks, same, "grouped", 0, drop_small=True)
    assert Counter(track.genre for track in split) == {"blues": 3, "jazz": 4}
    assert Counter(one.reason.partition(" of the")[0] for one in skipped) == {
        "its genre 'polka' has 2": 2,
        "its genre 'ska' has 1": 3,
    }
    assert {one.path for one in skipped} | {track.path for track in split} == {
        track.path for track in tracks
    }
    # without them, the others are split as ever
    assert split == draw_split(tracks[:7], {}, "grouped", 0)[0]
    with pytest.raises(RequestError, match="'polka' has 2: .*--drop-small-genres"):
        draw_split(tracks, {}, "grouped", 0)


def test_fewer_than_two_genres_left_is_refused_with_the_reason() -> None:
    tracks = tracks_of({"jazz": 4, "polka": 2, "ska": 1})
    with pytest.raises(
        RequestError,
        match="--drop-small-genres would leave 1 of 3 genres, but a classifier needs at least two; "
        "the first that is too small: 'polka' has 2 of the 3 groups",
    ):
        drop_small_genres(table_of(tracks), "grouped")


def test_genres_without_train_rows_are_small_under_a_given_split() -> None:
    tracks = [
        *tracks_of({"blues": 2, "jazz": 2, "rock": 1}, split="train"),
        *(replace(t, track_id=f"v{t.track_id}", split="valid") for t in tracks_of({"ska": 3})),
        *(replace(t, path=f"v{t.path}", split="valid") for t in tracks_of({"jazz": 1})),
    ]
    table = drop_small_genres(table_of(tracks), "given")
    assert table.genres == ["blues", "jazz", "rock"]
    assert {one.reason for one in table.skipped} == {
        "its genre 'ska' has no train row: left out by --drop-small-genres"
    }
    check_table(table, "given")


def test_other_genres_than_gtzans_are_small_under_its_published_split() -> None:
    tracks = [*gtzan_tracks(), *tracks_of({"polka": 5})]
    table = drop_small_genres(table_of(tracks), "fault-filtered")
    assert len(table.tracks) == 1000
    assert {one.reason for one in table.skipped} == {
        "its genre 'polka' has no train track in the published lists: left out by "
        "--drop-small-genres"
    }


# --- the protocol `fault-filtered` ---


def gtzan_tracks() -> list[Track]:
    return [
        Track(f"/{i}.wav", i.split(".")[0], i, "as the table says", split="train")
        for i in fault_filtered()
    ]


def test_fault_filtered_uses_artist_and_split_of_the_published_lists() -> None:
    tracks = [*gtzan_tracks(), Track("/new.wav", "rock", "rock.00100")]
    check_table(table_of(tracks), "fault-filtered")
    split, skipped = draw_split(tracks, {}, "fault-filtered", 0)
    assert Counter(t.split for t in split) == {"train": 443, "valid": 197, "test": 290}
    assert all(t.artist == fault_filtered()[t.track_id].artist for t in split)
    # of duets: "Barbra Streisand and Donna Summer" is in train, "Donna Summer" in valid
    assert groups_on_several_sides(split) == ["Donna Summer", "Lauryn Hill", "Shania Twain"]
    reasons = Counter(item.reason for item in skipped)
    assert reasons == {
        "left out by the published lists": 70,
        "rock.00100 is not an id of GTZAN": 1,
    }
    assert Skipped("/new.wav", "rock.00100 is not an id of GTZAN") in skipped
    assert Skipped("/country.00008.wav", "left out by the published lists") in skipped


def test_fault_filtered_without_valid_tracks_is_refused() -> None:
    tracks = [t for t in gtzan_tracks() if fault_filtered()[t.track_id].split == "train"]
    with pytest.raises(RequestError, match="fault-filtered needs tracks of the part valid"):
        check_table(table_of(tracks), "fault-filtered")


# --- the protocol `random-chunks` ---


def test_random_chunks_leaves_the_split_to_the_chunks() -> None:
    tracks = tracks_of({"jazz": 2, "rock": 2}, split="train")
    split, skipped = draw_split(tracks, {}, "random-chunks", 0)
    assert [track.split for track in split] == [""] * 4
    assert skipped == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.integers(0, 2**31 - 1))
def test_a_fifth_of_all_chunks_is_held_out(counts: list[int], seed: int) -> None:
    tracks = [Track("", "jazz", "")] * len(counts)
    splits = chunk_splits(tracks, counts, seed)
    assert [len(chunks) for chunks in splits] == counts
    flat = Counter(part for chunks in splits for part in chunks)
    assert flat["valid"] == round(sum(counts) / 5)
    assert flat["train"] == sum(counts) - flat["valid"]
    assert chunk_splits(tracks, counts, seed) == splits


def test_chunks_have_the_split_of_their_track() -> None:
    tracks = [Track("", "jazz", "", split=split) for split in ("test", "train", "valid")]
    assert chunk_splits(tracks, [2, 1, 0], 0) == [["test", "test"], ["train"], []]


def test_chunks_of_one_song_are_on_both_sides_depending_on_the_seed() -> None:
    tracks = [Track("", "jazz", "")] * 50
    splits = chunk_splits(tracks, [10] * 50, 0)
    assert sum(set(chunks) == {"train", "valid"} for chunks in splits) > 25
    assert chunk_splits(tracks, [10] * 50, 1) != splits


def test_fault_filtered_refuses_a_genre_that_gtzan_does_not_have() -> None:
    tracks = [*gtzan_tracks(), Track("/t.wav", "techno", "techno.00000")]
    with pytest.raises(RequestError, match="every genre, but 'techno' has none: use --protocol"):
        check_table(table_of(tracks), "fault-filtered")
