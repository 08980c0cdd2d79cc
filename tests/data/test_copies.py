"""Copies of a recording are found in whatever form they are, and no other song is taken for one."""

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import soundfile
import soxr

from mgc_ray.corpus.composer import GENRES, synthesise
from mgc_ray.corpus.instruments import SAMPLE_RATE
from mgc_ray.data import copies
from mgc_ray.data.audio import Waveform
from mgc_ray.data.copies import fingerprint, same_recordings
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.features.log_mel import log_mel_of

SECONDS = 10.0
SONGS = [(genre, index) for genre in GENRES for index in (0, 1)]


@cache
def song(genre: str, index: int) -> np.ndarray:
    samples: np.ndarray = synthesise(genre, index, seed=11, seconds=SECONDS)
    return samples


def coded(samples: np.ndarray, rate: int, form: str, subtype: str, level: float) -> Waveform:
    """Encoded and decoded again; `level` 1.0 is the lowest quality."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype, compression_level=level)
    file.seek(0)
    return Waveform(*soundfile.read(file, dtype="float32"))


def resampled(samples: np.ndarray, rate: int) -> Waveform:
    return Waveform(soxr.resample(samples, SAMPLE_RATE, rate), rate)


def after(samples: np.ndarray, seconds: float) -> np.ndarray:
    return samples[round(seconds * SAMPLE_RATE) :]


COPIES: dict[str, Callable[[np.ndarray], Waveform]] = {
    "MP3": lambda x: coded(x, SAMPLE_RATE, "MP3", "MPEG_LAYER_III", 0.5),
    "MP3 of the lowest quality": lambda x: coded(x, SAMPLE_RATE, "MP3", "MPEG_LAYER_III", 0.95),
    "OGG of the lowest quality": lambda x: coded(x, SAMPLE_RATE, "OGG", "VORBIS", 0.95),
    "half a second cut off": lambda x: Waveform(after(x, 0.5), SAMPLE_RATE),
    "cut between two frames": lambda x: Waveform(after(x, 0.523)[:-9_999], SAMPLE_RATE),
    "6 dB less": lambda x: Waveform(x / 2, SAMPLE_RATE),
    "6 dB more, clipped": lambda x: Waveform(np.clip(2 * x, -1, 1), SAMPLE_RATE),
    "8 kHz": lambda x: resampled(x, 8_000),
    "16 kHz": lambda x: resampled(x, 16_000),
    "48 kHz": lambda x: resampled(x, 48_000),
    "four seconds of it": lambda x: Waveform(after(x, 3.21)[: 4 * SAMPLE_RATE], SAMPLE_RATE),
    "all of it": lambda x: coded(
        resampled(after(x, 0.511) / 2, 44_100).samples, 44_100, "MP3", "MPEG_LAYER_III", 0.8
    ),
}


def pairs_of(fingerprints: dict[str, np.ndarray]) -> set[frozenset[str]]:
    """The sets of tracks that are one recording."""
    names = same_recordings(fingerprints, {path: f"content of {path}" for path in fingerprints})
    sets = (frozenset(p for p in names if names[p] == name) for name in names.values())
    return {tracks for tracks in sets if len(tracks) > 1}


def expected_pairs() -> set[frozenset[str]]:
    return {frozenset((f"{genre} {i}", f"copy of {genre} {i}")) for genre, i in SONGS}


@cache
def originals() -> dict[str, np.ndarray]:
    waveforms = {f"{g} {i}": Waveform(song(g, i), SAMPLE_RATE) for g, i in SONGS}
    return {name: fingerprint(DecodedTrack(w)) for name, w in waveforms.items()}


@pytest.mark.parametrize("kind", COPIES)
def test_every_copy_is_found_and_no_other_song_is_taken_for_one(kind: str) -> None:
    of_copies = {
        f"copy of {g} {i}": fingerprint(DecodedTrack(COPIES[kind](song(g, i)))) for g, i in SONGS
    }
    assert pairs_of(originals() | of_copies) == expected_pairs()


def test_copies_are_found_among_spectrograms() -> None:
    def array(waveform: Waveform) -> DecodedTrack:
        samples = waveform.resampled(SAMPLE_RATE)
        log_mel = log_mel_of(len(samples) / SAMPLE_RATE)
        return DecodedTrack(array=log_mel.transform(samples[None])[0])

    kinds = ("MP3", "6 dB less", "half a second cut off", "16 kHz")
    fingerprints = {}
    for (g, i), kind in zip(SONGS, kinds * 5, strict=True):
        fingerprints[f"{g} {i}"] = fingerprint(array(Waveform(song(g, i), SAMPLE_RATE)))
        fingerprints[f"copy of {g} {i}"] = fingerprint(array(COPIES[kind](song(g, i))))
    assert pairs_of(fingerprints) == expected_pairs()


def test_a_copy_of_a_copy_and_equal_content_are_one_recording() -> None:
    whole = song("jazz", 0)
    first, second = whole[: 7 * SAMPLE_RATE], whole[3 * SAMPLE_RATE :]
    fingerprints = {
        "other": fingerprint(DecodedTrack(Waveform(song("rock", 0), SAMPLE_RATE))),
        "whole": fingerprint(DecodedTrack(Waveform(whole, SAMPLE_RATE))),
        "first": fingerprint(DecodedTrack(Waveform(first, SAMPLE_RATE))),
        "second": fingerprint(DecodedTrack(Waveform(second, SAMPLE_RATE))),
        "short": np.zeros(0, np.uint32),
        "short copy": np.zeros(0, np.uint32),
    }
    contents = {"short": "0", "short copy": "0"}
    names = same_recordings(fingerprints, {p: contents.get(p, p) for p in fingerprints})
    assert names["first"] == names["second"] == names["whole"] != names["other"]
    assert names["short"] == names["short copy"] != names["other"]


@pytest.mark.parametrize(("shared", "are_copies"), [(2.0, False), (6.0, True)])
def test_most_of_a_song_is_a_copy_but_an_intro_is_none(shared: float, are_copies: bool) -> None:
    mixed = song("jazz", 0).copy()
    end = round(shared * SAMPLE_RATE)
    mixed[end:] = song("metal", 0)[end:]
    tracks = {"song": Waveform(song("jazz", 0), SAMPLE_RATE), "mix": Waveform(mixed, SAMPLE_RATE)}
    pairs = pairs_of({name: fingerprint(DecodedTrack(w)) for name, w in tracks.items()})
    assert bool(pairs) is are_copies


def test_silence_makes_no_copy() -> None:
    tracks = {}
    for genre in ("jazz", "metal"):
        samples = np.zeros(10 * SAMPLE_RATE, np.float32)
        samples[7 * SAMPLE_RATE :] = song(genre, 0)[: 3 * SAMPLE_RATE]
        tracks[genre] = fingerprint(DecodedTrack(Waveform(samples, SAMPLE_RATE)))
    assert (tracks["jazz"] == 0).sum() > 50
    assert not pairs_of(tracks)


def test_copies_are_found_where_only_some_codes_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_copies = {
        f"copy of {g} {i}": fingerprint(DecodedTrack(COPIES["MP3"](song(g, i)))) for g, i in SONGS
    }
    monkeypatch.setattr(copies, "_MOST_CODES", 1_000)  # of 3,800
    assert pairs_of(originals() | of_copies) == expected_pairs()


def test_a_code_has_a_bit_for_each_pair_of_bands_whose_difference_grew() -> None:
    # band 3 rises by one per frame, band 10 falls, all others stay the same
    array = np.full((25, 40), 7.0, np.float32)
    array[3] += np.arange(40)
    array[10] -= np.arange(40)
    grew = [2, 10]  # band 3 - band 2, band 11 - band 10
    codes = fingerprint(DecodedTrack(array=array))
    # 20 pairs of frames, smoothed over 6, compared with 6 later
    assert codes.tolist() == [sum(1 << bit for bit in grew)] * (20 - 5 - 6)


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.1])
def test_what_is_too_short_has_no_code(seconds: float) -> None:
    samples = song("jazz", 0)[: round(seconds * SAMPLE_RATE)]
    assert len(fingerprint(DecodedTrack(Waveform(samples, SAMPLE_RATE)))) == 0


@pytest.mark.parametrize("shape", [(24, 100), (128, 23), (1, 1)])
def test_an_array_that_is_too_small_has_no_code(shape: tuple[int, int]) -> None:
    array = np.random.default_rng(0).uniform(size=shape)
    assert len(fingerprint(DecodedTrack(array=array))) == 0


@pytest.mark.parametrize("rate", [1_000, 4_000, 11_025, 768_000])
def test_any_sample_rate_gives_about_eleven_codes_a_second(rate: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 10 * rate).astype(np.float32)
    codes = fingerprint(DecodedTrack(Waveform(samples, rate)))
    assert len(codes) == pytest.approx(10 / 0.0928 - 12, abs=2)


def test_no_track_at_all() -> None:
    assert same_recordings({}, {}) == {}
