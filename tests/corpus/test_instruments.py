"""Instruments and drums: the right pitch, bounded samples, an end in silence."""

import numpy as np
import pytest

from mgc_ray.corpus.instruments import DRUMS, INSTRUMENTS, SAMPLE_RATE, Timbre, play, strike

TUNED = sorted(set(INSTRUMENTS) - {"rap", "palm_mute"})  # speech has no pitch, a thud hardly one


@pytest.mark.parametrize("instrument", TUNED)
def test_a4_sounds_at_440_hertz(instrument: str) -> None:
    timbre = Timbre(vibrato=0.0, detune=0.0)
    note = play(instrument, 69, 2.0, timbre, np.random.default_rng(0))
    size = 1 << 19
    spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), size))
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    near = (frequencies > 415) & (frequencies < 466)  # G#4 .. A#4
    peak = frequencies[near][np.argmax(spectrum[near])]
    assert abs(1200 * np.log2(peak / 440)) < 4


@pytest.mark.parametrize("instrument", sorted(INSTRUMENTS))
@pytest.mark.parametrize("pitch", [34, 88])
def test_every_note_is_finite_with_a_peak_of_one_and_ends_in_silence(
    instrument: str, pitch: int
) -> None:
    note = play(instrument, pitch, 0.3, Timbre(brightness=1.0), np.random.default_rng(0))
    assert note.dtype == np.float32
    assert np.isfinite(note).all()
    assert 0.3 < np.abs(note).max() <= 1
    assert abs(note[-1]) < 1e-3


@pytest.mark.parametrize("drum", sorted(DRUMS))
def test_every_drum_is_short_and_ends_in_silence(drum: str) -> None:
    hit = strike(drum, Timbre(), np.random.default_rng(0))
    assert np.isfinite(hit).all()
    assert len(hit) < 1.5 * SAMPLE_RATE
    assert 0.3 < np.abs(hit).max() <= 1
    assert abs(hit[-1]) < 1e-3
