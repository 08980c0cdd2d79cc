"""Artists: which spellings mean the same one, and who plays together."""

import re
import unicodedata
from collections.abc import Iterable


class Artists:
    """A list of artists that recognises one in any usual spelling.

    A name is the set of its words: "Cash, Johnny", "Johnny Cash" and "Johnny Cash & The Tennessee
    Two" are the same, as two common words or more suffice where one name has further ones; so are
    "The Who" and "Who [1]", "Beyoncé" and "BEYONCE". A cell may hold several names, separated by /
    or ; or "feat." or by two commas or more; "Rihanna & Eminem" is also each of the two.
    """

    def __init__(self, artists: Iterable[str] = ()) -> None:
        self._by_word: dict[str, dict[frozenset[str], dict[str, None]]] = {}
        for artist in artists:
            self.add(artist)

    def add(self, artist: str) -> None:
        for name in _names(artist):
            for word in name:
                self._by_word.setdefault(word, {}).setdefault(name, {})[artist] = None

    def all_same(self, artist: str) -> list[str]:
        """The listed artists who are the same or take part, as spelt in the list."""
        found: dict[str, None] = {}
        for name in _names(artist):
            for word in sorted(name):
                for other, spelt in self._by_word.get(word, {}).items():
                    few, many = sorted((name, other), key=len)
                    if name == other or (len(few) > 1 and few <= many):
                        found |= spelt
        return list(found)

    def same(self, artist: str) -> str:
        """The first of `all_same`; "" for none."""
        return next(iter(self.all_same(artist)), "")


_IGNORED = ("the", "a", "an", "and")
# of "X & Friends": no artist by themselves
_COMPANY = frozenset(
    word
    for words in (
        "band boys choir chorus co combo company crew ensemble family friends gang girls group",
        "guests orchestra others philharmonic players quartet quintet sextet singers sons symphony",
        "trio two",
    )
    for word in words.split()
)
_NOBODY = frozenset(
    frozenset(name.split())
    for name in ("artist", "artists", "na", "none", "unknown", "unknown artist", "va", "various")
) | {frozenset(("various", "artists"))}


def is_known(artist: str) -> bool:
    """Whether it says who it is: neither empty nor "Unknown Artist", "Various Artists" or so."""
    return bool(_names(artist))


def _names(artist: str) -> list[frozenset[str]]:
    decomposed = unicodedata.normalize("NFKD", artist.casefold())
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    plain = re.sub(r"\[.*?\]|\(.*?\)", " ", plain)
    cells = re.split(r"[/;]|\b(?:feat|ft|featuring|vs|versus)\b\.?", plain)
    if len(cells) == 1 and plain.count(",") > 1:
        cells = plain.split(",")
    names = [_words(cell) for cell in cells]
    for cell in cells:
        parts = [_words(part) for part in re.split(r"&|\+|\band\b|\bwith\b", cell)]
        if len(parts) > 1:
            names += [part for part in parts if not part <= _COMPANY]
    return [name for name in names if name and name not in _NOBODY]


def _words(cell: str) -> frozenset[str]:
    words = frozenset(re.findall(r"\w+", cell))
    return words - frozenset(_IGNORED) or words
