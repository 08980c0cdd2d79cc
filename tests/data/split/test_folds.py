"""Folds, and the protocol `cross-validation`."""

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.data.split.folds import draw_folds
from mgc_ray.data.split.groups import groups_on_several_sides
from mgc_ray.data.split.protocols import draw_split
from mgc_ray.data.split.words import PARTS
from mgc_ray.data.tracks import Track
from tests.data.made_tracks import GENRES, of_artists, tracks_of


def test_each_group_goes_to_the_emptiest_fold() -> None:
    # largest first: 5 | 4 | 3, then 3 to the third, 2 to the second, 1 to the first: 6 each
    tracks = of_artists({"jazz": (1, 2, 3, 3, 4, 5)})
    assert Counter(draw_folds(tracks, 3, 0)) == {0: 6, 1: 6, 2: 6}
    # 4 tracks per genre in 3 folds: 2, 1, 1 of each, but not three times the 2 in one fold
    tracks = of_artists(dict.fromkeys(GENRES, (1, 1, 1, 1)))
    assert Counter(draw_folds(tracks, 3, 0)) == {0: 4, 1: 4, 2: 4}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=12), min_size=1, max_size=4),
    st.integers(2, 6),
    st.integers(0, 2**31 - 1),
)
def test_moving_a_group_would_not_make_a_genre_more_even(
    sizes: list[list[int]], folds: int, seed: int
) -> None:
    assume(sum(map(len, sizes)) >= folds)
    tracks = of_artists({f"genre{g}": artists for g, artists in enumerate(sizes)})
    fold_of = dict(zip((t.group for t in tracks), draw_folds(tracks, folds, seed), strict=True))
    for g, artists in enumerate(sizes):
        held: dict[int, list[int]] = {fold: [] for fold in range(folds)}
        for a, count in enumerate(artists):
            held[fold_of[f"genre{g} {a}"]].append(count)
        for one in filter(None, held.values()):
            assert all(sum(one) - min(one) <= sum(other) for other in held.values())
        assert sum(map(bool, held.values())) == min(folds, len(artists))


def test_folds_depend_on_the_seed_and_not_on_the_order_of_the_tracks() -> None:
    tracks = of_artists({"jazz": [1] * 20, "rock": [2] * 10})
    folds = draw_folds(tracks, 4, 1)
    assert folds == draw_folds(tracks, 4, 1)
    assert folds == draw_folds(tracks[::-1], 4, 1)[::-1]
    assert folds != draw_folds(tracks, 4, 2)


def test_impossible_folds_are_refused() -> None:
    tracks = of_artists({"jazz": (3, 1), "rock": (1, 1)})
    for folds in (1, 5):
        with pytest.raises(
            RequestError, match=f"<= folds <= groups` .* there are {folds} folds and 4 groups"
        ):
            draw_folds(tracks, folds, 0)
    with pytest.raises(RequestError, match="need 2 groups .* per genre, .*, but 'rock' has 1: add"):
        draw_folds(of_artists({"jazz": (1, 1, 1), "rock": (7,)}), 2, 0)
    artists = {"blues": "BCD", "jazz": "ABC", "pop": "ACD", "rock": "ABD"}
    everybody = [Track("", genre, "", a, a) for genre, names in artists.items() for a in names]
    with pytest.raises(RequestError, match="no 3 folds hold genre .* its artists also play other"):
        draw_folds(everybody, 3, 0)
    assert sorted(set(draw_folds(everybody, 4, 0))) == [0, 1, 2, 3]


@st.composite
def tables_with_folds(draw: st.DrawFn) -> tuple[list[Track], int, int]:
    """Tracks of two to four genres, some by artists who play several, a number of folds, a seed."""
    sizes = draw(st.lists(st.lists(st.integers(1, 5), min_size=4, max_size=9), min_size=2))
    tracks = of_artists({f"genre{g}": artists for g, artists in enumerate(sizes[:4])})
    both = draw(st.lists(st.integers(0, len(tracks) - 1), max_size=3))
    tracks = [
        replace(track, artist="All" if i in both else track.artist, group="")
        for i, track in enumerate(tracks)
    ]
    return tracks, draw(st.integers(3, 7)), draw(st.integers(0, 2**31 - 1))


@settings(max_examples=60, deadline=None)
@given(tables_with_folds())
def test_the_test_parts_of_all_folds_are_disjoint_and_cover_all_tracks(
    drawn: tuple[list[Track], int, int],
) -> None:
    tracks, folds, seed = drawn
    groups: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        groups[track.genre].add(track.artist)
    try:
        parts = [
            draw_split(tracks, {}, "cross-validation", seed, f"{k + 1}/{folds}")[0]
            for k in range(folds)
        ]
    except RequestError as error:  # no other may be raised: every genre has three groups or more
        assume("its artists also play" not in str(error))
        raise
    tested = [track.track_id for part in parts for track in part if track.split == "test"]
    assert sorted(tested) == sorted(track.track_id for track in tracks)
    for part in parts:
        assert len(part) == len(tracks)
        assert groups_on_several_sides(part) == []
        present = {(track.genre, track.split) for track in part}
        assert {(genre, split) for genre in groups for split in ("train", "valid")} <= present
    for genre, artists in groups.items():
        with_it = sum(any((t.genre, t.split) == (genre, "test") for t in part) for part in parts)
        assert with_it == min(folds, len(artists))


def test_the_rest_of_a_fold_is_split_into_train_and_valid() -> None:
    tracks = tracks_of({"jazz": 100, "rock": 50})
    split, skipped = draw_split(tracks, {}, "cross-validation", 3, "2/5")
    counts = Counter((track.genre, track.split) for track in split)
    assert {part: counts["jazz", part] for part in PARTS} == {"train": 64, "valid": 16, "test": 20}
    assert {part: counts["rock", part] for part in PARTS} == {"train": 32, "valid": 8, "test": 10}
    assert skipped == []


def test_a_genre_with_fewer_groups_than_folds_is_missing_only_from_test_parts() -> None:
    tracks = of_artists({"jazz": [1] * 10, "rock": (5, 3, 2)})
    tested = []
    for k in range(1, 6):
        split, _ = draw_split(tracks, {}, "cross-validation", 0, f"{k}/5")
        rock = Counter(track.split for track in split if track.genre == "rock")
        assert rock["train"] > 0
        assert rock["valid"] > 0
        tested.append(rock["test"])
    assert sorted(tested) == [0, 0, 2, 3, 5]


def test_cross_validation_ignores_the_split_of_the_table() -> None:
    tracks = tracks_of({"jazz": 10, "rock": 10})
    marked = [replace(track, split="train") for track in tracks]
    assert draw_split(tracks, {}, "cross-validation", 0, "1/5") == draw_split(
        marked, {}, "cross-validation", 0, "1/5"
    )
