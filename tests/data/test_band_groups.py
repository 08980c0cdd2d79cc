"""Named groups of bands: librosa's numbers, what they say of known sounds, and their order."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.band_groups import BandGroups, ordered_groups, tempo_lags
from mgc_ray.data.log_mel import LogMel
from mgc_ray.data.spectrogram import audio_features

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


def wav(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wav(tmp_path_factory.mktemp("music") / "a.wav", music(10))


@pytest.fixture(scope="module")
def chunks(track: Path) -> np.ndarray:
    return BandGroups(ALL).chunks(track)


def of_group(chunks: np.ndarray, name: str) -> np.ndarray:
    return chunks[:, BandGroups(ALL).groups[name]]


def chunks_of(path: Path, name: str, samples: np.ndarray) -> np.ndarray:
    """One group's bands of a waveform."""
    return BandGroups((name,)).chunks(wav(path, samples.astype(np.float32)))


def pieces(seconds: float) -> np.ndarray:
    """The chunks' samples, of which the rest of the track is no part."""
    samples = music(seconds)
    count = len(samples) // CHUNK
    return samples[: count * CHUNK].reshape(count, CHUNK)


# --- the same numbers as librosa ---


def test_log_mel_is_log_mels(track: Path, chunks: np.ndarray) -> None:
    np.testing.assert_array_equal(of_group(chunks, "log_mel"), LogMel().chunks(track))


def test_chroma_equals_librosas_with_the_tracks_tuning(chunks: np.ndarray) -> None:
    tuning = librosa.estimate_tuning(y=pieces(10).reshape(-1), sr=RATE, **STFT)
    assert tuning == pytest.approx(0.3, abs=0.05)
    expected = [
        librosa.feature.chroma_stft(y=y, sr=RATE, tuning=tuning, **STFT) for y in pieces(10)
    ]
    np.testing.assert_allclose(of_group(chunks, "chroma"), expected, rtol=0, atol=1e-5)


def test_a_long_tracks_tuning_is_that_of_its_middle(tmp_path: Path) -> None:
    # of 60 s, 20 chunks, 1,320,000 samples; thirty seconds in their middle begin at 329,250
    samples = music(60)
    samples[:320_000] = 0.9 * np.sin(2 * np.pi * 440 * np.arange(320_000) / RATE)
    middle, first = samples[329_250:990_750], samples[:661_500]
    tuning, wrong = (librosa.estimate_tuning(y=y, sr=RATE, **STFT) for y in (middle, first))
    assert abs(tuning - wrong) > 0.1
    chroma = chunks_of(tmp_path / "a.wav", "chroma", samples)
    expected = librosa.feature.chroma_stft(y=samples[:CHUNK], sr=RATE, tuning=tuning, **STFT)
    np.testing.assert_allclose(chroma[0], expected, rtol=0, atol=1e-5)


def test_contrast_equals_librosas(chunks: np.ndarray) -> None:
    expected = [librosa.feature.spectral_contrast(y=y, sr=RATE, **STFT) for y in pieces(10)]
    np.testing.assert_allclose(of_group(chunks, "contrast"), expected, rtol=0, atol=1e-3)


def test_mfcc_equals_librosas(chunks: np.ndarray) -> None:
    expected = [librosa.feature.mfcc(y=y, sr=RATE, n_mfcc=20, **STFT) for y in pieces(10)]
    np.testing.assert_allclose(of_group(chunks, "mfcc"), expected, rtol=0, atol=2e-3)


def test_the_tempogram_equals_librosas_of_the_whole_track(chunks: np.ndarray) -> None:
    onsets = librosa.onset.onset_strength(y=pieces(10).reshape(-1), sr=RATE, **STFT)
    whole = librosa.feature.tempogram(
        onset_envelope=onsets, sr=RATE, hop_length=256, win_length=768
    )
    lags = tempo_lags(LogMel())
    bands = np.stack([whole[a:b].max(axis=0) for a, b in pairwise(lags)])
    # a chunk is 66,000 / 256 = 257.8 frames, so the third begins within frame 515
    for i, start in enumerate((0, 257, 515)):
        np.testing.assert_allclose(
            of_group(chunks, "tempogram")[i], bands[:, start : start + 258], rtol=0, atol=1e-4
        )


# --- what they say of known sounds ---


def test_an_a_is_the_tenth_pitch_class(tmp_path: Path) -> None:
    t = np.arange(CHUNK) / RATE
    (chroma,) = chunks_of(tmp_path / "a.wav", "chroma", np.sin(2 * np.pi * 880 * t))
    assert set(chroma[:, 4:-4].argmax(axis=0)) == {9}  # C is 0
    assert chroma.max() == 1


def test_a_beat_is_in_the_band_of_its_tempo(tmp_path: Path) -> None:
    # 240 to 30 BPM are three octaves in 32 bands. 120 BPM is an octave below 240, at 32 / 3 =
    # 10.67: band 10; so is its lag of 60 / 120 * 22050 / 256 = 43.07 frames
    lags = tempo_lags(LogMel())
    assert (lags[0], lags[-1], len(lags)) == (22, 172, 33)  # 21.5 and 172.3 frames
    assert (np.diff(lags) > 0).all()
    assert lags[10] <= 43 < lags[11]
    samples = np.zeros(20 * RATE)
    for beat in np.arange(0, 20, 0.5):
        samples[int(beat * RATE) : int(beat * RATE) + 200] = 0.5
    tempogram = chunks_of(tmp_path / "a.wav", "tempogram", samples)
    assert tempogram.shape == (6, 32, 258)
    assert set(tempogram[2:4].argmax(axis=1).ravel()) == {10}
    assert 0.5 < tempogram[2:4, 10].min() < tempogram.max() <= 1


def test_tempo_is_heard_beyond_a_chunk(tmp_path: Path) -> None:
    # the same chunk after another beat: only the tempogram knows of what was before
    t = np.arange(3 * CHUNK) / RATE
    noise = np.random.default_rng(0).standard_normal(len(t))
    same = noise * np.exp(-40 * (t % 0.5))
    other = np.where(np.arange(len(t)) < CHUNK, noise * np.exp(-40 * (t % 0.37)), same)
    for name, equal in (("mfcc", True), ("contrast", True), ("tempogram", False)):
        one, two = (chunks_of(tmp_path / "a.wav", name, 0.3 * s)[1] for s in (same, other))
        assert np.array_equal(one, two) == equal


def test_a_tone_has_more_contrast_than_noise(tmp_path: Path) -> None:
    t = np.arange(CHUNK) / RATE
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, CHUNK)
    tone = np.sin(2 * np.pi * 1000 * t) + 0.01 * noise
    one, other = (chunks_of(tmp_path / "a.wav", "contrast", s)[0] for s in (tone, noise))
    # octaves end at 200, 400, 800, 1600 Hz: 1 kHz is in the fourth
    assert (one - other).mean(axis=1).argmax() == 3


def test_the_first_coefficient_is_the_mean_level(tmp_path: Path) -> None:
    # orthonormal: the sum of 128 bands over the root of 128
    samples = music(3)
    decibel = LogMel().transform(samples[:CHUNK])
    (mfcc,) = chunks_of(tmp_path / "a.wav", "mfcc", samples)
    np.testing.assert_allclose(mfcc[0], decibel.mean(axis=0) * np.sqrt(128), rtol=1e-4)


# --- interface ---


def test_groups_are_stacked_in_one_order() -> None:
    features = BandGroups(tuple(reversed(ALL)))
    assert features == BandGroups(ALL)
    assert features.groups == {
        "log_mel": slice(0, 128),
        "chroma": slice(128, 140),
        "contrast": slice(140, 147),
        "tempogram": slice(147, 179),
        "mfcc": slice(179, 199),
    }
    assert (features.bands, features.frames, features.dtype) == (199, 258, np.dtype("float32"))
    some = BandGroups(("tempogram", "log_mel"), LogMel(n_mels=40))
    assert some.groups == {"log_mel": slice(0, 40), "tempogram": slice(40, 72)}


def test_some_groups_are_the_same_as_among_all(track: Path, chunks: np.ndarray) -> None:
    some = BandGroups(("mfcc", "chroma"))
    expected = np.concatenate([of_group(chunks, "chroma"), of_group(chunks, "mfcc")], axis=1)
    np.testing.assert_array_equal(some.chunks(track), expected)


def test_a_track_is_cut_as_by_log_mel(track: Path, chunks: np.ndarray) -> None:
    features = BandGroups(ALL)
    assert (chunks.shape, chunks.dtype) == ((3, 199, 258), np.float32)
    assert features.inspect(track) == LogMel().inspect(track)
    assert features.inspect(track).chunks == 3


def test_a_short_track_is_repeated_up_to_a_chunk(tmp_path: Path) -> None:
    second = music(1)
    repeated = np.concatenate([second, second, second])[:CHUNK]
    short, whole = wav(tmp_path / "a.wav", second), wav(tmp_path / "b.wav", repeated)
    features = BandGroups(ALL)
    assert features.inspect(short).chunks == 1
    np.testing.assert_array_equal(features.chunks(short), features.chunks(whole))


def test_unusable_audio_is_told_as_by_log_mel(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", music(1)[:1023])
    for look in (BandGroups(ALL).inspect, BandGroups(ALL).chunks):
        with pytest.raises(UnusableTrackError, match="shorter than one FFT window"):
            look(path)


@pytest.mark.filterwarnings("error")
def test_silence_inside_gives_numbers_and_no_warning(tmp_path: Path) -> None:
    samples = np.zeros(40 * RATE, np.float32)
    samples[: 4 * RATE] = music(4)
    chunks = BandGroups(ALL).chunks(wav(tmp_path / "a.wav", samples))
    assert np.isfinite(chunks).all()
    assert not of_group(chunks, "chroma")[5].any()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["onsets"], "must be one of log_mel, chroma, contrast, tempogram, mfcc, but 'onsets' is"),
        (
            ["mfcc", "mfcc"],
            r"each once, but \['mfcc', 'mfcc'\] are asked for: name some of log_mel",
        ),
        ([], r"one group or more, each once, but \[\] are asked for"),
        ("mfcc", "but 'm' is asked for"),
    ],
)
def test_groups_that_are_none_are_refused(names: list[str], told: str) -> None:
    for make in (ordered_groups, BandGroups):
        with pytest.raises(RequestError, match=told):
            make(names)


def test_without_librosa_other_groups_are_refused(
    monkeypatch: pytest.MonkeyPatch, track: Path
) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    told = r"computed by librosa, but here: .*librosa.* Install it \(pip install 'librosa>=0.11'"
    for name in ALL[1:]:
        with pytest.raises(RequestError, match=told):
            BandGroups((name,)).chunks(track)
    with pytest.raises(RequestError, match=told):  # before any work
        audio_features(["log_mel", "mfcc"])
    assert audio_features(["log_mel"]) == LogMel()


def test_librosa_is_loaded_for_other_groups_alone() -> None:
    program = (
        "import sys\n"
        "from mgc_ray.data.spectrogram import audio_features\n"
        "audio_features(['log_mel'])\n"
        "print('librosa' in sys.modules)\n"
        "audio_features(['log_mel', 'chroma'])\n"
        "print('librosa' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\nTrue\n"
