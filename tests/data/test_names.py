"""Names as text: nothing that a file in UTF-8 or a terminal cannot take."""

import pytest

from mgc_ray.data.names import (
    as_text,
    for_terminal,
    from_cell,
    from_text,
    is_utf8,
    one_line,
    to_cell,
)

LATIN_1 = b"caf\xe9.wav".decode("utf-8", "surrogateescape")


def test_bytes_that_are_not_utf_8_are_shown_as_numbers() -> None:
    assert as_text(LATIN_1) == "caf\\xe9.wav"
    assert as_text("\ud800.wav") == "\\ud800.wav"  # of JSON; no file has such a name
    assert [is_utf8(name) for name in (LATIN_1, "\ud800", "café.wav", "a\n")] == [
        False,
        False,
        True,
        True,
    ]


def test_a_name_is_found_again_from_its_text() -> None:
    for name in (LATIN_1, "café.wav", "a\n\\x41.wav"):
        assert from_text(as_text(name)) == name


@pytest.mark.parametrize(
    "name", ["café.wav", "日本.flac", "שלום.mp3", "👩\u200d👩\u200d👧.ogg", "[red]:fire: $a$ \\x"]
)
def test_all_other_text_stays_as_it_is(name: str) -> None:
    assert as_text(name) == one_line(name) == for_terminal(name) == name


def test_one_line_has_no_control_characters() -> None:
    assert one_line("a\nb\r\tc\x00") == "a\\nb\\r\\tc\\x00"
    assert one_line("\x1b[31mred\x1b]0;title\x07\x9b2J") == (
        "\\x1b[31mred\\x1b]0;title\\x07\\x9b2J"
    )
    assert one_line("a\u2028b\x85c\u202egpj.exe") == "a\\u2028b\\x85c\\u202egpj.exe"
    assert one_line(LATIN_1) == "caf\\xe9.wav"


def test_text_of_several_lines_keeps_them() -> None:
    assert for_terminal(f"a\x1b[2J\n{LATIN_1}\n") == "a\\x1b[2J\ncaf\\xe9.wav\n"


@pytest.mark.parametrize("text", ["=1+1", "+a", "-song.mp3", "@sum", "\tx", "'=x", "''@", "--1"])
def test_what_a_spreadsheet_would_run_is_marked_and_comes_back(text: str) -> None:
    assert to_cell(text) == f"'{text}"
    assert from_cell(to_cell(text)) == text


@pytest.mark.parametrize("value", ["rock", "'n roll", "-0.5", "+3", "a=b", "", 3, -2.5, None])
def test_other_cells_stay_as_they_are(value: object) -> None:
    assert to_cell(value) == value
    if isinstance(value, str):
        assert from_cell(value) == value
