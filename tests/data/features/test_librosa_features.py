"""Chroma, contrast, tempogram and MFCC: librosa's numbers, and what they show of known sounds."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mgc_ray.config import CHUNK_SECONDS, DatasetConfig
from mgc_ray.data.audio import Waveform
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.features import FeatureSet, audio_features
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.data.features.tempogram import lag_edges

RATE = 22050
CHUNK = 66_000
ALL = ("log_mel", "chroma", "contrast", "tempogram", "mfcc")
STFT = {"n_fft": 1024, "hop_length": 256}


def music(seconds: float) -> np.ndarray:
    """Plucked notes 30 cents above 440 Hz's scale, a beat and noise, float32."""
    random = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE)) / RATE
    semitones = np.array([0, 3, 7, 12, 10])[(t / 0.4).astype(int) % 5] + 0.3
    notes = np.sin(2 * np.pi * 440 * 2 ** (semitones / 12) * t) * np.exp(-4 * (t % 0.4))
    beat = random.standard_normal(len(t)) * np.exp(-40 * (t % 0.55))
    noise = 0.01 * random.standard_normal(len(t))
    return (0.3 * notes + 0.1 * beat + noise).astype(np.float32)


def set_of(*names: str) -> FeatureSet:
    return audio_features(DatasetConfig(features=names))


def columns_of(samples: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    waveform = Waveform(samples.astype(np.float32), RATE)
    return set_of(*names).of(DecodedTrack(waveform)).columns


def chunks_of(name: str, samples: np.ndarray) -> np.ndarray:
    """One feature of a waveform."""
    return columns_of(samples, name)[name]


def pieces(seconds: float) -> np.ndarray:
    """The samples of the chunks, without the rest of the track that fills no chunk."""
    samples = music(seconds)
    count = len(samples) // CHUNK
    return samples[: count * CHUNK].reshape(count, CHUNK)


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    """All features of ten seconds: three chunks and a rest."""
    return columns_of(music(10), *ALL)


# --- the same numbers as librosa ---


def test_chroma_equals_librosas_with_the_tuning_of_the_track(
    columns: dict[str, np.ndarray],
) -> None:
    import librosa

    tuning = librosa.estimate_tuning(y=pieces(10).reshape(-1), sr=RATE, **STFT)
    assert tuning == pytest.approx(0.3, abs=0.05)
    expected = [
        librosa.feature.chroma_stft(y=y, sr=RATE, tuning=tuning, **STFT) for y in pieces(10)
    ]
    np.testing.assert_allclose(columns["chroma"], expected, rtol=0, atol=1e-5)


def test_the_tuning_of_a_long_track_is_that_of_its_middle() -> None:
    import librosa

    # of 60 s, 20 chunks, 1,320,000 samples; thirty seconds in their middle begin at 329,250
    samples = music(60)
    samples[:320_000] = 0.9 * np.sin(2 * np.pi * 440 * np.arange(320_000) / RATE)
    middle, first = samples[329_250:990_750], samples[:661_500]
    tuning, wrong = (librosa.estimate_tuning(y=y, sr=RATE, **STFT) for y in (middle, first))
    assert abs(tuning - wrong) > 0.1
    chroma = chunks_of("chroma", samples)
    expected = librosa.feature.chroma_stft(y=samples[:CHUNK], sr=RATE, tuning=tuning, **STFT)
    np.testing.assert_allclose(chroma[0], expected, rtol=0, atol=1e-5)


def test_contrast_equals_librosas(columns: dict[str, np.ndarray]) -> None:
    import librosa

    expected = [librosa.feature.spectral_contrast(y=y, sr=RATE, **STFT) for y in pieces(10)]
    np.testing.assert_allclose(columns["contrast"], expected, rtol=0, atol=1e-3)


def test_mfcc_equals_librosas(columns: dict[str, np.ndarray]) -> None:
    import librosa

    expected = [librosa.feature.mfcc(y=y, sr=RATE, n_mfcc=20, **STFT) for y in pieces(10)]
    np.testing.assert_allclose(columns["mfcc"], expected, rtol=0, atol=2e-3)


def test_the_tempogram_equals_librosas_of_the_whole_track(columns: dict[str, np.ndarray]) -> None:
    import librosa

    onsets = librosa.onset.onset_strength(y=pieces(10).reshape(-1), sr=RATE, **STFT)
    whole = librosa.feature.tempogram(
        onset_envelope=onsets, sr=RATE, hop_length=256, win_length=768
    )
    lags = lag_edges(LogMel())
    bands = np.stack([whole[a:b].max(axis=0) for a, b in pairwise(lags)])
    # a chunk is 66,000 / 256 = 257.8 frames, so the third begins within frame 515
    for i, start in enumerate((0, 257, 515)):
        np.testing.assert_allclose(
            columns["tempogram"][i], bands[:, start : start + 258], rtol=0, atol=1e-4
        )


# --- known sounds ---


def test_an_a_is_the_tenth_pitch_class() -> None:
    t = np.arange(CHUNK) / RATE
    (chroma,) = chunks_of("chroma", np.sin(2 * np.pi * 880 * t))
    assert set(chroma[:, 4:-4].argmax(axis=0)) == {9}  # C is 0
    assert chroma.max() == 1


def test_a_beat_is_in_the_band_of_its_tempo() -> None:
    # 240 to 30 BPM are three octaves in 32 bands. 120 BPM is an octave below 240, at 32 / 3 =
    # 10.67: band 10; so is its lag of 60 / 120 * 22050 / 256 = 43.07 frames
    lags = lag_edges(LogMel())
    assert (lags[0], lags[-1], len(lags)) == (22, 172, 33)  # 21.5 and 172.3 frames
    assert (np.diff(lags) > 0).all()
    assert lags[10] <= 43 < lags[11]
    samples = np.zeros(20 * RATE)
    for beat in np.arange(0, 20, 0.5):
        samples[int(beat * RATE) : int(beat * RATE) + 200] = 0.5
    tempogram = chunks_of("tempogram", samples)
    assert tempogram.shape == (6, 32, 258)
    assert set(tempogram[2:4].argmax(axis=1).ravel()) == {10}
    assert 0.5 < tempogram[2:4, 10].min() < tempogram.max() <= 1


def test_only_the_tempogram_depends_on_the_chunk_before() -> None:
    t = np.arange(3 * CHUNK) / RATE
    noise = np.random.default_rng(0).standard_normal(len(t))
    same = noise * np.exp(-40 * (t % 0.5))
    other = np.where(np.arange(len(t)) < CHUNK, noise * np.exp(-40 * (t % 0.37)), same)
    for name, equal in (("mfcc", True), ("contrast", True), ("tempogram", False)):
        one, two = (chunks_of(name, 0.3 * samples)[1] for samples in (same, other))
        assert np.array_equal(one, two) == equal


def test_a_tone_has_more_contrast_than_noise() -> None:
    t = np.arange(CHUNK) / RATE
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, CHUNK)
    tone = np.sin(2 * np.pi * 1000 * t) + 0.01 * noise
    one, other = (chunks_of("contrast", samples)[0] for samples in (tone, noise))
    # octaves end at 200, 400, 800, 1600 Hz: 1 kHz is in the fourth
    assert (one - other).mean(axis=1).argmax() == 3


def test_the_first_coefficient_is_the_mean_level() -> None:
    # orthonormal: the sum of 128 bands over the root of 128
    samples = music(3)
    decibel = LogMel().transform(samples[:CHUNK])
    (mfcc,) = chunks_of("mfcc", samples)
    np.testing.assert_allclose(mfcc[0], decibel.mean(axis=0) * np.sqrt(128), rtol=1e-4)


@pytest.mark.filterwarnings("error")
def test_a_silent_passage_gives_finite_values_and_no_warning() -> None:
    samples = np.zeros(40 * RATE, np.float32)
    samples[: 4 * RATE] = music(4)
    columns = columns_of(samples, *ALL)
    assert all(np.isfinite(chunks).all() for chunks in columns.values())
    assert not columns["chroma"][5].any()


# --- how they relate to log_mel ---


def test_a_short_track_is_repeated_up_to_one_chunk() -> None:
    second = music(1)
    repeated = np.concatenate([second, second, second])[:CHUNK]
    short, whole = columns_of(second, *ALL), columns_of(repeated, *ALL)
    for name in ALL:
        assert len(short[name]) == 1
        np.testing.assert_array_equal(short[name], whole[name])


def test_chunks_of_another_length_are_those_of_log_mel() -> None:
    features = audio_features(DatasetConfig(features=ALL, chunk_seconds=2)).columns
    assert {feature.frames for feature in features.values()} == {173}
    assert [f.bands for f in features.values()] == [128, 12, 7, 20, 32]
    assert list(features) == ["log_mel", "chroma", "contrast", "mfcc", "tempogram"]
    assert round(CHUNK_SECONDS * RATE) == CHUNK


def test_librosa_is_imported_only_where_its_features_are_computed(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "import numpy as np\n"
        "from mgc_ray.config import DatasetConfig\n"
        "from mgc_ray.data.audio import Waveform\n"
        "from mgc_ray.data.decoded import DecodedTrack\n"
        "from mgc_ray.data.features import audio_features\n"
        "waveform = Waveform(np.random.default_rng(0).normal(size=2000).astype('f4'), 22050)\n"
        "for names in (['log_mel'], ['log_mel', 'chroma']):\n"
        "    features = audio_features(DatasetConfig(features=names))\n"
        "    print('librosa' in sys.modules)\n"
        "    features.of(DecodedTrack(waveform))\n"
        "    print('librosa' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["False", "False", "False", "True"]
