"""The split: what is refused, and what is never on both sides."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mgc_ray.data
from mgc_ray import RequestError
from mgc_ray.data.corpus import extra_track
from mgc_ray.data.gtzan import fault_filtered
from mgc_ray.data.split import (
    PROTOCOLS,
    add_to_train,
    assign_groups,
    check_table,
    chunk_splits,
    draw_folds,
    draw_split,
    groups_on_several_sides,
    parse_fold,
)
from mgc_ray.data.tracks import SPLITS, Skipped, Track, TrackTable

GENRES = ("blues", "jazz", "rock")


def tracks_of(counts: dict[str, int], **fields: str) -> list[Track]:
    """As many tracks of each genre as said, each of an artist of its own."""
    return [
        Track(f"/music/{genre}/{i}.wav", genre, f"{genre}.{i}", **fields)
        for genre, count in counts.items()
        for i in range(count)
    ]


def table_of(tracks: Sequence[Track]) -> TrackTable:
    return TrackTable(Path("tracks.csv"), list(tracks), [])


def of_artists(sizes: dict[str, Sequence[int]]) -> list[Track]:
    """Tracks of artists who play one genre each; `sizes` says how many tracks each has."""
    return [
        Track(f"{genre}-{a}-{i}.wav", genre, f"{genre}-{a}-{i}", f"{genre} {a}", f"{genre} {a}")
        for genre, artists in sizes.items()
        for a, count in enumerate(artists)
        for i in range(count)
    ]


def sides_of_groups(tracks: Iterable[Track]) -> dict[str, set[str]]:
    sides = defaultdict(set)
    for track in tracks:
        sides[track.group].add(track.split)
    return sides


# --- what is refused before any file is opened ---


def test_an_unknown_protocol_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        RequestError,
        match="must be one of grouped, given, .*, cross-validation, unlabelled, not 'random'",
    ):
        check_table(table_of(tracks_of({"jazz": 9, "rock": 9})), "random")


@pytest.mark.parametrize("protocol", ["grouped", "random-chunks"])
def test_one_genre_alone_is_refused(protocol: str) -> None:
    with pytest.raises(RequestError, match="at least two genres, but there is only 'jazz'"):
        check_table(table_of(tracks_of({"jazz": 9})), protocol)


def test_arrays_and_audio_in_one_table_are_refused() -> None:
    tracks = [*tracks_of({"jazz": 4, "rock": 4}), Track("/music/a.NPY", "rock", "a")]
    with pytest.raises(
        RequestError, match="holds audio or .npy arrays, not both, but .* 1 arrays and 8 other"
    ):
        check_table(table_of(tracks), "grouped")


def test_given_without_a_split_column_is_refused() -> None:
    with pytest.raises(RequestError, match=r"tracks\.csv has no column split with train and valid"):
        check_table(table_of(tracks_of({"jazz": 4, "rock": 4})), "given")


def test_given_without_train_rows_of_a_genre_is_refused() -> None:
    tracks = [*tracks_of({"jazz": 4}, split="train"), *tracks_of({"rock": 4}, split="valid")]
    with pytest.raises(RequestError, match="needs train rows of every genre, but 'rock' has none"):
        check_table(table_of(tracks), "given")


def test_given_without_valid_rows_is_refused() -> None:
    tracks = tracks_of({"jazz": 4, "rock": 4}, split="train")
    with pytest.raises(RequestError, match="--protocol given needs rows with the split valid"):
        check_table(table_of(tracks), "given")


def test_fewer_groups_than_the_split_needs_are_refused_with_genre_and_count() -> None:
    tracks = [*tracks_of({"jazz": 3}), *tracks_of({"rock": 2})]
    with pytest.raises(RequestError, match=r"grouped needs 3 groups .* but 'rock' has 2: add"):
        check_table(table_of(tracks), "grouped")


def test_tracks_of_one_artist_are_one_group_however_the_name_is_written() -> None:
    names = ("Ella F", "ELLA F", " ella  f ", "Nina")
    rock = [Track(f"{i}.wav", "rock", str(i), artist) for i, artist in enumerate(names)]
    with pytest.raises(RequestError, match="'rock' has 2"):
        check_table(table_of([*tracks_of({"jazz": 3}), *rock]), "grouped")


def test_three_groups_a_genre_are_enough() -> None:
    check_table(table_of(tracks_of({"jazz": 3, "rock": 3})), "grouped")


def test_cross_validation_needs_as_many_groups_as_grouped_and_a_fold() -> None:
    few = table_of([*tracks_of({"jazz": 9}), *tracks_of({"rock": 2})])
    with pytest.raises(RequestError, match=r"cross-validation needs 3 groups .* but 'rock' has 2"):
        check_table(few, "cross-validation", "1/5")
    enough = table_of(tracks_of({"jazz": 9, "rock": 3}))
    check_table(enough, "cross-validation", "1/5")
    with pytest.raises(RequestError, match="needs --fold K/N .*, but there is none: give e.g. --f"):
        check_table(enough, "cross-validation")


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/2", "2", "a/b", "1/5/7", "-1/5", "2 / 5", "½/5"])
def test_a_fold_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(
        RequestError, match=rf"--fold K/N with 1 <= K <= N and N >= 3 .*, but it is '{text}': give"
    ):
        parse_fold(text)


def test_a_fold_is_a_part_and_the_number_of_parts() -> None:
    assert parse_fold("2/5") == (2, 5)
    assert parse_fold("10/10") == (10, 10)


def test_random_chunks_needs_no_groups() -> None:
    check_table(table_of(tracks_of({"jazz": 1, "rock": 1})), "random-chunks")


def test_fault_filtered_without_ids_of_gtzan_is_refused() -> None:
    with pytest.raises(
        RequestError, match="fault-filtered takes GTZAN's tracks by their track_id .* 'jazz' has"
    ):
        check_table(table_of(tracks_of({"jazz": 4, "rock": 4})), "fault-filtered")


# --- the protocol `grouped` ---


@st.composite
def collections(draw: st.DrawFn) -> tuple[list[Track], dict[str, str]]:
    """Tracks of 2 or 3 genres, some of named artists, some with the same content as another."""
    tracks = []
    for genre in GENRES[: draw(st.integers(2, 3))]:
        for i in range(draw(st.integers(3, 14))):
            artist = draw(st.sampled_from(["", "", f"{genre} A", f"{genre} B", "Both"]))
            tracks.append(Track(f"/{genre}/{i}.wav", genre, f"{genre}.{i}", artist))
    kinds = max(4, int(len(tracks) * draw(st.floats(0.5, 3))))
    hashes = {track.path: str(draw(st.integers(0, kinds))) for track in tracks}
    return tracks, hashes


@settings(max_examples=150, deadline=None)
@given(collections(), st.integers(0, 2**31 - 1))
def test_no_group_is_on_both_sides_and_every_genre_is_in_every_part(
    collection: tuple[list[Track], dict[str, str]], seed: int
) -> None:
    tracks, hashes = collection
    try:
        split, skipped = draw_split(tracks, hashes, "grouped", seed)
    except RequestError as error:
        # drawn with too few groups, or with artists that tie the genres together
        assert "groups" in str(error) or "its artists also play other genres" in str(error)  # noqa: PT017
        assume(False)
    assert skipped == []
    plain = [replace(track, group="", split="") for track in split]
    assert sorted(plain, key=repr) == sorted(tracks, key=repr)
    order = [SPLITS.index(track.split) for track in split]
    assert order == sorted(order)  # part after part
    assert all(len(sides) == 1 for sides in sides_of_groups(split).values())
    for key in ("artist", "content"):
        sides = defaultdict(set)
        for track in split:
            value = track.artist if key == "artist" else hashes[track.path]
            sides[value or track.track_id].add(track.split)
        assert all(len(found) == 1 for found in sides.values()), key
    assert {(track.genre, track.split) for track in split} == {
        (track.genre, part) for track in tracks for part in SPLITS
    }
    assert draw_split(tracks, hashes, "grouped", seed) == (split, [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 6), min_size=3, max_size=8), min_size=2, max_size=4))
def test_three_artists_a_genre_are_always_enough_where_none_plays_two(
    sizes: list[list[int]],
) -> None:
    tracks = [
        Track(f"{g}-{a}-{i}.wav", f"genre{g}", f"{g}-{a}-{i}", f"{g}-{a}")
        for g, artists in enumerate(sizes)
        for a, count in enumerate(artists)
        for i in range(count)
    ]
    split, _ = draw_split(tracks, {}, "grouped", seed=0)
    assert len({(track.genre, track.split) for track in split}) == 3 * len(sizes)
    assert all(len(sides) == 1 for sides in sides_of_groups(split).values())


def test_the_shares_of_many_tracks_are_64_16_20_in_every_genre() -> None:
    split, _ = draw_split(tracks_of({"jazz": 100, "rock": 50, "blues": 25}), {}, "grouped", 3)
    counts = Counter((track.genre, track.split) for track in split)
    assert {part: counts["jazz", part] for part in SPLITS} == pytest.approx(
        {"train": 64, "valid": 16, "test": 20}, abs=1
    )
    assert {part: counts["rock", part] for part in SPLITS} == pytest.approx(
        {"train": 32, "valid": 8, "test": 10}, abs=1
    )
    assert {part: counts["blues", part] for part in SPLITS} == pytest.approx(
        {"train": 16, "valid": 4, "test": 5}, abs=1
    )


def test_the_seed_decides_the_split() -> None:
    tracks = tracks_of({"jazz": 20, "rock": 20})
    assert draw_split(tracks, {}, "grouped", 1) == draw_split(tracks, {}, "grouped", 1)
    assert draw_split(tracks, {}, "grouped", 1) != draw_split(tracks, {}, "grouped", 2)


def test_too_few_groups_after_joining_identical_content_are_refused() -> None:
    tracks = tracks_of({"jazz": 3, "rock": 3})
    same = {track.path: "hash" for track in tracks if track.track_id in ("rock.0", "rock.2")}
    with pytest.raises(RequestError, match=r"needs 3 groups .* but 'rock' has 2"):
        draw_split(tracks, same, "grouped", 0)


def test_artists_whose_genres_leave_no_split_are_refused() -> None:
    # every two of the four artists share a genre, so no two may be in one of the three parts
    genres = {"blues": "BCD", "jazz": "ABC", "pop": "ACD", "rock": "ABD"}
    tracks = [
        Track(f"{genre}{artist}.wav", genre, f"{genre}{artist}", artist)
        for genre, artists in genres.items()
        for artist in artists
    ]
    for seed in range(5):
        with pytest.raises(RequestError, match="into train, valid and test: its artists also play"):
            draw_split(tracks, {}, "grouped", seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_split_is_found_where_the_same_three_artists_play_all_genres(seed: int) -> None:
    tracks = [
        Track(f"{genre}{artist}{i}.wav", genre, f"{genre}{artist}{i}", artist)
        for genre in GENRES
        for artist, count in (("A", 1), ("B", 2), ("C", 1 + len(genre)))
        for i in range(count)
    ]
    split, _ = draw_split(tracks, {}, "grouped", seed)
    assert sorted(map(sorted, sides_of_groups(split).values())) == [["test"], ["train"], ["valid"]]


@pytest.mark.parametrize("seed", range(5))
def test_the_only_split_that_artists_of_several_genres_leave_is_found(seed: int) -> None:
    # A, B and E must be apart for jazz, A, D and E for rock: so B is with D, and C with E for blues
    genres = {"blues": "ABCD", "jazz": "ABE", "rock": "ADE"}
    tracks = [
        Track(f"{genre}{artist}.wav", genre, f"{genre}{artist}", artist)
        for genre, artists in genres.items()
        for artist in artists
    ]
    split, _ = draw_split(tracks, {}, "grouped", seed)
    side = {track.group: track.split for track in split}
    assert side["B"] == side["D"]
    assert side["C"] == side["E"]
    assert len({side["A"], side["B"], side["C"]}) == 3


@pytest.mark.parametrize("seed", range(5))
def test_a_part_that_a_genre_does_not_reach_by_size_is_given_a_group(seed: int) -> None:
    # X and Y play both genres, and by size alone jazz would miss one of the parts
    jazz, rock = {"J": 3, "X": 2, "Y": 1}, {"X": 7, "Y": 1, "R": 10, "S": 20}
    tracks = [
        Track(f"{genre}{artist}{i}.wav", genre, f"{genre}{artist}{i}", artist)
        for genre, artists in (("jazz", jazz), ("rock", rock))
        for artist, count in artists.items()
        for i in range(count)
    ]
    split, _ = draw_split(tracks, {}, "grouped", seed)
    assert {(t.genre, t.split) for t in split} == {(g, s) for g in ("jazz", "rock") for s in SPLITS}
    assert all(len(sides) == 1 for sides in sides_of_groups(split).values())


# --- folds, and the protocol `cross-validation` ---


def test_each_group_goes_to_the_emptiest_fold_and_what_is_left_over_is_shared_out() -> None:
    # largest first: 5 | 4 | 3, then 3 to the third, 2 to the second, 1 to the first: 6 each
    tracks = of_artists({"jazz": (1, 2, 3, 3, 4, 5)})
    assert Counter(draw_folds(tracks, 3, 0)) == {0: 6, 1: 6, 2: 6}
    # 4 tracks a genre in 3 folds: 2, 1, 1 of each, but not three times the 2 in one fold
    tracks = of_artists(dict.fromkeys(GENRES, (1, 1, 1, 1)))
    assert Counter(draw_folds(tracks, 3, 0)) == {0: 4, 1: 4, 2: 4}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=12), min_size=1, max_size=4),
    st.integers(2, 6),
    st.integers(0, 2**31 - 1),
)
def test_no_group_that_changes_folds_would_make_a_genre_more_even(
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


def test_the_seed_decides_the_folds_and_the_order_of_the_tracks_does_not() -> None:
    tracks = of_artists({"jazz": [1] * 20, "rock": [2] * 10})
    folds = draw_folds(tracks, 4, 1)
    assert folds == draw_folds(tracks, 4, 1)
    assert folds == draw_folds(tracks[::-1], 4, 1)[::-1]
    assert folds != draw_folds(tracks, 4, 2)


def test_folds_that_cannot_be_are_refused() -> None:
    tracks = of_artists({"jazz": (3, 1), "rock": (1, 1)})
    for folds in (1, 5):
        with pytest.raises(
            RequestError, match=f"<= folds <= groups` .* there are {folds} folds and 4 groups"
        ):
            draw_folds(tracks, folds, 0)
    with pytest.raises(RequestError, match="need 2 groups .* a genre, .*, but 'rock' has 1: add"):
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
        there = {(track.genre, track.split) for track in part}
        assert {(genre, split) for genre in groups for split in ("train", "valid")} <= there
    for genre, artists in groups.items():
        with_it = sum(any((t.genre, t.split) == (genre, "test") for t in part) for part in parts)
        assert with_it == min(folds, len(artists))


def test_what_a_fold_leaves_is_split_as_under_grouped() -> None:
    tracks = tracks_of({"jazz": 100, "rock": 50})
    split, skipped = draw_split(tracks, {}, "cross-validation", 3, "2/5")
    counts = Counter((track.genre, track.split) for track in split)
    assert {part: counts["jazz", part] for part in SPLITS} == {"train": 64, "valid": 16, "test": 20}
    assert {part: counts["rock", part] for part in SPLITS} == {"train": 32, "valid": 8, "test": 10}
    assert skipped == []


def test_a_genre_of_fewer_groups_than_folds_is_missing_from_some_test_parts_alone() -> None:
    tracks = of_artists({"jazz": [1] * 10, "rock": (5, 3, 2)})
    tested = []
    for k in range(1, 6):
        split, _ = draw_split(tracks, {}, "cross-validation", 0, f"{k}/5")
        rock = Counter(track.split for track in split if track.genre == "rock")
        assert rock["train"] > 0
        assert rock["valid"] > 0
        tested.append(rock["test"])
    assert sorted(tested) == [0, 0, 2, 3, 5]


def test_cross_validation_takes_no_heed_of_the_tables_own_split() -> None:
    tracks = tracks_of({"jazz": 10, "rock": 10})
    marked = [replace(track, split="train") for track in tracks]
    assert draw_split(tracks, {}, "cross-validation", 0, "1/5") == draw_split(
        marked, {}, "cross-validation", 0, "1/5"
    )


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


# --- synthetic tracks ---


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


# --- groups ---


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
