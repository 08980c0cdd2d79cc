"""The built-in corpus: same arguments same samples, music as its rules say, files as promised."""

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from mgc_ray.data.corpus import write_corpus
from mgc_ray.data.genre_rules import FOUR, GENRE_RULES
from mgc_ray.data.instruments import DRUMS, INSTRUMENTS, SAMPLE_RATE, Timbre, play, strike
from mgc_ray.data.synth import (
    GENRES,
    STEPS,
    _chord,
    _hits,
    artist_of,
    compose,
    draw_artist,
    song_of,
    synthesise,
)


def digest(samples: np.ndarray) -> str:
    return hashlib.sha256(samples.tobytes()).hexdigest()


def files_of(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


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
def test_a_very_short_track_has_its_length(seconds: float) -> None:
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
        "import hashlib; from mgc_ray.data.synth import synthesise;"
        "print(hashlib.sha256(synthesise('metal', 1, 5, 1.0).tobytes()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert run.stdout.strip() == digest(synthesise("metal", 1, 5, 1.0))


def test_seed_index_and_genre_each_give_other_samples() -> None:
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


def test_artists_of_other_seeds_and_genres_are_others() -> None:
    assert artist_of("jazz", 0, seed=7) == "jazz artist 00 of seed 7"
    assert len({artist_of(genre, 0) for genre in GENRES}) == len(GENRES)


def test_tracks_of_an_artist_share_its_sound_and_artists_differ() -> None:
    same = [draw_artist("blues", index, 0) for index in (0, 1, 2)]
    assert same[0] == same[1] == same[2]
    others = [draw_artist("blues", index, 0) for index in range(0, 30, 3)]
    assert len({artist.mix for artist in others}) == 10
    assert len({artist.timbre for artist in others}) == 10


# --- rules and rhythm ---


def test_every_pattern_is_one_bar_of_known_sounds() -> None:
    for genre, rules in GENRE_RULES.items():
        assert set(rules.neighbours) <= set(GENRES) - {genre}
        for groove in rules.grooves:
            for drum, grid in vars(groove).items():
                assert drum in DRUMS
                assert len(grid) in (0, STEPS), (genre, drum)
        for part in (rules.bass, *rules.chords, *rules.leads):
            assert set(part.instruments) <= set(INSTRUMENTS), genre
            assert {len(pattern) for pattern in part.patterns} == {STEPS}, (genre, part)
        for progression in rules.progressions:
            for chord in progression.split():
                _chord(chord)


def test_patterns_and_chords_are_read_as_written() -> None:
    assert list(_hits("x-..X---5.")) == [(0, "x", 2), (4, "X", 4), (8, "5", 1)]
    assert _chord("bVII7") == (10, (0, 4, 7, 10))
    assert _chord("ii7") == (2, (0, 3, 7, 10))
    assert _chord("Imaj7") == (0, (0, 4, 7, 11))
    assert _chord("bII5") == (1, (0, 7, 12))


def test_four_on_the_floor_keeps_the_tempo_that_disco_asks_for() -> None:
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


def test_swing_puts_the_second_eighth_where_the_artist_plays_it() -> None:
    rng = np.random.default_rng(0)
    song = song_of(draw_artist("jazz", 0, 0), rng)
    beat = 4 * song.step
    rides = [note.start for note in compose(song, 30.0, rng) if note.sound in ("ride", "brush")]
    phases = (np.asarray(rides) - song.begin) % beat / beat
    late = phases[(phases > 0.25) & (phases < 0.9)]
    assert len(late) > 10
    assert np.median(late) == pytest.approx(song.artist.swing, abs=0.02)
    assert song.artist.swing >= 0.6


# --- sounds ---

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


# --- files ---


def test_a_corpus_has_a_folder_a_genre_and_a_table_of_its_tracks(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    table = write_corpus(
        tmp_path / "corpus", 4, 1, 0.5, workers=1, progress=lambda *at: calls.append(at)
    )
    assert table == tmp_path / "corpus" / "tracks.csv"
    assert calls == [(done, 40) for done in range(1, 41)]
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert rows[3] == {
        "path": "blues/blues.00003.wav",
        "genre": "blues",
        "track_id": "blues.00003",
        "artist": "blues artist 01 of seed 1",
    }
    assert json.loads((table.parent / "corpus.json").read_text())["seconds"] == 0.5
    written = {p.relative_to(table.parent).as_posix() for p in table.parent.rglob("*.*")}
    assert written == {row["path"] for row in rows} | {"tracks.csv", "corpus.json"}
    with wave.open(str(table.parent / rows[3]["path"])) as file:
        assert file.getparams()[:4] == (1, 2, SAMPLE_RATE, SAMPLE_RATE // 2)
        samples = np.frombuffer(file.readframes(-1), dtype="<i2") / 32767
    np.testing.assert_allclose(samples, synthesise("blues", 3, 1, 0.5), atol=1 / 32767)


def test_two_processes_write_the_bytes_that_one_does(tmp_path: Path) -> None:
    write_corpus(tmp_path / "one", 1, 3, 0.5, workers=1)
    write_corpus(tmp_path / "two", 1, 3, 0.5, workers=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_an_interrupted_corpus_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def stop_at_seven(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "a", 1, 0, 0.5, workers=1, progress=stop_at_seven)
    assert (tmp_path / "a" / "corpus.json").exists()
    assert not (tmp_path / "a" / "tracks.csv").exists()
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.wav")}
    assert len(finished) == 7
    broken = tmp_path / "a" / "blues" / "blues.00000.wav"
    broken.write_bytes(b"RIFF")  # what a full disk leaves

    calls: list[tuple[int, int]] = []
    write_corpus(tmp_path / "a", 1, 0, 0.5, workers=1, progress=lambda *at: calls.append(at))
    assert calls == [(6, 10), (7, 10), (8, 10), (9, 10), (10, 10)]
    kept = {path: path.stat().st_mtime_ns for path in finished if path != broken}
    assert kept == {path: time for path, time in finished.items() if path != broken}
    write_corpus(tmp_path / "b", 1, 0, 0.5, workers=1)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_folder_with_another_corpus_is_refused_with_both_settings(tmp_path: Path) -> None:
    write_corpus(tmp_path, 1, 0, 0.1, workers=1)
    before = files_of(tmp_path)
    wanted = r'"seed": 0.*"tracks_per_genre": 1.*"seed": 4.*"tracks_per_genre": 2.*another folder'
    with pytest.raises(ValueError, match=wanted):
        write_corpus(tmp_path, 2, 4, 0.1, workers=1)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: synthesise("polka", 0), "one that the corpus knows, but got 'polka': choose from"),
        (lambda: artist_of("polka", 0), "one that the corpus knows, but got 'polka'"),
        (lambda: synthesise("jazz", -1), "`index >= 0` must hold, but got -1: count tracks"),
        (lambda: synthesise("jazz", 0, seed=-3), "`seed >= 0` must hold, but got -3: give"),
        (lambda: synthesise("jazz", 0, seconds=0), "`seconds > 0` must hold, but got 0: give"),
        (lambda: synthesise("jazz", 0, seconds=float("nan")), "but got nan: give a track's"),
        (lambda: write_corpus(Path("x"), 0), "`tracks_per_genre >= 1` must hold, but got 0: ask"),
        (lambda: write_corpus(Path("x"), 1, workers=0), "`workers >= 1` must hold, but got 0: lea"),
        (lambda: write_corpus(Path("x"), 1, seconds=-1), "`seconds > 0` must hold, but got -1"),
    ],
)
def test_a_bad_argument_is_refused_with_rule_value_and_remedy(call, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=re.escape(text)):
        call()
    assert not Path("x").exists()


def test_nothing_slow_is_imported() -> None:
    code = "import sys, mgc_ray.synth; print({'torch', 'ray', 'librosa'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
