"""The protocols `unlabelled`, `given`, `fault-filtered` and `random-chunks`."""

import csv
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mgc_ray.data
from mgc_ray import RequestError
from mgc_ray.data.gtzan import fault_filtered
from mgc_ray.data.split import (
    check_table,
    chunk_splits,
    draw_split,
    groups_on_several_sides,
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


def test_given_takes_the_tables_own_split_and_leaves_out_rows_without_one() -> None:
    parts = ("train", "train", "valid", "test", "")
    tracks = [
        Track(f"{genre}{i}.wav", genre, f"{genre}{i}", "Both", split=part)
        for genre in ("jazz", "rock")
        for i, part in enumerate(parts)
    ]
    split, skipped = draw_split(tracks, {}, "given", 0)
    assert [track.split for track in split] == ["train"] * 4 + ["valid"] * 2 + ["test"] * 2
    assert {track.group for track in split} == {"Both"}
    assert skipped == [
        Skipped("jazz4.wav", "the table gives it no split"),
        Skipped("rock4.wav", "the table gives it no split"),
    ]
    assert groups_on_several_sides(split) == ["Both"]


def test_given_whose_only_train_track_of_a_genre_was_unusable_is_refused() -> None:
    tracks = [
        *tracks_of({"jazz": 2}, split="train"),
        *tracks_of({"rock": 2}, split="valid"),
    ]
    with pytest.raises(RequestError, match="train rows of every genre, but 'rock' has none"):
        draw_split(tracks, {}, "given", 0)


# --- the protocol `fault-filtered` ---


def test_the_published_lists_hold_1000_ids_in_three_parts() -> None:
    path = Path(mgc_ray.data.__path__[0]) / "gtzan_fault_filtered.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["track_id"] for row in rows}) == 1000
    parts = Counter(row["fault_filtered_split"] for row in rows)
    assert parts == {"train": 443, "valid": 197, "test": 290, "": 70}
    facts = fault_filtered()
    assert list(facts) == [row["track_id"] for row in rows]
    assert [(f.artist, f.split) for f in facts.values()] == [
        (row["artist"], row["fault_filtered_split"]) for row in rows
    ]


def test_no_published_artist_is_in_two_parts() -> None:
    sides = defaultdict(set)
    for fact in fault_filtered().values():
        artist = " ".join(fact.artist.casefold().split())
        if artist and fact.split:
            sides[artist].add(fact.split)
    assert {artist for artist, found in sides.items() if len(found) > 1} == set()


def gtzan_tracks() -> list[Track]:
    return [
        Track(f"/{i}.wav", i.split(".")[0], i, "as the table says", split="train")
        for i in fault_filtered()
    ]


def test_fault_filtered_takes_artist_and_split_from_the_published_lists() -> None:
    tracks = [*gtzan_tracks(), Track("/new.wav", "rock", "rock.00100")]
    check_table(table_of(tracks), "fault-filtered")
    split, skipped = draw_split(tracks, {}, "fault-filtered", 0)
    assert Counter(t.split for t in split) == {"train": 443, "valid": 197, "test": 290}
    assert all(t.artist == fault_filtered()[t.track_id].artist for t in split)
    assert groups_on_several_sides(split) == []
    reasons = Counter(item.reason for item in skipped)
    assert reasons == {
        "filtered out by the published lists": 70,
        "rock.00100 is no id of GTZAN": 1,
    }
    assert Skipped("/new.wav", "rock.00100 is no id of GTZAN") in skipped
    assert Skipped("/country.00008.wav", "filtered out by the published lists") in skipped


def test_fault_filtered_without_valid_tracks_is_refused() -> None:
    tracks = [t for t in gtzan_tracks() if fault_filtered()[t.track_id].split == "train"]
    with pytest.raises(RequestError, match="fault-filtered needs rows with the split valid"):
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


def test_chunks_of_a_track_with_a_split_have_that_split() -> None:
    tracks = [Track("", "jazz", "", split=split) for split in ("test", "train", "valid")]
    assert chunk_splits(tracks, [2, 1, 0], 0) == [["test", "test"], ["train"], []]


def test_chunks_of_one_song_are_on_both_sides_and_the_seed_decides_which() -> None:
    tracks = [Track("", "jazz", "")] * 50
    splits = chunk_splits(tracks, [10] * 50, 0)
    assert sum(set(chunks) == {"train", "valid"} for chunks in splits) > 25
    assert chunk_splits(tracks, [10] * 50, 1) != splits


def test_an_unknown_genre_among_gtzan_is_refused_by_name() -> None:
    tracks = [*gtzan_tracks(), Track("/t.wav", "techno", "techno.00000")]
    with pytest.raises(RequestError, match="every genre, but 'techno' has none: use --protocol"):
        check_table(table_of(tracks), "fault-filtered")
