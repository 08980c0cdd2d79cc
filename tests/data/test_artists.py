"""Spellings of artists."""

import pytest

from mgc_ray.data.artists import Artists


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cash, Johnny", "Johnny Cash"),
        ("Johnny Cash & The Tennessee Two", "Cash, Johnny"),
        ("Who [1]", "The Who"),
        ("Who, The", "WHO"),
        ("Nelson, Willie/Jennings, Waylon", "Waylon Jennings"),
        ("A Tribe Called Quest", "Tribe Called Quest"),
        ("Davis, Miles Quintet", "Miles Davis"),
        ("Earth, Wind & Fire", "Earth Wind and Fire"),
        ("Aretha Franklin, Celine Dion & Mariah Carey", "Franklin, Aretha"),
        ("Пугачёва, Алла", "Алла Пугачёва"),
        ("Beyoncé", "BEYONCE"),
        ("Bjo\u0308rk", "Björk"),
        ("Eminem feat. Rihanna", "Rihanna"),
        ("Rihanna & Eminem", "Eminem"),
        ("Peter Tosh and Mick Jagger", "Peter Tosh"),
    ],
)
def test_usual_spellings_of_one_artist_are_the_same(one: str, other: str) -> None:
    assert Artists([one]).same(other) == one
    assert Artists([other]).same(one) == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bush, Kate", "Bush [2]"),
        ("Pink", "Pink Floyd"),
        ("New York City", "New York Dolls"),
        ("Moby & Friends", "Sting and Friends"),
        ("Various Artists", "various artists"),
        ("Unknown Artist", "Unknown Artist"),
        ("", ""),
    ],
)
def test_different_artists_are_not_the_same(one: str, other: str) -> None:
    assert Artists([one]).same(other) == ""
    assert Artists([other]).same(one) == ""
