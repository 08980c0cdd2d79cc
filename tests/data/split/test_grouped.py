"""The protocol `grouped`, and the tables that a protocol refuses before any file is opened."""

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.config import Protocol
from mgc_ray.data.split.folds import parse_fold
from mgc_ray.data.split.protocols import check_table, draw_split
from mgc_ray.data.split.words import PARTS
from mgc_ray.data.tracks import Track
from tests.data.made_tracks import GENRES, sides_of_groups, table_of, tracks_of

# --- what is refused before any file is opened ---


@pytest.mark.parametrize("protocol", ["grouped", "random-chunks"])
def test_a_single_genre_is_refused(protocol: Protocol) -> None:
    with pytest.raises(RequestError, match="at least two genres, but there is only 'jazz'"):
        check_table(table_of(tracks_of({"jazz": 9})), protocol)


def test_arrays_and_audio_in_one_table_are_refused() -> None:
    tracks = [*tracks_of({"jazz": 4, "rock": 4}), Track("/music/a.NPY", "rock", "a")]
    with pytest.raises(
        RequestError,
        match=r"holds audio or .npy arrays, not both, but .* 1 array \(e.g. /music/a.NPY\) and 8",
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
    with pytest.raises(RequestError, match="--protocol given needs tracks of the part valid"):
        check_table(table_of(tracks), "given")


def test_fewer_groups_than_the_split_needs_are_refused_with_genre_and_count() -> None:
    tracks = [*tracks_of({"jazz": 3}), *tracks_of({"rock": 2})]
    with pytest.raises(RequestError, match=r"grouped needs 3 groups .* but 'rock' has 2: add"):
        check_table(table_of(tracks), "grouped")


def test_spellings_of_one_artist_count_as_one_group() -> None:
    names = ("Ella F", "ELLA F", " ella  f ", "Nina")
    rock = [Track(f"{i}.wav", "rock", str(i), artist) for i, artist in enumerate(names)]
    with pytest.raises(RequestError, match="'rock' has 2"):
        check_table(table_of([*tracks_of({"jazz": 3}), *rock]), "grouped")


def test_three_groups_per_genre_are_enough() -> None:
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
def test_a_malformed_fold_is_refused(text: str) -> None:
    with pytest.raises(
        RequestError, match=rf"--fold K/N with 1 <= K <= N and N >= 3 .*, but it is '{text}': give"
    ):
        parse_fold(text)


def test_a_fold_is_its_number_and_the_number_of_folds() -> None:
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
    assert [track.path for track in split] == [track.path for track in tracks]  # in their order
    assert all(len(sides) == 1 for sides in sides_of_groups(split).values())
    for key in ("artist", "content"):
        sides = defaultdict(set)
        for track in split:
            value = track.artist if key == "artist" else hashes[track.path]
            sides[value or track.track_id].add(track.split)
        assert all(len(parts) == 1 for parts in sides.values()), key
    assert {(track.genre, track.split) for track in split} == {
        (track.genre, part) for track in tracks for part in PARTS
    }
    assert draw_split(tracks, hashes, "grouped", seed) == (split, [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 6), min_size=3, max_size=8), min_size=2, max_size=4))
def test_three_artists_per_genre_are_always_enough_where_none_plays_two(
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
    assert {part: counts["jazz", part] for part in PARTS} == pytest.approx(
        {"train": 64, "valid": 16, "test": 20}, abs=1
    )
    assert {part: counts["rock", part] for part in PARTS} == pytest.approx(
        {"train": 32, "valid": 8, "test": 10}, abs=1
    )
    assert {part: counts["blues", part] for part in PARTS} == pytest.approx(
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


def test_artists_whose_genres_allow_no_split_are_refused() -> None:
    # every two of the four artists share a genre, so no two may be in one of the three parts
    genres = {"blues": "BCD", "jazz": "ABC", "pop": "ACD", "rock": "ABD"}
    tracks = [
        Track(f"{genre}{artist}.wav", genre, f"{genre}{artist}", artist)
        for genre, artists in genres.items()
        for artist in artists
    ]
    for seed in range(5):
        with pytest.raises(RequestError, match="in train, valid and test: its artists also play"):
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
def test_the_only_possible_split_is_found(seed: int) -> None:
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
def test_a_part_without_a_genre_is_given_a_group_of_it(seed: int) -> None:
    # X and Y play both genres, and by size alone jazz would miss one of the parts
    jazz, rock = {"J": 3, "X": 2, "Y": 1}, {"X": 7, "Y": 1, "R": 10, "S": 20}
    tracks = [
        Track(f"{genre}{artist}{i}.wav", genre, f"{genre}{artist}{i}", artist)
        for genre, artists in (("jazz", jazz), ("rock", rock))
        for artist, count in artists.items()
        for i in range(count)
    ]
    split, _ = draw_split(tracks, {}, "grouped", seed)
    assert {(t.genre, t.split) for t in split} == {(g, s) for g in ("jazz", "rock") for s in PARTS}
    assert all(len(sides) == 1 for sides in sides_of_groups(split).values())
