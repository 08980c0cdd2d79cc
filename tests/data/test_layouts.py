"""Folders of music as people have them: read as they are meant, or refused with what to type."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

import pytest

from mgc_ray import RequestError
from mgc_ray.data.layouts import gives_split
from mgc_ray.data.tracks import TrackTable, read_tracks
from tests.data.test_tracks import touched

GENRES = ("blues", "jazz", "rock")
ARTISTS = ("Abba", "Queen", "The Cure")
TABLE = r"give a table of the columns path,genre \(--tracks songs\.csv\)"


def songs(folder: Path, *folders: str, names: Iterable[str] = ("1.wav", "2.wav", "3.wav")) -> Path:
    """Empty files, which are not opened, in each of some folders."""
    return touched(folder, *(f"{one}/{name}" for one in folders for name in names))


def counts(table: TrackTable) -> dict[str, int]:
    return dict(Counter(track.genre for track in table.tracks))


def under(*above: str, names: Iterable[str] = GENRES) -> list[str]:
    return [f"{one}/{name}" for one in above for name in names]


# --- read as they are meant ---


@pytest.mark.parametrize(
    "folders",
    [
        GENRES,
        under(*GENRES, names=ARTISTS),
        ("rock/Abba/Album/CD 1", "jazz/Various Artists/A", "blues"),
        under("zouk", "gwoka", names=("live", "studio")),
        ("1", "2", "10"),  # of which nothing says that they are no genres
        ("1980s", "1990s"),
        ("nan", "NA", "None", "null", "true", "1", "False"),
        ("日本の音楽", "موسيقى", "🎸 rock", "R&B", "Drum:Bass", "x" * 255, "-", "$a$"),
        ("House", "Garage", "Test"),  # one folder of that name is no split
        ("a", "b", "c"),
        ("rock", "train songs"),
        ("happy/pop", "sad"),
    ],
    ids=str,
)
def test_folders_of_genres_are_genres(tmp_path: Path, folders: tuple[str, ...]) -> None:
    table = read_tracks(songs(tmp_path, *folders))
    assert set(table.genres) == {folder.split("/")[0] for folder in folders}
    assert (table.source, table.skipped, table.notes, table.levels) == (tmp_path, [], (), 1)
    assert {track.split for track in table.tracks} == {""}
    assert not gives_split(tmp_path)


@pytest.mark.parametrize(
    ("above", "others"),
    [
        ("Data/genres_original", ("Data/features_30_sec.csv", "Data/images_original/rock/1.png")),
        ("genres_original", ("images_original/blues/blues00000.png", "features_3_sec.csv")),
        ("genres_original", ("mine/1.wav",)),
        ("genres", ()),
        ("stuff", ()),  # as the folders in it are called as genres often are
        ("a/b/c", ()),
        ("archive/Data", ("LICENSE", "docs/AUTHORS")),  # which are no music
    ],
)
def test_genres_that_are_lower_are_found(
    tmp_path: Path, above: str, others: tuple[str, ...]
) -> None:
    songs(tmp_path, *under(above))
    table = read_tracks(touched(tmp_path, *others))
    assert counts(table) == dict.fromkeys(GENRES, 3)
    assert table.source == tmp_path / above
    assert table.notes == (f"--tracks {tmp_path} is read as {tmp_path / above}",)
    outside = [Path(one.path).name for one in table.skipped]
    assert outside == [Path(n).name for n in others if not n.endswith((".png", ".csv"))]


@pytest.mark.parametrize("above", ["", "data/"])
@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("train", "valid", "eval"),
        ("train", "dev", "test"),
        ("Train", "DEV", "Evaluation"),
    ],
)
def test_folders_of_a_split_above_the_genres(
    tmp_path: Path, names: tuple[str, ...], above: str
) -> None:
    table = read_tracks(songs(tmp_path, *under(*(above + name for name in names))))
    assert counts(table) == dict.fromkeys(GENRES, 9)
    assert table.levels == 2
    for name, part in zip(names, ("train", "valid", "test"), strict=True):
        assert {t.split for t in table.tracks if f"/{name}/" in t.path} == {part}
    assert f"the folders {', '.join(names)} are parts of a split, with the genres" in table.notes[0]
    assert len({track.track_id for track in table.tracks}) == 27
    assert gives_split(tmp_path)


def test_songs_of_a_part_without_a_genre_are_listed(tmp_path: Path) -> None:
    songs(tmp_path, *under("train", "valid", "test"))
    table = read_tracks(touched(tmp_path, "train/loose.wav", "docs/more/LICENSE"))
    assert [one.reason for one in table.skipped] == ["is outside the genre folders"] * 2


def test_folders_of_a_split_below_the_genres(tmp_path: Path) -> None:
    songs(tmp_path, *under(*GENRES, names=("train", "val", "test")))
    table = read_tracks(touched(tmp_path, "rock/loose.wav", "rock/docs/LICENSE"))
    assert counts(table) == {"blues": 9, "jazz": 9, "rock": 11}
    assert Counter(track.split for track in table.tracks) == {
        **dict.fromkeys(("train", "valid", "test"), 9),
        "": 2,
    }
    assert "the folders train, val, test below the genres are parts of a split" in table.notes[0]
    assert gives_split(tmp_path)


# --- refused with what to type ---

NO_GENRES = {
    "numbers": (
        [f"{number:03}" for number in range(3)],
        "the folders 000, 001, 002 of .* are numbers .as in FMA's .*, no genres: " + TABLE,
    ),
    "years": (["1990", "1991"], "the folders 1990, 1991 of .* are numbers .*, no genres: " + TABLE),
    "numbers, one folder lower": (
        [f"fma_small/{number:03}" for number in range(3)],
        "the folders 000, 001, 002 of .*/fma_small are numbers",
    ),
    "folds": (
        ["fold1", "fold2", "fold10"],
        "the folders fold1, fold10, fold2 of .* are numbered parts, no genres: " + TABLE,
    ),
    "letters": (
        ["A/Abba", "B/The Beatles", "C/Cream", "#/10cc"],
        "the folders #, A, B, C of .* are first letters, no genres: " + TABLE,
    ),
    "split without genres": (
        ["train", "val", "test"],
        "the folders train, val, test of .* are parts of a split, but no genre is below them: "
        "sort the songs of each into one subfolder per genre, or give a table of the columns "
        "path,genre,split",
    ),
    "split and something else": (
        under("train", "val", "test", "more"),
        "folders train, val, test of .* seem to be parts of a split, but beside them are more: ",
    ),
    "collections": (
        under("mine", "theirs"),
        r"the folders mine, theirs of .* seem to be collections, no genres \(in them: blues, jazz, "
        r"rock\): give one of them \(--tracks .*/mine --more-tracks .*/theirs\); if they are the "
        "genres, " + TABLE,
    ),
    "collections of other genres": (
        [*under("mine", names=("salsa", "zouk")), *under("theirs")],
        "the folders mine, theirs of .* seem to be collections",
    ),
    "collections of genres with rare names": (
        under("mine", "theirs", names=("aa", "bb", "cc")),
        "the folders mine, theirs of .* seem to be collections",
    ),
    "formats": (
        under("flac", "mp3", "wav", names=ARTISTS),
        r"the folders flac, mp3, wav of .* seem to be collections, no genres \(in them: Abba, "
        r"Queen, The Cure\): give one of them \(--tracks .*/flac\)",
    ),
    "too high, genres with rare names": (
        under("stuff", names=("aa", "bb")),
        r"has one folder with music, stuff: if the folders in it \(aa, bb\) are the genres, give "
        "--tracks .*/stuff; if it is a genre itself, add a folder of another",
    ),
    "too high, below what may be a genre": (
        under("rock", names=("indie", "punk")),
        r"has one folder with music, rock: if the folders in it \(indie, punk\) are the genres",
    ),
    "numbers below a split": (under("train", "test", names=("000", "001")), "000, 001 .* numbers"),
}


@pytest.mark.parametrize(("folders", "message"), NO_GENRES.values(), ids=NO_GENRES)
def test_folders_that_are_no_genres_are_refused(
    tmp_path: Path, folders: list[str], message: str
) -> None:
    names = ("a1.wav", "b2.wav") if folders[0] != "000" else ("000002.mp3",)
    with pytest.raises(RequestError, match=message):
        read_tracks(songs(tmp_path, *folders, names=names))


def test_songs_are_sorted_by_letter_where_they_have_names(tmp_path: Path) -> None:
    touched(tmp_path / "numbered", *(f"{letter}/{letter}{i}.wav" for letter in "abc" for i in "12"))
    assert counts(read_tracks(tmp_path / "numbered")) == dict.fromkeys("abc", 2)
    touched(tmp_path / "named", "a/Angie.mp3", "b/The Boxer.mp3", "c/C.mp3", "c/Cecilia.mp3")
    with pytest.raises(RequestError, match="first letters"):
        read_tracks(tmp_path / "named")


def test_songs_that_begin_with_the_number_of_their_folder_are_no_genres(tmp_path: Path) -> None:
    touched(tmp_path, "9/9001.mp3", "10/10002.mp3", "10/10003.mp3")
    with pytest.raises(RequestError, match="the folders 10, 9 of .* are numbers"):
        read_tracks(tmp_path)


def test_one_genres_own_folder_is_refused_with_the_folder_above(tmp_path: Path) -> None:
    music = tmp_path / "my music"
    songs(music, "rock", *under("jazz", names=ARTISTS), "blues/Album")
    above = quote(str(music))
    with pytest.raises(
        RequestError, match=f"most songs of .*/rock are in no subfolder.* --tracks {above}; else"
    ):
        read_tracks(music / "rock")
    with pytest.raises(
        RequestError,
        match=r"/jazz seems to be one genre, beside blues, rock, and the folders in .*/jazz "
        rf"\(Abba, Queen, The Cure\) artists or albums: give the folder above, --tracks {above};",
    ):
        read_tracks(music / "jazz")
    with pytest.raises(RequestError, match="seems to be one genre, beside"):
        read_tracks(music / "blues")
    songs(music, *under("jazz/Abba", names=("Album", "Another")))
    with pytest.raises(RequestError, match=rf"/jazz seems to be one .* --tracks {above}; if these"):
        read_tracks(music / "jazz" / "Abba")
    assert counts(read_tracks(music)) == {"blues": 3, "jazz": 15, "rock": 3}


def test_a_genres_folder_of_other_genres_is_read(tmp_path: Path) -> None:
    songs(tmp_path, "jazz", *under("rock", names=("indie", "punk", "Surf")))
    assert counts(read_tracks(tmp_path / "rock")) == {"indie": 3, "punk": 3, "Surf": 3}


def test_a_few_loose_songs_are_listed_and_change_nothing(tmp_path: Path) -> None:
    songs(tmp_path, *GENRES)
    table = read_tracks(songs(tmp_path, ".", names=("intro.wav", "LICENSE")))
    assert counts(table) == dict.fromkeys(GENRES, 3)
    assert [one.reason for one in table.skipped] == ["is outside the genre folders"] * 2


def test_a_genres_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    songs(tmp_path, "jazz", b"m\xfasica".decode("utf-8", "surrogateescape"))
    with pytest.raises(RequestError, match=r"must have a UTF-8 name, but .*/m\\xfasica has none"):
        read_tracks(tmp_path)


def test_an_unlabelled_folder_may_have_any_layout(tmp_path: Path) -> None:
    for number, (folders, _) in enumerate(NO_GENRES.values()):
        table = read_tracks(songs(tmp_path / str(number), *folders), labelled=False)
        assert len(table.tracks) == 3 * len(folders)
        assert (table.genres, table.levels) == ([], 0)
