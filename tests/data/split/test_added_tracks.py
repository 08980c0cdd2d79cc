"""Tracks that are added to the training part are nowhere else, under any protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.config import Protocol
from mgc_ray.corpus.files import extra_track
from mgc_ray.data.split.folds import draw_folds
from mgc_ray.data.split.groups import groups_on_several_sides
from mgc_ray.data.split.gtzan import fault_filtered
from mgc_ray.data.split.protocols import add_to_train, chunk_splits, draw_split
from mgc_ray.data.split.words import PARTS
from mgc_ray.data.tracks import Track
from tests.data.made_tracks import GENRES, of_artists, tracks_of


def synthetic_tracks(genres: Sequence[str], count: int) -> list[Track]:
    return [extra_track(Path("/d"), genre, i) for genre in genres for i in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([name for name in get_args(Protocol) if name != "unlabelled"]),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(0, 2**31 - 1),
)
def test_no_added_track_is_in_valid_or_test_under_any_protocol(
    protocol: Protocol, count: int, chunks: int, seed: int
) -> None:
    published = [i for i in fault_filtered() if i.split(".")[0] in GENRES]
    tracks = [
        Track(f"/{i}.wav", i.split(".")[0], i, split=PARTS[n % 3])
        for n, i in enumerate(published[::5])
    ]
    split, _ = draw_split(tracks, {}, protocol, seed, "2/4")
    together = add_to_train(split, synthetic_tracks(GENRES, count))
    counts = [chunks] * len(together)
    parts: dict[bool, set[str]] = {True: set(), False: set()}
    for track, sides in zip(together, chunk_splits(together, counts, seed), strict=True):
        assert len(sides) == chunks
        parts[track.added] |= set(sides)
    assert parts[True] == {"train"}
    assert "valid" in parts[False]
    synthetic = [track for track in together if track.added]
    assert len(synthetic) == count * len(GENRES) == len({track.group for track in synthetic})
    assert groups_on_several_sides(together) == groups_on_several_sides(split)
    assert [track for track in together if not track.added] == split


def test_added_tracks_do_not_change_which_chunks_are_held_out() -> None:
    split, _ = draw_split(tracks_of({"jazz": 20, "rock": 20}), {}, "random-chunks", 0)
    together = add_to_train(split, synthetic_tracks(("jazz", "rock"), 5))
    real = [
        sides
        for track, sides in zip(together, chunk_splits(together, [10] * 50, 0), strict=True)
        if not track.added
    ]
    assert real == chunk_splits(split, [10] * 40, 0)


def test_added_tracks_are_in_no_fold() -> None:
    real = of_artists({"jazz": [1] * 6, "rock": [2] * 6})
    together = add_to_train(real, synthetic_tracks(("jazz", "rock"), 9))
    fold_of = draw_folds(together, 3, 0)
    assert {f for t, f in zip(together, fold_of, strict=True) if t.added} == {-1}
    real_folds = [f for t, f in zip(together, fold_of, strict=True) if not t.added]
    assert real_folds == draw_folds(real, 3, 0)


def test_a_generated_track_has_an_id_and_an_artist_of_its_own() -> None:
    assert extra_track(Path("/d"), "jazz", 7) == Track(
        "/d/jazz/jazz.00007.wav", "jazz", "synthetic/jazz.00007", "synthetic"
    )


def test_a_table_with_the_id_of_an_added_track_is_refused() -> None:
    tracks = [Track("a.wav", "jazz", "synthetic/jazz.00001", split="train")]
    with pytest.raises(RequestError, match="'synthetic/jazz.00001' is in the table and also among"):
        add_to_train(tracks, synthetic_tracks(("jazz",), 2))
