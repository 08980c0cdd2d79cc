"""Synthetic tracks: in the training part, and nowhere else."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.data.corpus import extra_track
from mgc_ray.data.gtzan import fault_filtered
from mgc_ray.data.split import (
    PROTOCOLS,
    add_to_train,
    chunk_splits,
    draw_folds,
    draw_split,
    groups_on_several_sides,
)
from mgc_ray.data.tracks import SPLITS, Track
from tests.data.made_tracks import GENRES, of_artists, tracks_of


def synthetic_tracks(genres: Sequence[str], count: int) -> list[Track]:
    return [extra_track(Path("/d"), genre, i) for genre in genres for i in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([name for name in PROTOCOLS if name != "unlabelled"]),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(0, 2**31 - 1),
)
def test_no_synthetic_track_is_in_valid_or_test_under_any_protocol(
    protocol: str, count: int, chunks: int, seed: int
) -> None:
    published = [i for i in fault_filtered() if i.split(".")[0] in GENRES]
    tracks = [
        Track(f"/{i}.wav", i.split(".")[0], i, split=SPLITS[n % 3])
        for n, i in enumerate(published[::5])
    ]
    split, _ = draw_split(tracks, {}, protocol, seed, "2/4")
    together = add_to_train(split, synthetic_tracks(GENRES, count), seed)
    counts = [chunks] * len(together)
    parts: dict[bool, set[str]] = {True: set(), False: set()}
    for track, sides in zip(together, chunk_splits(together, counts, seed), strict=True):
        assert len(sides) == chunks
        parts[track.is_added] |= set(sides)
    assert parts[True] == {"train"}
    assert "valid" in parts[False]
    synthetic = [track for track in together if track.is_added]
    assert len(synthetic) == count * len(GENRES) == len({track.group for track in synthetic})
    assert groups_on_several_sides(together) == groups_on_several_sides(split)
    assert [track for track in together if not track.is_added] == split
    last = max(i for i, track in enumerate(together) if track.is_added)
    assert all(track.split in ("", "train") for track in together[:last])


def test_synthetic_tracks_leave_the_real_ones_held_out_chunks_as_they_were() -> None:
    split, _ = draw_split(tracks_of({"jazz": 20, "rock": 20}), {}, "random-chunks", 0)
    together = add_to_train(split, synthetic_tracks(("jazz", "rock"), 5), 0)
    real = [
        sides
        for track, sides in zip(together, chunk_splits(together, [10] * 50, 0), strict=True)
        if not track.is_added
    ]
    assert real == chunk_splits(split, [10] * 40, 0)


def test_synthetic_tracks_are_strewn_evenly_among_the_training_part() -> None:
    split, _ = draw_split(tracks_of({"jazz": 200, "rock": 200}), {}, "grouped", 0)
    together = add_to_train(split, synthetic_tracks(("jazz", "rock"), 64), 0)  # 256 + 128 in train
    shares = [sum(track.is_added for track in together[i : i + 32]) / 32 for i in range(0, 384, 32)]
    assert 0.1 < min(shares) < 1 / 3 < max(shares) < 0.6


def test_synthetic_tracks_are_in_no_fold() -> None:
    real = of_artists({"jazz": [1] * 6, "rock": [2] * 6})
    together = add_to_train(real, synthetic_tracks(("jazz", "rock"), 9), 0)
    fold_of = draw_folds(together, 3, 0)
    assert {f for t, f in zip(together, fold_of, strict=True) if t.is_added} == {-1}
    real_folds = [f for t, f in zip(together, fold_of, strict=True) if not t.is_added]
    assert real_folds == draw_folds(real, 3, 0)


def test_an_artist_called_synthetic_is_no_synthetic_track() -> None:
    assert not Track("a.wav", "jazz", "a", "synthetic").is_added
    assert extra_track(Path("/d"), "jazz", 7) == Track(
        "/d/jazz/jazz.00007.wav", "jazz", "synthetic/jazz.00007", "synthetic"
    )


def test_a_table_with_the_id_of_a_synthetic_track_is_refused() -> None:
    tracks = [Track("a.wav", "jazz", "synthetic/jazz.00001", split="train")]
    with pytest.raises(RequestError, match="'synthetic/jazz.00001' is in the table and also among"):
        add_to_train(tracks, synthetic_tracks(("jazz",), 2), 0)
