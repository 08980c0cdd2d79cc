"""The built-in music: ten genres, written out as rules and synthesised.

It stands in for GTZAN where that cannot be had: ten genres of the same names, tracks of 30 s, mono,
22,050 Hz. A genre is an entry of `GENRE_RULES`: tempo, swing, drum grids, bass lines, chord
progressions, scales, instruments. An artist (three tracks each) draws habits from that entry,
borrows some from a neighbouring genre, and adds a sound of its own: equalisation, band limit,
noise, room and loudness, so that a track's mean spectrum alone says too little about the genre. A
track is one excerpt of one song: rules -> Artist -> Song -> notes -> waveform.

Waveforms are float32 [samples] in -1..1, times are seconds, tempi beats (quarter notes) per minute,
levels decibels, pitches MIDI numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import TypeVar

import numpy as np

from mgc_ray import RequestError
from mgc_ray.corpus.genre_rules import GENRE_RULES, MAJOR, Genre, Groove, Part
from mgc_ray.corpus.instruments import (
    SAMPLE_RATE,
    Mix,
    Timbre,
    Wave,
    draw_mix,
    master,
    play,
    strike,
)

T = TypeVar("T")

EXTRA_SEED = 2**31  # of `extra_track`; the seeds of corpora end below, so none has its artists
VERSION = 2  # of the samples: raise it whenever the same arguments give other music
TRACKS_PER_ARTIST = 3
STEPS = 16  # sixteenth notes per bar
BARS_PER_SECTION = 4

GENRES: tuple[str, ...] = tuple(sorted(GENRE_RULES))

BORROW = 0.03  # chance that an artist takes one kind of part (instruments, say) from a neighbour
CROSSOVER = 0.02  # chance that a single track takes its groove from a neighbour

SECTIONS = {
    "verse": {"drums", "bass", "lead", "chords"},
    "chorus": {"drums", "bass", "lead", "chords", "more chords"},
    "break": {"bass", "chords", "more chords"},
    "drum break": {"drums", "bass"},
}
GAINS = {"X": 1.0, "x": 0.7, "o": 0.3}  # amplitudes of a pattern's marks
DRUM_LEVELS = {  # decibels; a drum not named here is at -10
    "kick": 0.0,
    "snare": -2.0,
    "clap": -3.0,
    "tom": -3.0,
    "rim": -4.0,
    "ride": -4.0,
    "brush": -6.0,
}


@dataclass(frozen=True)
class Player:
    """A part as an artist plays it."""

    part: Part
    instrument: str
    level: float


@dataclass(frozen=True)
class Artist:
    """The habits that an artist's tracks share."""

    name: str
    rules: Genre
    tempo: float
    swing: float
    key: int
    grooves: tuple[Groove, Groove]
    progressions: tuple[str, ...]
    band: tuple[tuple[str, Player], ...]  # (role in SECTIONS, player)
    drum_level: float
    timbre: Timbre
    mix: Mix


@dataclass(frozen=True)
class Seat:
    """A player in one song, with the patterns of verse and chorus."""

    role: str
    player: Player
    verse: str
    chorus: str


@dataclass(frozen=True)
class Song:
    """One song, and where the excerpt of it lies."""

    artist: Artist
    tempo: float
    key: int
    chords: tuple[str, ...]  # one Roman numeral per bar
    form: tuple[str, ...]  # sections of four bars, over and over
    grooves: tuple[Groove, Groove]  # of verse and chorus
    seats: tuple[Seat, ...]
    begin: float  # seconds, where the first bar lies: 0 or before the excerpt's beginning
    first_bar: int  # of the form

    @property
    def step(self) -> float:
        """Seconds per sixteenth note."""
        return 15.0 / self.tempo


@dataclass(frozen=True)
class Note:
    """One sound: `sound` is an instrument or a drum."""

    sound: str
    start: float  # seconds from the excerpt's beginning, before which it may lie
    seconds: float  # 0 for drums, which ring as long as they do
    pitch: float  # 0 for drums
    gain: float  # amplitude
    drum: bool = False


def artist_of(genre: str, index: int, seed: int = 0) -> str:
    """Name of the artist of a track; corpora of different seeds have different artists."""
    check_arguments(genre, index, seed)
    name = f"{genre} artist {index // TRACKS_PER_ARTIST:02d}"
    return f"{name} of seed {seed}" if seed else name


def synthesise(genre: str, index: int, seed: int = 0, seconds: float = 30.0) -> Wave:
    """Track number `index` of `genre`: float32 [seconds x 22,050], |x| <= 1.

    The samples depend on the arguments alone. Raises RequestError for a genre not in GENRES, for
    `index` or `seed` below 0 and for `seconds` of 0 or less.
    """
    check_arguments(genre, index, seed, seconds)
    number = GENRES.index(genre)
    artist = draw_artist(genre, index, seed)
    rng = np.random.default_rng(np.random.SeedSequence((seed, number, index, 1)))
    notes = compose(song_of(artist, rng), seconds, rng)
    return master(_render(notes, artist.timbre, seconds, rng), artist.mix, rng)


def check_arguments(genre: str, index: int = 0, seed: int = 0, seconds: float = 1.0) -> None:
    if genre not in GENRE_RULES:
        raise RequestError(
            f"the genre must be one that the corpus knows, but got {genre!r}: "
            f"choose from {', '.join(GENRES)}"
        )
    if index < 0:
        raise RequestError(f"`index >= 0` must hold, but got {index}: count tracks from 0")
    if seed < 0:
        raise RequestError(f"`seed >= 0` must hold, but got {seed}: give a whole number from 0 up")
    if not 0 < seconds < float("inf"):
        raise RequestError(
            f"`seconds > 0` must hold, but got {seconds}: give a track's length, such as 30"
        )


def draw_artist(genre: str, index: int, seed: int) -> Artist:
    """Draw the artist of a track from the genre's rules and its neighbours'."""
    name = artist_of(genre, index, seed)
    entropy = (seed, GENRES.index(genre), index // TRACKS_PER_ARTIST, 0)
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    rules = GENRE_RULES[genre]
    other = GENRE_RULES[_choose(rules.neighbours, rng)]
    # What is borrowed is the instrument, which then plays this genre's pattern, or the drumming.
    bass, lead, *chords = (
        _player(mine, theirs if rng.random() < BORROW else mine, rng)
        for mine, theirs in (
            (rules.bass, other.bass),
            (_choose(rules.leads, rng), _choose(other.leads, rng)),
            (rules.chords[0], _choose(other.chords, rng)),
            *((part, part) for part in rules.chords[1:]),
        )
    )
    grooves = other.grooves if rng.random() < BORROW / 2 else rules.grooves
    return Artist(
        name=name,
        rules=rules,
        tempo=float(rng.uniform(*rules.tempo)),
        swing=float(rng.uniform(*rules.swing)),
        key=int(rng.integers(12)),
        grooves=(_choose(grooves, rng), _choose(grooves, rng)),
        progressions=tuple(_choose(rules.progressions, rng) for _ in range(2)),
        band=(
            ("bass", bass),
            ("lead", lead),
            ("chords", chords[0]),
            *(("more chords", player) for player in chords[1:]),
        ),
        drum_level=float(rng.normal(-2, 2)),
        timbre=Timbre(
            brightness=float(rng.uniform(0.25, 0.75)),
            drive=float(rng.uniform(0.2, 1)),
            attack=float(rng.uniform(0.7, 1.5)),
            decay=float(rng.uniform(0.5, 1.6)),
            detune=float(rng.uniform(2, 15)),
            vibrato=float(rng.uniform(4, 30)),
            drum_pitch=float(rng.uniform(0.85, 1.2)),
            drum_decay=float(rng.uniform(0.6, 1.5)),
            vowel=int(rng.integers(4)),
        ),
        mix=draw_mix(rng),
    )


def _choose(options: tuple[T, ...], rng: np.random.Generator) -> T:
    return options[int(rng.integers(len(options)))]


def _player(part: Part, sound: Part, rng: np.random.Generator) -> Player:
    return Player(part, _choose(sound.instruments, rng), part.level + float(rng.normal(0, 2)))


@cache
def _chord(name: str) -> tuple[int, tuple[int, ...]]:
    """Root (semitones above the key) and intervals of a Roman numeral such as bVII7 or ii7."""
    flat = name.startswith("b")
    numeral = name.lstrip("b").rstrip("5maj7")
    suffix = name.lstrip("b")[len(numeral) :]
    root = MAJOR[("i", "ii", "iii", "iv", "v", "vi", "vii").index(numeral.lower())] - flat
    triad = (0, 3, 7) if numeral.islower() else (0, 4, 7)
    return root % 12, {"": triad, "5": (0, 7, 12), "7": (*triad, 10), "maj7": (*triad, 11)}[suffix]


def _hits(pattern: str) -> Iterator[tuple[int, str, int]]:
    """(step, mark, length in steps) of every note of a pattern; `-` lengthens the one before."""
    for step, mark in enumerate(pattern):
        if mark not in ".-":
            held = len(pattern[step + 1 :]) - len(pattern[step + 1 :].lstrip("-"))
            yield step, mark, 1 + held


def _near(pitch: int, register: int) -> int:
    """The octave of `pitch` that is nearest to `register`."""
    return pitch + 12 * round((register - pitch) / 12)


def song_of(artist: Artist, rng: np.random.Generator) -> Song:
    """A new song of `artist`, and where in it the excerpt begins."""
    rules = artist.rules
    tempo = float(np.clip(artist.tempo * rng.normal(1, 0.03), *rules.tempo))
    grooves = artist.grooves
    if rng.random() < CROSSOVER:
        borrowed = _choose(GENRE_RULES[_choose(rules.neighbours, rng)].grooves, rng)
        grooves = (borrowed, borrowed)
    breaks = ("break", "drum break") if grooves[0].kick else ("break",)
    return Song(
        artist=artist,
        tempo=tempo,
        key=(artist.key + int(rng.choice((0, 0, 2, 5, 7, 9)))) % 12,
        chords=tuple(_choose(artist.progressions, rng).split()),
        form=("verse", "chorus", "verse", "chorus", _choose(breaks, rng), "chorus"),
        grooves=grooves,
        seats=tuple(
            Seat(
                role, player, _choose(player.part.patterns, rng), _choose(player.part.patterns, rng)
            )
            for role, player in artist.band
        ),
        begin=-float(rng.uniform(0, 1)) * STEPS * 15 / tempo,
        first_bar=int(rng.integers(6 * BARS_PER_SECTION)),
    )


def compose(song: Song, seconds: float, rng: np.random.Generator) -> list[Note]:
    """Notes of the song's excerpt of this length, in no order; some may begin before it."""
    bars = int(np.ceil((seconds - song.begin) / (STEPS * song.step)))
    rules = song.artist.rules
    registers = [seat.player.part.register for seat in song.seats]
    tunes = [_tune(song.key, rules.scale, register, rng) for register in registers]
    notes: list[Note] = []
    for bar in range(bars):
        place = song.first_bar + bar
        section = song.form[place // BARS_PER_SECTION % len(song.form)]
        of_section = place % BARS_PER_SECTION
        chord = song.chords[place % len(song.chords)]
        swell = _amplitude(rules.swell * np.sin(2 * np.pi * bar / 5))
        if "drums" in SECTIONS[section]:
            notes += _drum_bar(song, bar, section, of_section, rng)
        for seat, tune in zip(song.seats, tunes, strict=True):
            if seat.role in SECTIONS[section]:
                pattern = seat.chorus if section == "chorus" else seat.verse
                notes += _bar_of(song, seat.player, pattern, bar, chord, swell, tune, rng)
    return notes


def _amplitude(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def _start(song: Song, bar: int, position: float, rng: np.random.Generator) -> float:
    """Seconds from the excerpt's beginning to a sixteenth of a bar: swung, and not quite exact."""
    rules = song.artist.rules
    half = rules.swing_steps
    pair, within = divmod(position, 2 * half)
    swing = song.artist.swing
    second = max(0.0, within / half - 1)  # how far into the pair's second half
    warped = 2 * half * (swing * min(within / half, 1) + (1 - swing) * second)
    start = song.begin + (bar * STEPS + pair * 2 * half + warped) * song.step
    start += rules.rubato * np.sin(2 * np.pi * start / 3.1)
    return float(start + rng.normal(0, 0.004))  # 4 ms: what good players stray


def _bar_of(
    song: Song,
    player: Player,
    pattern: str,
    bar: int,
    chord: str,
    swell: float,
    tune: Iterator[int],
    rng: np.random.Generator,
) -> list[Note]:
    """One bar of one player."""
    part = player.part
    notes: list[Note] = []
    for position, mark, length in _hits(pattern):
        pitches = _pitches(song, part, mark, position, chord, tune, rng)
        start = _start(song, bar, position, rng)
        held = max(0.06, (length - 0.1) * song.step)
        gain = _amplitude(player.level) * GAINS.get(mark, 0.8) * swell / len(pitches) ** 0.5
        spread = 0.014 if part.style == "strum" else 0.0
        notes += [
            Note(player.instrument, start + order * spread, held, pitch, gain)
            for order, pitch in enumerate(pitches)
        ]
    return notes


def _pitches(
    song: Song,
    part: Part,
    mark: str,
    position: int,
    chord: str,
    tune: Iterator[int],
    rng: np.random.Generator,
) -> list[int]:
    """What a part plays at one hit over a chord, as its style says."""
    root, intervals = _chord(chord)
    root += song.key
    if part.style == "lead":
        return [next(tune)]
    if part.style == "bass":
        return [_bass_pitch(mark, root, intervals, part.register, rng)]
    if part.style == "riff":
        scale = song.artist.rules.scale
        degree = int(mark) - 1 if mark.isdigit() else 0
        return [_near(root, part.register) + scale[degree % len(scale)]]
    pitches = sorted(_near(root + interval, part.register) for interval in intervals)
    if part.style == "arpeggio":
        return [pitches[(position * 5 // 2) % len(pitches)]]
    return pitches


def _drum_bar(
    song: Song, bar: int, section: str, of_section: int, rng: np.random.Generator
) -> list[Note]:
    """One bar of drums; a section may open with a crash and end in a fill of toms or snare."""
    groove = song.grooves[section == "chorus"]
    grids = {field.name: getattr(groove, field.name) for field in fields(groove)}
    if groove.kick and of_section == BARS_PER_SECTION - 1 and rng.random() < 0.6:
        fill = int(rng.choice((8, 12)))
        grids = {drum: grid[:fill] for drum, grid in grids.items()}
        grids["tom" if rng.random() < 0.5 else "snare"] = "." * fill + "x" * (STEPS - fill)
    if groove.kick and of_section == 0 and rng.random() < 0.4:
        grids["crash"] = "x"
    return [
        Note(
            drum,
            _start(song, bar, position, rng),
            0.0,
            0.0,
            _amplitude(song.artist.drum_level + DRUM_LEVELS.get(drum, -10.0))
            * GAINS[mark]
            * float(rng.uniform(0.85, 1)),
            drum=True,
        )
        for drum, grid in grids.items()
        for position, mark, _ in _hits(grid)
    ]


def _tune(
    key: int, scale: tuple[int, ...], register: int, rng: np.random.Generator
) -> Iterator[int]:
    """An endless walk along the scale, drawn back to the register the further it has gone."""
    ladder = [key + note + 12 * octave for octave in range(-1, 9) for note in scale]
    here = int(np.argmin(np.abs(np.asarray(ladder) - register)))
    while True:
        move = round(float(rng.normal((register - ladder[here]) / 8, 1.6)))
        here = int(np.clip(here + move, 0, len(ladder) - 1))
        yield ladder[here]


def _bass_pitch(
    mark: str, root: int, intervals: tuple[int, ...], register: int, rng: np.random.Generator
) -> int:
    low = _near(root, register)
    if mark == "w":
        return low + int(rng.choice((*intervals, 2, -1, 9)))
    third = intervals[1] if intervals[1] < 5 else 0
    steps = {"1": 0, "3": third, "5": 7, "6": 9, "7": 10, "8": 12}
    return low + steps.get(mark, 0)


def _render(notes: list[Note], timbre: Timbre, seconds: float, rng: np.random.Generator) -> Wave:
    """Add every note's waveform; equal notes are synthesised once. Returns [samples]."""
    out = np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)
    sounds: dict[tuple[str, float, float], Wave] = {}
    for note in notes:
        length = round(note.seconds, 2)
        wave_of = (note.sound, note.pitch, length)
        if wave_of not in sounds:
            sounds[wave_of] = (
                strike(note.sound, timbre, rng)
                if note.drum
                else play(note.sound, note.pitch, length, timbre, rng)
            )
        sound = sounds[wave_of]
        start = round(note.start * SAMPLE_RATE)
        skip = max(0, -start)
        stop = min(len(out), start + len(sound))
        if stop > max(start, 0):
            out[start + skip : stop] += note.gain * sound[skip : stop - start]
    return out
