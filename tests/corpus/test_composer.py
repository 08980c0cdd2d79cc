"""The composer: the same arguments give the same samples, and the music follows its rules."""

import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from mgc_ray import RequestError
from mgc_ray.corpus.composer import (
    GENRES,
    _chord,
    _hits,
    artist_of,
    compose,
    draw_artist,
    song_of,
    synthesise,
)
from mgc_ray.corpus.genre_rules import FOUR, GENRE_RULES
from mgc_ray.corpus.instruments import SAMPLE_RATE


def digest(samples: np.ndarray) -> str:
    return hashlib.sha256(samples.tobytes()).hexdigest()


# --- samples ---


@pytest.mark.parametrize("genre", GENRES)
def test_a_track_is_bounded_finite_and_audible(genre: str) -> None:
    samples = synthesise(genre, 4, seed=2, seconds=3.0)
    assert samples.shape == (3 * SAMPLE_RATE,)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= 1
    assert np.sqrt(np.mean(samples**2)) > 10 ** (-40 / 20)


@pytest.mark.parametrize("seconds", [1 / SAMPLE_RATE, 0.05, 0.7])
def test_a_very_short_track_has_the_right_length(seconds: float) -> None:
    samples = synthesise("jazz", 0, seconds=seconds)
    assert len(samples) == round(seconds * SAMPLE_RATE)
    assert np.isfinite(samples).all()


def test_same_arguments_give_the_same_samples_whatever_was_synthesised_before() -> None:
    first = synthesise("rock", 5, seed=3, seconds=1.0)
    synthesise("rock", 6, seed=3, seconds=1.0)
    np.random.seed(1)  # global state must not matter
    np.testing.assert_array_equal(synthesise("rock", 5, seed=3, seconds=1.0), first)


def test_another_process_with_another_hash_seed_gives_the_same_samples() -> None:
    code = (
        "import hashlib; from mgc_ray.corpus.composer import synthesise;"
        "print(hashlib.sha256(synthesise('metal', 1, 5, 1.0).tobytes()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert run.stdout.strip() == digest(synthesise("metal", 1, 5, 1.0))


def test_seed_index_and_genre_change_the_samples() -> None:
    tracks = [
        synthesise("pop", 0, 0, 1.0),
        synthesise("pop", 0, 1, 1.0),
        synthesise("pop", 1, 0, 1.0),
        synthesise("rock", 0, 0, 1.0),
    ]
    assert len({digest(track) for track in tracks}) == len(tracks)


# --- artists ---


def test_three_tracks_in_a_row_share_an_artist() -> None:
    names = [artist_of("jazz", index) for index in range(15)]
    assert names[12] == "jazz artist 04"
    assert [names.count(name) for name in dict.fromkeys(names)] == [3] * 5
    assert [names.index(name) for name in dict.fromkeys(names)] == [0, 3, 6, 9, 12]


def test_artists_of_other_seeds_and_genres_differ() -> None:
    assert artist_of("jazz", 0, seed=7) == "jazz artist 00 of seed 7"
    assert len({artist_of(genre, 0) for genre in GENRES}) == len(GENRES)


def test_tracks_of_an_artist_share_its_sound_and_artists_differ() -> None:
    same = [draw_artist("blues", index, 0) for index in (0, 1, 2)]
    assert same[0] == same[1] == same[2]
    others = [draw_artist("blues", index, 0) for index in range(0, 30, 3)]
    assert len({artist.mix for artist in others}) == 10
    assert len({artist.timbre for artist in others}) == 10


# --- rules and rhythm ---


def test_patterns_and_chords_are_read_as_written() -> None:
    assert list(_hits("x-..X---5.")) == [(0, "x", 2), (4, "X", 4), (8, "5", 1)]
    assert _chord("bVII7") == (10, (0, 4, 7, 10))
    assert _chord("ii7") == (2, (0, 3, 7, 10))
    assert _chord("Imaj7") == (0, (0, 4, 7, 11))
    assert _chord("bII5") == (1, (0, 7, 12))


def test_four_on_the_floor_has_a_tempo_of_disco() -> None:
    low, high = GENRE_RULES["disco"].tempo
    measured = 0
    for index in range(0, 30, 3):
        rng = np.random.default_rng(index)
        song = song_of(draw_artist("disco", index, 0), rng)
        if song.grooves[0].kick != FOUR or song.grooves[1].kick != FOUR:
            continue  # an artist that borrows its drumming
        notes = compose(song, 30.0, rng)
        kicks = np.sort([note.start for note in notes if note.sound == "kick"])
        beat = np.median(np.diff(kicks))
        assert 60 / beat == pytest.approx(song.tempo, rel=0.02)
        assert low * 0.98 <= 60 / beat <= high * 1.02
        measured += 1
    assert measured >= 5


def test_the_beat_of_disco_can_be_measured_in_the_samples() -> None:
    low, high = GENRE_RULES["disco"].tempo
    hop = 256
    right = 0
    for index in range(0, 30, 3):
        samples = synthesise("disco", index, seed=1, seconds=8.0)
        frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::hop] * np.hanning(1024)
        loud = np.log1p(100 * np.abs(np.fft.rfft(frames, axis=1)))
        onset = np.maximum(np.diff(loud, axis=0), 0).sum(1)
        onset -= onset.mean()
        periodicity = np.correlate(onset, onset, "full")[len(onset) - 1 :]
        lags = np.arange(round(0.36 * SAMPLE_RATE / hop), round(0.7 * SAMPLE_RATE / hop))
        tempo = 60 * SAMPLE_RATE / hop / lags[np.argmax(periodicity[lags])]
        right += low * 0.97 <= tempo <= high * 1.03
    assert right >= 9  # one may lie in a break


def test_swing_delays_the_second_eighth_as_the_artist_plays_it() -> None:
    rng = np.random.default_rng(0)
    song = song_of(draw_artist("jazz", 0, 0), rng)
    beat = 4 * song.step
    rides = [note.start for note in compose(song, 30.0, rng) if note.sound in ("ride", "brush")]
    phases = (np.asarray(rides) - song.begin) % beat / beat
    late = phases[(phases > 0.25) & (phases < 0.9)]
    assert len(late) > 10
    assert np.median(late) == pytest.approx(song.artist.swing, abs=0.02)
    assert song.artist.swing >= 0.6


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: synthesise("polka", 0), "one that the corpus knows, but got 'polka': choose from"),
        (lambda: artist_of("polka", 0), "one that the corpus knows, but got 'polka'"),
        (lambda: synthesise("jazz", -1), "`index >= 0` must hold, but got -1: count tracks"),
        (lambda: synthesise("jazz", 0, seed=-3), "`seed >= 0` must hold, but got -3: give"),
        (lambda: synthesise("jazz", 0, seconds=0), "`seconds > 0` must hold, but got 0: give"),
        (lambda: synthesise("jazz", 0, seconds=float("nan")), "but got nan: give a track's"),
    ],
)
def test_a_bad_argument_is_refused_with_rule_value_and_remedy(call, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RequestError, match=re.escape(text)):
        call()
