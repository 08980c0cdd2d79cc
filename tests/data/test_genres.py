"""Names of genres: which are spellings of one."""

from collections import Counter

import pytest

from mgc_ray.data.genres import known, mostly_known, one_spelling, spelling_key


@pytest.mark.parametrize(
    "spellings",
    [
        ("Hip-Hop", "hip hop", "HIPHOP", "Hip_Hop", "hip  hop"),
        ("Música", "mu\u0301sica"),
        ("R&B", "r & b"),
        ("-", "-"),
    ],
)
def test_spellings_of_one_genre_have_one_key(spellings: tuple[str, ...]) -> None:
    assert len({spelling_key(spelling) for spelling in spellings}) == 1


def test_other_genres_have_other_keys() -> None:
    names = [
        "rock",
        "rocks",
        "r&b",
        "rb",
        "-",
        "_",
        " ",
        "1",
        "01",
        "nan",
        "",
        "日本",
        "J-Pop/K-Pop",
    ]
    assert len({spelling_key(name) for name in names}) == len(names)


def test_most_tracks_decide_the_spelling_unless_one_is_wanted() -> None:
    count = Counter({"Rock": 2, "rock": 3, "ROCK": 1, "Jazz": 1, "jazz": 1, "pop": 9})
    assert one_spelling(count) == {
        **dict.fromkeys(("Rock", "rock", "ROCK"), "rock"),
        **dict.fromkeys(("Jazz", "jazz"), "Jazz"),
        "pop": "pop",
    }
    assert one_spelling(count, ["Rock", "JAZZ", "ska"]) == {
        **dict.fromkeys(("Rock", "rock", "ROCK"), "Rock"),
        **dict.fromkeys(("Jazz", "jazz"), "JAZZ"),
        "pop": "pop",
    }
    # a model may know two genres whose spellings would be one
    assert one_spelling(Counter({"Pop": 1, "pop": 1}), ["Pop", "pop"]) == {
        "Pop": "Pop",
        "pop": "pop",
    }


def test_names_that_genres_often_have() -> None:
    assert known(["Hip-Hop", "Abba", "drum and bass", "International"]) == [
        *("Hip-Hop", "International", "drum and bass")
    ]
    assert mostly_known(["rock", "jazz", "a", "b"])
    assert not mostly_known(["rock", "jazz", "a", "b", "c"])
    assert not mostly_known(["rock"])
