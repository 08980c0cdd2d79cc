"""The genres of the built-in corpus, as rules: what composer.py composes from.

`GENRE_RULES` has one entry per genre: tempo, swing, drum grids, bass lines, chord progressions,
scale, instruments; every tuple is a choice that an artist or a song makes.

Patterns are strings of sixteen sixteenth notes, one bar of 4/4. For drums and chords `x` is a hit,
`X` a loud and `o` a soft one; for bass lines and riffs a digit is a degree (1 root, 3 third, 5
fifth, 6 sixth, 7 seventh, 8 octave) and `w` a step of a walk; `-` holds the note, `.` is silence.
Tempi are beats (quarter notes) per minute, levels decibels, pitches MIDI numbers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Groove:
    """A drum pattern: one grid per drum."""

    kick: str = ""
    snare: str = ""
    hat: str = ""
    open_hat: str = ""
    ride: str = ""
    clap: str = ""
    rim: str = ""
    tom: str = ""
    brush: str = ""
    shaker: str = ""


@dataclass(frozen=True)
class Part:
    """What one player may play: instruments and patterns to choose from, and how.

    `style`: block (a chord at once), strum (its notes one after the other), arpeggio (one
    note per hit), riff (degrees of the scale), bass (degrees of the chord) or lead (a tune).
    """

    instruments: tuple[str, ...]
    patterns: tuple[str, ...]
    style: str = "block"
    register: int = 60  # MIDI pitch that its notes stay near
    level: float = -9.0  # decibels relative to the drums


@dataclass(frozen=True)
class Genre:
    """The rules of one genre; every tuple is a choice that an artist or a song makes."""

    tempo: tuple[float, float]
    progressions: tuple[str, ...]  # one chord per bar
    scale: tuple[int, ...]  # semitones above the key
    grooves: tuple[Groove, ...]
    bass: Part
    chords: tuple[Part, ...]
    leads: tuple[Part, ...]
    neighbours: tuple[str, ...]  # genres its artists borrow from
    swing: tuple[float, float] = (0.5, 0.51)  # where in a pair the second note falls
    swing_steps: int = 2  # sixteenths to half a pair: 2 swings eighths, 1 sixteenths
    rubato: float = 0.0  # seconds that the beat wanders
    swell: float = 0.0  # decibels that the loudness wanders


MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
DORIAN = (0, 2, 3, 5, 7, 9, 10)
MIXOLYDIAN = (0, 2, 4, 5, 7, 9, 10)
PHRYGIAN = (0, 1, 3, 5, 7, 8, 10)
BLUES = (0, 3, 5, 6, 7, 10)
PENTATONIC = (0, 2, 4, 7, 9)

BACKBEAT = "....X.......X..."
EIGHTHS = "X.x.x.x.X.x.x.x."
FOUR = "X...X...X...X..."
OFFBEATS = "..x...x...x...x."
WHOLE = "x---------------"

GENRE_RULES: dict[str, Genre] = {
    "blues": Genre(
        tempo=(72, 128),
        swing=(0.63, 0.68),
        progressions=(
            "I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7",
            "I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 I7",
            "i7 i7 i7 i7 iv7 iv7 i7 i7 bVI7 V7 i7 V7",
        ),
        scale=BLUES,
        grooves=(
            Groove(kick="X.......X.......", snare=BACKBEAT, hat=EIGHTHS),
            Groove(kick="X.....x.X.......", snare=BACKBEAT, ride=EIGHTHS),
            Groove(kick="X...x...X...x...", snare="..o.X.o...o.X.o.", hat="x...x...x...x..."),
        ),
        bass=Part(
            ("bass", "bass", "pluck"),
            ("1-1-3-3-5-5-6-6-", "1-1-5-5-6-6-7-7-", "1---3---5---6---"),
            style="bass",
            register=40,
            level=-5,
        ),
        chords=(
            Part(("pluck", "piano"), ("x-x-x-x-x-x-x-x-",), style="block", register=52, level=-9),
            Part(("organ", "piano", "pluck"), ("....x.......x...", "..x-..x-..x-..x-")),
        ),
        leads=(
            Part(
                ("pluck", "distorted_lead", "reed", "voice"),
                ("..x-x-x-x-------", "x-x-x---....x-x-", "....x-x---x-x---"),
                style="lead",
                register=67,
                level=-6,
            ),
        ),
        neighbours=("jazz", "rock", "country"),
    ),
    "classical": Genre(
        tempo=(66, 132),
        progressions=("I IV V I", "I vi ii V", "i iv V i", "I V vi iii IV I IV V", "i VI iv V"),
        scale=MAJOR,
        grooves=(Groove(), Groove(), Groove(tom="X...............")),
        bass=Part(
            ("bowed", "bowed", "piano"),
            (WHOLE, "1-------5-------"),
            style="bass",
            register=45,
            level=-10,
        ),
        chords=(
            Part(
                ("piano", "bowed", "pluck"),
                ("x-x-x-x-x-x-x-x-", "xxxxxxxxxxxxxxxx"),
                style="arpeggio",
                register=60,
                level=-7,
            ),
            Part(("bowed", "brass", "organ"), (WHOLE, "x-------x-------")),
        ),
        leads=(
            Part(
                ("bowed", "reed", "piano", "brass"),
                ("x---x---x-x-x---", "x-x-x-x-x---x---", "xxxxx-x-xxxxx-x-"),
                style="lead",
                register=74,
                level=-4,
            ),
        ),
        neighbours=("jazz", "pop", "country"),
        rubato=0.06,
        swell=6.0,
    ),
    "country": Genre(
        tempo=(92, 144),
        progressions=("I I IV I I V I V", "I IV V I", "I V IV I", "I vi IV V"),
        scale=PENTATONIC,
        swing=(0.5, 0.58),
        grooves=(
            Groove(kick="X.......X.......", brush="x.xxX.xxx.xxX.xx"),
            Groove(kick="X.......X.......", snare="x.xxX.xxx.xxX.xx"),
            Groove(kick="X.......X.......", rim=BACKBEAT, brush="x.xxX.xxx.xxX.xx"),
        ),
        bass=Part(
            ("bass", "bass", "pluck"),
            ("1---....5---....", "1---....5---..6-"),
            style="bass",
            register=40,
            level=-3,
        ),
        chords=(
            Part(
                ("pluck",),
                ("....x-......x-..", "....x-x-....x-x-"),
                style="strum",
                register=55,
                level=-4,
            ),
            Part(
                ("pluck", "piano"),
                ("x-x-x-x-x-x-x-x-", "xxxxxxxxxxxxxxxx"),
                style="arpeggio",
                register=62,
                level=-8,
            ),
        ),
        leads=(
            Part(
                ("bowed", "voice", "pluck", "reed"),
                ("x---x-x-x---x---", "x-x-x-x-x-x-x---", "x-------x-x-x---"),
                style="lead",
                register=69,
                level=-6,
            ),
        ),
        neighbours=("rock", "blues", "pop"),
    ),
    "disco": Genre(
        tempo=(108, 132),
        progressions=("i7 i7 iv7 iv7", "ii7 V7 Imaj7 vi7", "i7 bVII7 bVI7 V7", "i7 iv7 bVII7 bIII"),
        scale=DORIAN,
        grooves=(
            Groove(kick=FOUR, snare=BACKBEAT, open_hat=OFFBEATS),
            Groove(kick=FOUR, clap=BACKBEAT, hat="x.xxx.xxx.xxx.xx", open_hat=OFFBEATS),
            Groove(kick=FOUR, snare=BACKBEAT, clap=BACKBEAT, hat="xxxxxxxxxxxxxxxx"),
        ),
        bass=Part(
            ("bass", "synth_bass"),
            ("1.8.1.8.1.8.1.8.", "1.8.1.8.5.8.7.8.", "1..8..1.8..1..8."),
            style="bass",
            register=38,
            level=-4,
        ),
        chords=(
            Part(
                ("pluck",),
                ("x.xxx.xxx.xxx.xx", "..xx..xx..xx..xx"),
                style="block",
                register=62,
                level=-9,
            ),
            Part(
                ("bowed", "brass", "piano", "pad"), (WHOLE, "x--x--x-....x-x-", "x.....x...x.....")
            ),
        ),
        leads=(
            Part(
                ("voice", "bowed", "brass"),
                ("x---..x-x---....", "..x-x-x-x---x---"),
                style="lead",
                register=72,
                level=-6,
            ),
        ),
        neighbours=("pop", "hiphop", "rock"),
    ),
    "hiphop": Genre(
        tempo=(78, 106),
        swing=(0.54, 0.62),
        swing_steps=1,
        progressions=("i7 i7 i7 i7", "i7 iv7", "i7 bVI7", "ii7 V7", "i7 i7 bVI V7"),
        scale=MINOR,
        grooves=(
            Groove(kick="X.....x...x.....", snare=BACKBEAT, hat=EIGHTHS),
            Groove(kick="X..x......X..x..", snare=BACKBEAT, hat="x.x.x.xxx.x.x.xx"),
            Groove(kick="X.x....x..X.....", clap=BACKBEAT, hat="x.xxx.x.x.xxx.xx"),
        ),
        bass=Part(
            ("synth_bass", "synth_bass", "bass"),
            ("1-----1...1-----", "1--1......1--5..", "1---------------"),
            style="bass",
            register=34,
            level=-2,
        ),
        chords=(
            Part(("piano", "pluck", "organ"), ("x--x--x---......", "x-----x---x-....")),
            Part(("bowed", "pad", "brass"), (WHOLE, "x..x............", "........x.x.x...")),
        ),
        leads=(
            Part(
                ("rap",),
                ("x.xxx.x.x.xxx.x.", "xxx.x.xxxxx.x...", "x.x.xxx.x.x.xx.."),
                style="lead",
                register=48,
                level=-3,
            ),
        ),
        neighbours=("reggae", "disco", "pop"),
    ),
    "jazz": Genre(
        tempo=(112, 196),
        swing=(0.6, 0.68),
        progressions=(
            "ii7 V7 Imaj7 Imaj7",
            "Imaj7 vi7 ii7 V7",
            "iii7 VI7 ii7 V7",
            "i7 i7 iv7 V7",
            "I7 IV7 I7 I7 IV7 IV7 I7 VI7 ii7 V7 I7 V7",
        ),
        scale=DORIAN,
        grooves=(
            Groove(ride="x...x.x.x...x.x.", hat="....x.......x...", kick="o...o...o...o..."),
            Groove(ride="x...x.x.x...x.x.", snare="......o......o..", hat="....x.......x..."),
            Groove(ride="x...x...x...x...", brush="x...X.x.x...X.x.", hat="....x.......x..."),
        ),
        bass=Part(("pluck", "bass"), ("w---w---w---w---",), style="bass", register=42, level=-1),
        chords=(
            Part(
                ("piano", "piano", "pluck", "organ"),
                ("x-----x-........", "......x-......x-", "..x-......x-x-.."),
                style="block",
                register=60,
                level=-9,
            ),
        ),
        leads=(
            Part(
                ("brass", "brass", "reed", "piano"),
                ("x-x-x-x-x-x-x-x-", "..x-x-x-x---..x-", "x---..x-x-x-x-x-"),
                style="lead",
                register=68,
                level=-5,
            ),
        ),
        neighbours=("blues", "classical", "hiphop"),
    ),
    "metal": Genre(
        tempo=(150, 200),
        progressions=("i5 i5 bII5 i5", "i5 bVI5 bVII5 i5", "i5 i5 bIII5 bII5", "i5 bV5 i5 bII5"),
        scale=PHRYGIAN,
        grooves=(
            Groove(kick="xxxxxxxxxxxxxxxx", snare=BACKBEAT, ride=FOUR),
            Groove(kick="x.xxx.xxx.xxx.xx", snare=BACKBEAT, open_hat=FOUR),
            Groove(kick="x.x.x.x.x.x.x.x.", snare="..X...X...X...X.", hat="x.x.x.x.x.x.x.x."),
        ),
        bass=Part(
            ("bass",), ("1111111111111111", "1.111.111.111.11"), style="bass", register=35, level=-7
        ),
        chords=(
            Part(
                ("palm_mute",),
                ("1.1112111.111211", "1111111132111111", "1.111.111.113.2."),
                style="riff",
                register=40,
                level=-3,
            ),
            Part(
                ("power_chord",),
                (WHOLE, "x-------x---x---", "x-x-x-x-x-x-x-x-"),
                style="riff",
                register=42,
                level=-4,
            ),
        ),
        leads=(
            Part(
                ("distorted_lead", "distorted_lead", "voice"),
                ("xxxxxxxxxxxxxxxx", "x-xxx-xxx-xxx---", "x-------x---x---"),
                style="lead",
                register=72,
                level=-8,
            ),
        ),
        neighbours=("rock", "rock", "hiphop"),
    ),
    "pop": Genre(
        tempo=(92, 132),
        progressions=("I V vi IV", "vi IV I V", "I vi IV V", "IV V iii vi", "I IV vi V"),
        scale=MAJOR,
        grooves=(
            Groove(kick="X.......X.x.....", clap=BACKBEAT, snare=BACKBEAT, hat=EIGHTHS),
            Groove(kick="X..x..X...x.....", clap=BACKBEAT, shaker="xxxxxxxxxxxxxxxx"),
            Groove(kick="X.....x.X.....x.", clap=BACKBEAT, shaker="X.x.X.x.X.x.X.x."),
        ),
        bass=Part(
            ("synth_bass", "bass"),
            ("1-1-1-1-1-1-1-1-", "1-----1-1-------", "1--1--1-1--1--1-"),
            style="bass",
            register=38,
            level=-5,
        ),
        chords=(
            Part(("piano", "pluck", "organ"), ("x---x---x---x---", "x--x--x-x--x--x-")),
            Part(("pad", "bowed"), (WHOLE,), style="block", register=64, level=-11),
            Part(
                ("pluck", "piano"), ("x-x-x-x-x-x-x-x-",), style="arpeggio", register=67, level=-10
            ),
        ),
        leads=(
            Part(
                ("voice", "voice", "reed", "piano"),
                ("x-x---x-x---x-x-", "..x-x-x-x---....", "x---x---x-x-x---"),
                style="lead",
                register=68,
                level=-4,
            ),
        ),
        neighbours=("disco", "rock", "country"),
    ),
    "reggae": Genre(
        tempo=(66, 92),
        swing=(0.52, 0.62),
        progressions=("i7 iv7", "I IV", "I ii", "I V vi IV", "i7 bVII"),
        scale=MINOR,
        grooves=(
            Groove(kick="........X.......", rim="........X.......", hat=EIGHTHS),
            Groove(kick="........X.......", snare="........X.....o.", hat="x.xxx.x.x.xxx.x."),
            Groove(kick=FOUR, rim="........X.......", hat="..x...x...x...x."),
        ),
        bass=Part(
            ("bass", "synth_bass"),
            ("1-..3.5-....5.3.", "..1-1.3-5---....", "1---..1.5.5-3---"),
            style="bass",
            register=36,
            level=-1,
        ),
        chords=(
            Part(
                ("pluck", "piano"),
                ("..x...x...x...x.", "..xx..x...xx..x."),
                style="block",
                register=62,
                level=-6,
            ),
            Part(
                ("organ",),
                ("..xx..xx..xx..xx", ".xx..xx..xx..xx."),
                style="block",
                register=60,
                level=-9,
            ),
        ),
        leads=(
            Part(
                ("voice", "voice", "brass", "organ"),
                ("....x-x-x---....", "x---x-x---......", "..x-x-x-......x-"),
                style="lead",
                register=67,
                level=-6,
            ),
        ),
        neighbours=("hiphop", "pop", "blues"),
    ),
    "rock": Genre(
        tempo=(100, 144),
        progressions=("I bVII IV I", "I IV V IV", "i bVII bVI bVII", "I V IV IV", "vi IV I V"),
        scale=MIXOLYDIAN,
        grooves=(
            Groove(kick="X.x.....X.x.....", snare=BACKBEAT, hat=EIGHTHS),
            Groove(kick="X.......XX....x.", snare=BACKBEAT, open_hat="x...x...x...x..."),
            Groove(kick="X.....x.X.x.....", snare=BACKBEAT, ride=EIGHTHS),
        ),
        bass=Part(
            ("bass",),
            ("1-1-1-1-1-1-1-1-", "1-1-1-1-1-1-5-6-", "1-----1-1---5---"),
            style="bass",
            register=38,
            level=-6,
        ),
        chords=(
            Part(
                ("pluck", "organ", "pluck"),
                ("x---x-x---x-x-x-", "x-x-x-x-x-x-x-x-", "x---x---x---x-x-"),
                style="strum",
                register=57,
                level=-4,
            ),
            Part(
                ("power_chord",),
                ("x---..x-x-------", "x--x--x-----x-x-"),
                style="riff",
                register=45,
                level=-10,
            ),
        ),
        leads=(
            Part(
                ("voice", "distorted_lead", "voice"),
                ("x---x-x-x---....", "x-x-x-x-x-------", "..x-x---x-x-x---"),
                style="lead",
                register=69,
                level=-6,
            ),
        ),
        neighbours=("metal", "pop", "blues"),
    ),
}
