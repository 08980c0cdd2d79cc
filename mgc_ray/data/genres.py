"""What genres are called: spellings of one name, and names that many collections have."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

# Names as `spelling_key` has them, of published datasets and of many collections. They only decide
# between readings of a folder's layout; genres may be called anything.
_NAMES = """
acoustic africa african afrobeat alternative ambient arabic bachata ballroom baroque bebop blues
bluegrass bollywood bossanova breakbeat cabaret caribbean celtic chachacha chanson children
chillout choral christian classical classic comedy country cumbia dance dancehall deephouse
disco downtempo drumandbass drum&bass dnb dub dubstep easylistening edm electronic electronica
electro emo experimental fado flamenco folk funk fusion garage gospel gothic grindcore grunge
hardcore hardrock heavymetal hiphop hiphop/rap historic holiday house idm indie indierock
industrial instrumental international jazz jive jpop kizomba kpop latin lofi lounge mambo
mariachi metal metalpunk minimal musical musette newage newwave noise oldtime oldtimehistoric
opera orchestral poprock pop progressive progressiverock psychedelic psytrance punk punkrock
quickstep r&b rai ragga ragtime rap rapsoulrnb reggae reggaeton religious rhythmandblues rnb
rock rockandroll rockpop rocknroll rumba salsa samba schlager singersongwriter ska slowwaltz
smoothjazz soul soulrnb soulr&b soundtrack soundtracks spoken surf swing synthpop tango techno
trance traphiphop trap triphop turkish viennesewaltz vocal waltz world worldmusic zouk
"""
_KNOWN = frozenset(_NAMES.split())


def spelling_key(genre: str) -> str:
    """Equal for spellings of one genre: Hip-Hop, hip hop, HipHop."""
    plain = unicodedata.normalize("NFKC", genre).casefold()
    return re.sub(r"[\s_-]+", "", plain) or plain


def composed(name: str) -> str:
    """In the one of Unicode's equal forms that most programs write, NFC."""
    return unicodedata.normalize("NFC", name)


def one_spelling(count: Counter[str], wanted: Iterable[str] = ()) -> dict[str, str]:
    """How each genre of `count` is to be spelt: as in `wanted`, else as most tracks have it."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for genre in sorted(count, key=lambda genre: (-count[genre], genre)):
        spellings[spelling_key(genre)].append(genre)
    chosen = {key: composed(spelt[0]) for key, spelt in spellings.items()}
    chosen |= {spelling_key(genre): genre for genre in wanted}
    exact = set(wanted)
    return {genre: genre if genre in exact else chosen[spelling_key(genre)] for genre in count}


def is_known(name: str) -> bool:
    """Whether a genre is often called so."""
    return spelling_key(name) in _KNOWN


def known(names: Iterable[str]) -> list[str]:
    """Those that genres are often called, sorted."""
    return sorted(name for name in names if is_known(name))


def mostly_known(names: Collection[str]) -> bool:
    """Whether two of the names and half of them are what genres are often called."""
    found = len(known(names))
    return found >= 2 and 2 * found >= len(names)
