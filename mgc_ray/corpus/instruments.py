"""Sounds of the built-in corpus: an instrument a function, and the mix of a recording.

Every note is a mono float32 array [samples] at 22,050 Hz with a peak of about 1: `play` finds the
instrument by its name, `strike` the drum. `master` turns the sum of the notes into a recording.
Pitches are MIDI numbers (69 is A4, 440 Hz; fractions are allowed), lengths are seconds, frequencies
hertz. A `Timbre` holds what one artist's instruments have in common, a `Mix` what one artist's
recordings do. Randomness comes only from the generator that is passed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.signal import butter, lfilter, sosfilt

SAMPLE_RATE = 22050
TABLE_SIZE = 8192  # points of one period: nearest-neighbour look-up stays below -60 dB of error

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Timbre:
    """One artist's habits of sound: brightness and drive 0..1, detune and vibrato in cents."""

    brightness: float = 0.5
    drive: float = 0.5
    attack: float = 1.0  # factor on every attack time
    decay: float = 1.0  # factor on every decay time
    detune: float = 6.0
    vibrato: float = 15.0
    drum_pitch: float = 1.0  # factor on the frequencies of all drums
    drum_decay: float = 1.0  # factor on the decay times of all drums
    vowel: int = 0


def frequency_of(pitch: float) -> float:
    """Frequency in hertz of a MIDI pitch, equal temperament."""
    return float(440.0 * 2.0 ** ((pitch - 69.0) / 12.0))


def _samples(seconds: float) -> int:
    return max(64, round(seconds * SAMPLE_RATE))


def _time(seconds: float) -> Wave:
    return np.asarray(np.arange(_samples(seconds)) / SAMPLE_RATE, dtype=np.float32)


def _decay(seconds: float, time_constant: float) -> Wave:
    return np.asarray(np.exp(-_time(seconds) / max(time_constant, 1e-3)), dtype=np.float32)


def _gate(wave: Wave, attack: float, release: float = 0.03) -> Wave:
    """Fade `attack` seconds in and `release` seconds out, so that no note clicks."""
    rise = min(_samples(attack), len(wave) // 2)
    fall = min(_samples(release), len(wave) // 2)
    wave[:rise] *= np.linspace(0, 1, rise, dtype=np.float32)
    wave[len(wave) - fall :] *= np.linspace(1, 0, fall, dtype=np.float32)
    return wave


def _peak(wave: NDArray[np.floating]) -> Wave:
    return (wave / max(float(np.abs(wave).max()), 1e-9)).astype(np.float32)


@lru_cache(maxsize=512)  # 32 KiB each
def _table(amplitudes: tuple[float, ...], highest: int) -> Wave:
    """One period of a sum of harmonics [TABLE_SIZE], harmonics above `highest` left out."""
    spectrum = np.zeros(TABLE_SIZE // 2 + 1, dtype=np.complex128)
    count = min(len(amplitudes), highest)
    # Quadratic phases (Schroeder 1970) spread the energy over the period: more loudness a peak.
    order = np.arange(1, count + 1)
    spectrum[1 : count + 1] = np.asarray(amplitudes[:count]) * np.exp(1j * np.pi * order**2 / count)
    return np.fft.irfft(spectrum * TABLE_SIZE / 2, TABLE_SIZE).astype(np.float32)


def _oscillate(
    pitch: float,
    seconds: float,
    amplitudes: Sequence[float],
    vibrato: float = 0.0,
    rate: float = 5.5,
) -> Wave:
    """A steady tone with these harmonic amplitudes; `vibrato` in cents, growing over 0.3 s."""
    frequency = frequency_of(pitch)
    highest = max(1, int(0.45 * SAMPLE_RATE / frequency))
    time = _time(seconds)
    turns = frequency * time.astype(np.float64)
    if vibrato > 0:
        depth = frequency * (2 ** (vibrato / 1200) - 1) / (2 * np.pi * rate)
        turns -= depth * np.minimum(time / 0.3, 1) * np.cos(2 * np.pi * rate * time)
    index = (turns * TABLE_SIZE).astype(np.int64) & (TABLE_SIZE - 1)
    return np.asarray(_table(tuple(amplitudes), highest)[index])


@lru_cache(maxsize=256)
def _rolloff(count: int, exponent: float, odd_only: bool = False) -> tuple[float, ...]:
    return tuple(
        0.0 if odd_only and k % 2 == 0 else float(k**-exponent) for k in range(1, count + 1)
    )


def pluck(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Plucked string: a burst of noise in a damped delay line (Karplus & Strong 1983).

    The loop's two averages delay by `damping` and `fraction` samples, which tunes the string
    (Jaffe & Smith 1983) to well under a cent in the guitar's range.
    """
    period = SAMPLE_RATE / frequency_of(pitch)
    damping = 0.5 - 0.35 * timbre.brightness
    delay = int(period - damping)
    fraction = period - damping - delay
    loop = np.convolve([1 - damping, damping], [1 - fraction, fraction])
    gain = 0.001 ** (period / SAMPLE_RATE / (2.5 * timbre.decay))  # -60 dB after 2.5 s
    feedback = np.zeros(delay + 3, dtype=np.float32)
    feedback[0], feedback[delay:] = 1.0, -gain * loop
    burst = np.zeros(_samples(seconds), dtype=np.float32)
    noise = rng.uniform(-1, 1, delay).astype(np.float32)
    softness = 0.75 * (1 - timbre.brightness)
    noise = lfilter([1 - softness], [1, -softness], noise)
    position = max(1, delay // 5)  # plucked at a fifth of the string: every fifth harmonic is weak
    noise = noise - np.roll(noise, position)
    burst[: min(delay, len(burst))] = (noise - noise.mean())[: len(burst)]
    return _gate(_peak(lfilter(np.ones(1, dtype=np.float32), feedback, burst)), 0.001)


def piano(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Struck string: bright at first, the upper harmonics gone after a third of a second."""
    dull = _oscillate(pitch, seconds, _rolloff(8, 2.2))
    bright = _oscillate(pitch + timbre.detune / 400, seconds, _rolloff(24, 1.5 - timbre.brightness))
    body = dull * _decay(seconds, 0.7 * timbre.decay)
    return _gate(_peak(body + 0.4 * bright * _decay(seconds, 0.16 * timbre.decay)), 0.003)


def organ(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Drawbar organ: nine sines (16', 5 1/3', 8', 4', 2 2/3', 2', 1 3/5', 1 1/3', 1'), a rotor."""
    upper = timbre.brightness
    drawbars = (
        0.8,
        0.6,
        1.0,
        0.5,
        0.3 + upper * 0.3,
        0.2 + upper * 0.4,
        upper / 3,
        upper / 3,
        upper,
    )
    harmonics = (1, 3, 2, 4, 6, 8, 10, 12, 16)  # of the sub-octave, which is the 16' bar
    amplitudes = np.zeros(16)
    amplitudes[np.asarray(harmonics) - 1] = drawbars
    wave = _oscillate(pitch - 12, seconds, tuple(amplitudes), timbre.vibrato / 2, 6.3)
    rotor = 1 + 0.012 * timbre.vibrato * np.sin(2 * np.pi * 6.3 * _time(seconds))
    return _gate(_peak(wave * rotor), 0.008)


def brass(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Brass: the louder the brighter (Risset & Mathews 1969), so the attack sweeps upwards."""
    dull = _oscillate(pitch, seconds, _rolloff(6, 1.6), timbre.vibrato)
    bright = _oscillate(pitch, seconds, _rolloff(24, 1.0 - 0.5 * timbre.brightness), timbre.vibrato)
    time = _time(seconds)
    rise = 1 - np.exp(-time / (0.05 * timbre.attack))
    blow = rise * (0.65 + 0.35 * np.exp(-time / 0.25))
    return _gate(_peak(dull * rise + 0.8 * bright * blow**3), 0.01, 0.05)


def bowed(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Bowed strings: two detuned saws with a slow attack and vibrato."""
    saw = _rolloff(30, 1.6 - 0.7 * timbre.brightness)
    spread = timbre.detune / 100
    first = _oscillate(pitch - spread / 2, seconds, saw, timbre.vibrato, 5.1)
    second = _oscillate(pitch + spread / 2, seconds, saw, timbre.vibrato, 5.9)
    return _gate(_peak(first + second), min(0.09 * timbre.attack, 0.4 * seconds), 0.08)


def pad(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Synthesiser pad: three detuned voices that open and close slowly."""
    voices = [
        _oscillate(
            pitch + shift * timbre.detune / 50, seconds, _rolloff(16, 1.8 - timbre.brightness)
        )
        for shift in (-1, 0, 1)
    ]
    return _gate(
        _peak(sum(voices[1:], voices[0])), min(0.25, 0.4 * seconds), min(0.25, 0.4 * seconds)
    )


def reed(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Reed (clarinet, harmonica, accordion by brightness): odd harmonics and a quick attack."""
    odd = _oscillate(pitch, seconds, _rolloff(21, 1.2, True), timbre.vibrato)
    full = _oscillate(pitch, seconds, _rolloff(16, 1.0), timbre.vibrato)
    return _gate(_peak((1 - timbre.brightness) * odd + timbre.brightness * full), 0.03, 0.04)


VOWELS = (
    (700, 1200, 2600),
    (400, 2000, 2600),
    (300, 2300, 3000),
    (450, 850, 2500),
    (330, 900, 2300),
)


@lru_cache(maxsize=2048)
def _formants(pitch: int, vowel: int) -> tuple[float, ...]:
    """Amplitudes of a voice's harmonics: a falling source times three resonances."""
    frequencies = frequency_of(pitch) * np.arange(1, 33)
    gain = sum(1 / (1 + ((frequencies - f) / (90 + 0.06 * f)) ** 2) for f in VOWELS[vowel])
    return tuple(((gain + 0.03) / np.arange(1, 33) ** 0.5).tolist())


def voice(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Sung note: harmonics under a vowel's formants, gliding to a second vowel, with vibrato."""
    first = int(rng.integers(len(VOWELS)))
    second = (first + 1 + timbre.vowel) % len(VOWELS)
    start = _oscillate(pitch, seconds, _formants(round(pitch), first), 1.5 * timbre.vibrato)
    end = _oscillate(pitch, seconds, _formants(round(pitch), second), 1.5 * timbre.vibrato)
    glide = np.linspace(0, 1, len(start), dtype=np.float32)
    return _gate(_peak(start * (1 - glide) + end * glide), 0.04, 0.06)


def rap(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Spoken syllable: a hiss, then a vowel that falls in pitch and is gone within 0.18 s."""
    vowel = _formants(round(pitch), int(rng.integers(len(VOWELS))))
    sound = _oscillate(pitch + rng.normal(0, 1.5), seconds, vowel, 60.0, 2.0)
    sound *= _decay(seconds, 0.08)
    hiss = rng.normal(0, 0.3, len(sound)) * _decay(seconds, 0.012)
    return _gate(_peak(_peak(sound) + hiss), 0.004)


def bass(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Bass guitar: few harmonics, the upper ones short."""
    dull = _oscillate(pitch, seconds, _rolloff(5, 1.5)) * _decay(seconds, 0.6 * timbre.decay)
    bright = _oscillate(pitch, seconds, _rolloff(20, 1.3 - 0.6 * timbre.brightness))
    return _gate(_peak(dull + 0.5 * bright * _decay(seconds, 0.12 * timbre.decay)), 0.004)


def synth_bass(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Synthesiser bass: held sub with a short saw on top."""
    sub = _oscillate(pitch, seconds, (1.0, 0.3, 0.1))
    saw = _oscillate(pitch, seconds, _rolloff(30, 1.2)) * _decay(seconds, 0.1)
    return _gate(_peak(sub + timbre.brightness * saw), 0.004)


def _distorted(pitch: float, seconds: float, timbre: Timbre, ring: float) -> Wave:
    saw = _rolloff(14, 1.1)
    string = sum(
        (_oscillate(pitch + step, seconds, saw) for step in (7.0, 12.0)),
        _oscillate(pitch, seconds, saw),
    )
    driven = np.tanh((3 + 12 * timbre.drive) * string * _decay(seconds, ring))
    cabinet = _lowpass(2500 + 2500 * timbre.brightness)  # a guitar loudspeaker passes no treble
    return _gate(_peak(sosfilt(cabinet, driven.astype(np.float32))), 0.003)


def power_chord(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Distorted guitar: root, fifth and octave through a saturating amplifier (waveshaping)."""
    return _distorted(pitch, seconds, timbre, 1.2)


def palm_mute(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """Distorted guitar damped by the palm: a tight thud of a power chord."""
    return _distorted(pitch, min(seconds, 0.2), timbre, 0.05)


def distorted_lead(pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """One distorted string with vibrato: a solo guitar."""
    string = _oscillate(pitch, seconds, _rolloff(14, 1.0), 2 * timbre.vibrato) * _decay(
        seconds, 1.0
    )
    return _gate(_peak(np.tanh((2 + 6 * timbre.drive) * string)), 0.01)


@lru_cache(maxsize=64)
def _lowpass(cutoff: float) -> NDArray[np.float32]:
    sos = butter(2, cutoff, "low", fs=SAMPLE_RATE, output="sos")
    return np.asarray(sos, dtype=np.float32)


@lru_cache(maxsize=64)
def _band(low: float, high: float) -> NDArray[np.float32]:
    sos = butter(2, (low, min(high, 10500)), "band", fs=SAMPLE_RATE, output="sos")
    return np.asarray(sos, dtype=np.float32)


def _noise(seconds: float, low: float, high: float, decay: float, rng: np.random.Generator) -> Wave:
    noise = rng.standard_normal(_samples(seconds), dtype=np.float32)
    return _peak(sosfilt(_band(low, high), noise) * _decay(seconds, decay))


def _sweep(seconds: float, high: float, low: float, fall: float, decay: float) -> Wave:
    """Sine that falls from `high` to `low` hertz with time constant `fall`."""
    time = _time(seconds)
    turns = low * time + (high - low) * fall * (1 - np.exp(-time / fall))
    return np.asarray(np.sin(2 * np.pi * turns) * _decay(seconds, decay), dtype=np.float32)


def strike(drum: str, timbre: Timbre, rng: np.random.Generator) -> Wave:
    """One hit of `drum` (a key of DRUMS), by sine sweeps and filtered noise."""
    return _gate(_peak(DRUMS[drum](timbre.drum_pitch, timbre.drum_decay, rng)), 0.0005, 0.02)


def _kick(tune: float, ring: float, rng: np.random.Generator) -> Wave:
    thud = _sweep(0.35 * ring, 180 * tune, 50 * tune, 0.03, 0.11 * ring)
    thud[:220] += 0.4 * _noise(220 / SAMPLE_RATE, 1500, 6000, 0.003, rng)
    return thud


def _snare(tune: float, ring: float, rng: np.random.Generator) -> Wave:
    wires = _noise(0.3 * ring, 1500 * tune, 9000, 0.07 * ring, rng)
    return 0.6 * _sweep(0.3 * ring, 330 * tune, 185 * tune, 0.02, 0.06 * ring) + wires


def _clap(tune: float, ring: float, rng: np.random.Generator) -> Wave:
    wave = _noise(0.25 * ring, 900 * tune, 3500 * tune, 0.06 * ring, rng)
    for delay in (0.011, 0.023):  # several hands, not quite together
        wave[_samples(delay) :] += wave[: len(wave) - _samples(delay)]
    return wave


def _tom(tune: float, ring: float, rng: np.random.Generator) -> Wave:
    return _sweep(0.4 * ring, 190 * tune, 110 * tune, 0.05, 0.14 * ring)


def _ride(tune: float, ring: float, rng: np.random.Generator) -> Wave:
    time = _time(0.6 * ring)
    partials = tune * np.array([2650, 3480, 4210, 5370, 6440, 7720], dtype=np.float32)
    ping = np.sin(2 * np.pi * partials[:, None] * time).sum(0) / 6 * _decay(0.6 * ring, 0.16 * ring)
    wash = _noise(0.6 * ring, 5000, 10500, 0.1 * ring, rng)
    return np.asarray(ping + 0.5 * wash, dtype=np.float32)


DRUMS: dict[str, Callable[[float, float, np.random.Generator], Wave]] = {
    "kick": _kick,
    "snare": _snare,
    "clap": _clap,
    "tom": _tom,
    "ride": _ride,
    "rim": lambda tune, ring, rng: _sweep(0.06, 1900 * tune, 1600 * tune, 0.01, 0.012),
    "hat": lambda tune, ring, rng: _noise(0.09, 6000 * tune, 10500, 0.02 * ring, rng),
    "open_hat": lambda tune, ring, rng: _noise(0.35 * ring, 5500 * tune, 10500, 0.12 * ring, rng),
    "brush": lambda tune, ring, rng: _gate(
        _noise(0.22, 2000 * tune, 8000, 0.09 * ring, rng), 0.04, 0.05
    ),
    "shaker": lambda tune, ring, rng: _gate(_noise(0.09, 4500 * tune, 10000, 0.04, rng), 0.02),
    "crash": lambda tune, ring, rng: _noise(1.4, 3000 * tune, 10500, 0.45 * ring, rng),
}

INSTRUMENTS: dict[str, Callable[[float, float, Timbre, np.random.Generator], Wave]] = {
    function.__name__: function
    for function in (
        pluck,
        piano,
        organ,
        brass,
        bowed,
        pad,
        reed,
        voice,
        rap,
        bass,
        synth_bass,
        power_chord,
        palm_mute,
        distorted_lead,
    )
}


def play(
    instrument: str, pitch: float, seconds: float, timbre: Timbre, rng: np.random.Generator
) -> Wave:
    """One note of `instrument` (a key of INSTRUMENTS), peak 1."""
    return INSTRUMENTS[instrument](pitch, seconds, timbre, rng)


MIX_SPREAD = 0.6  # decibels, standard deviation of a recording's equaliser


@dataclass(frozen=True)
class Mix:
    """The sound of an artist's recordings, after all playing is done."""

    curve: tuple[float, ...]  # equaliser gains in decibels at MIX_BANDS
    low_cut: float  # hertz
    high_cut: float
    noise: float  # decibels relative to the music
    room: float  # seconds until the reverberation is 60 dB down
    wet: float  # its amplitude relative to the direct sound
    compression: float  # 0 none .. 1 a constant level
    loudness: float  # decibels relative to full scale, root mean square


MIX_BANDS = (60, 150, 300, 600, 1200, 2400, 4800, 9600)  # hertz


def draw_mix(rng: np.random.Generator) -> Mix:
    """Draw a recording's sound; the same distribution for all genres, on purpose."""
    octaves = np.log2(np.asarray(MIX_BANDS) / 800)
    curve = rng.normal(0, MIX_SPREAD, len(MIX_BANDS)) + rng.normal(0, MIX_SPREAD / 2) * octaves
    return Mix(
        curve=tuple(curve.tolist()),
        low_cut=float(np.exp(rng.uniform(np.log(25), np.log(70)))),
        high_cut=float(np.exp(rng.uniform(np.log(7500), np.log(11000)))),
        noise=float(rng.uniform(-80, -50)),
        room=float(rng.uniform(0.1, 0.9)),
        wet=float(rng.uniform(0.02, 0.2)),
        compression=float(rng.uniform(0, 0.6)),
        loudness=float(rng.uniform(-23, -12)),
    )


def master(dry: Wave, mix: Mix, rng: np.random.Generator) -> Wave:
    """Room, equaliser, compressor, noise and loudness of a mix, on [samples]."""
    size = scipy.fft.next_fast_len(len(dry) + SAMPLE_RATE // 2, real=True)
    tail = np.arange(int(min(mix.room, 1.5) * SAMPLE_RATE) + 1, dtype=np.float32) / SAMPLE_RATE
    echo = rng.standard_normal(len(tail), dtype=np.float32) * np.exp(-6.9 * tail / mix.room)
    echo *= mix.wet / np.sqrt((echo**2).sum() + 1e-9)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE) + 1.0
    gain = np.interp(np.log(frequencies), np.log(MIX_BANDS), mix.curve)
    gain -= 10 * np.log10(1 + (mix.low_cut / frequencies) ** 4)
    gain -= 10 * np.log10(1 + (frequencies / mix.high_cut) ** 12)
    response = (10 ** (gain / 20)).astype(np.float32) * (1 + scipy.fft.rfft(echo, size))
    wet = scipy.fft.irfft(scipy.fft.rfft(dry, size) * response, size)[: len(dry)]
    envelope = lfilter([0.002], [1, -0.998], np.abs(wet)) + 0.02 * np.abs(wet).max() + 1e-6
    wet = wet * envelope**-mix.compression
    hiss = rng.standard_normal(len(wet), dtype=np.float32)
    level = np.sqrt(np.mean(wet**2)) + 1e-9
    wet = wet / level + 10 ** (mix.noise / 20) * hiss
    # tanh is the limiter: it bounds the peaks that the wanted loudness would push past 1.
    return np.asarray(np.tanh(10 ** (mix.loudness / 20) * wet), dtype=np.float32)
