"""dB log-mel spectrograms: librosa's numbers, and how a track is cut into chunks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mgc_ray.data.audio import UnusableTrackError, Waveform, read_waveform
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.features import FeatureSet, TrackFeatures
from mgc_ray.data.features.log_mel import LogMel, mel_filters

RATE = 22050
CHUNK = 66_000


def computed(path: Path, feature: LogMel | None = None) -> TrackFeatures:
    """The features of a file; chunks of 66,000 samples at 22,050 Hz."""
    return FeatureSet({"log_mel": feature or LogMel()}).compute(path)


def chunks_of(path: Path) -> np.ndarray:
    return computed(path).columns["log_mel"]


def by_librosa(samples: np.ndarray, features: LogMel) -> np.ndarray:
    import librosa

    mel = librosa.feature.melspectrogram(
        y=samples,
        sr=features.sample_rate,
        n_fft=features.n_fft,
        hop_length=features.hop_length,
        n_mels=features.n_mels,
    )
    return librosa.power_to_db(mel)


def signal(kind: str) -> np.ndarray:
    """One chunk of samples at 22,050 Hz."""
    t = np.arange(CHUNK) / RATE
    random = np.random.default_rng(1)
    sines = sum(np.sin(2 * np.pi * hz * t) / (i + 1) for i, hz in enumerate((82.4, 440, 3000)))
    plucks = np.exp(-8 * (t % 0.5)) * np.sin(2 * np.pi * 220 * t)
    noise = random.standard_normal(CHUNK)
    samples = {
        "sines": 0.3 * sines,
        "noise": 0.1 * noise,
        "decays": plucks,
        "quiet passage": np.where((t > 1) & (t < 2), 1e-6, 1.0) * (0.3 * sines + 0.05 * noise),
        "digital silence inside": np.where(t > 2, 0.0, 0.5 * plucks),
        "click": np.where(np.arange(CHUNK) == 30_000, 1.0, 0.0),
        "very quiet": 1e-4 * noise,
        "mixture": 0.3 * sines + 0.3 * plucks + 0.01 * noise,
    }[kind]
    return samples.astype(np.float32)


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


def wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


# --- the same numbers as librosa ---


@pytest.mark.parametrize(
    "kind",
    [
        "sines",
        "noise",
        "decays",
        "quiet passage",
        "digital silence inside",
        "click",
        "very quiet",
        "mixture",
    ],
)
def test_generated_signals_equal_librosas(kind: str) -> None:
    features = LogMel()
    samples = signal(kind)
    np.testing.assert_allclose(
        features.transform(samples), by_librosa(samples, features), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize(
    "features",
    [
        LogMel(n_fft=2048, hop_length=512),
        LogMel(n_mels=40),
        LogMel(sample_rate=16_000, n_fft=512, hop_length=160, n_mels=64),
    ],
)
def test_other_settings_equal_librosas(features: LogMel) -> None:
    samples = signal("mixture")
    np.testing.assert_allclose(
        features.transform(samples), by_librosa(samples, features), rtol=0, atol=1e-3
    )


@pytest.mark.filterwarnings("ignore:Empty filters")
def test_bands_narrower_than_a_bin_are_silent_as_in_librosa() -> None:
    features = LogMel(n_fft=64, hop_length=64)
    # 33 bins for 128 bands, so that even of four bands side by side all can lie between two bins
    silent = mel_filters(RATE, 64, 128).max(axis=1) == 0
    assert silent.reshape(-1, 4).all(axis=1).any()
    samples = signal("mixture")
    np.testing.assert_allclose(
        features.transform(samples), by_librosa(samples, features), rtol=0, atol=1e-3
    )


def test_several_waveforms_are_transformed_separately() -> None:
    # their levels differ, so their loudest values and what is raised to 80 dB below them do too
    samples = np.stack([signal("decays"), signal("very quiet"), signal("click")])
    before = samples.copy()
    expected = [LogMel().transform(one) for one in samples]
    np.testing.assert_array_equal(LogMel().transform(samples), np.stack(expected))
    np.testing.assert_array_equal(LogMel().transform(samples[:, None])[:, 0], np.stack(expected))
    np.testing.assert_array_equal(samples, before)
    assert LogMel().transform(samples[0].astype(np.float64)).dtype == np.float32


def test_a_worker_needs_neither_torch_nor_librosa() -> None:
    program = (
        "import mgc_ray.data.dataset, sys; print(sorted({'torch', 'librosa'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels"),
    [(22050, 1024, 128), (22050, 2048, 128), (44100, 2048, 96), (16000, 512, 64), (8000, 256, 20)],
)
def test_the_filters_equal_librosas(sample_rate: int, n_fft: int, n_mels: int) -> None:
    import librosa

    np.testing.assert_allclose(
        mel_filters(sample_rate, n_fft, n_mels),
        librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels),
        rtol=0,
        atol=1e-6,
    )


def test_a_sine_of_440_hz_is_loudest_in_its_band() -> None:
    # Slaney's scale: 200/3 Hz a mel below 1 kHz, then 27 mel for a factor of 6.4. Half the rate,
    # 11,025 Hz, is 15 + 27 ln(11.025) / ln(6.4) = 49.911 mel, so the 128 bands, with 2 edges more,
    # are 49.911 / 129 = 0.38691 mel apart. 440 Hz is 6.6 mel, 17.058 steps: the centre number 17,
    # which is band 16, counted from 0.
    t = np.arange(CHUNK) / RATE
    features = LogMel().transform(np.sin(2 * np.pi * 440 * t).astype(np.float32))
    assert set(features[:, 4:-4].argmax(axis=0)) == {16}


def test_no_value_is_further_below_the_loudest_than_top_db() -> None:
    features = LogMel().transform(signal("digital silence inside"))
    assert features.max() - features.min() == pytest.approx(80, abs=1e-4)


# --- chunks of audio ---


def test_thirty_seconds_give_ten_chunks(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(30))
    features = LogMel()
    track = computed(path)
    chunks = track.columns["log_mel"]
    assert (features.bands, features.frames, features.dtype) == (128, 258, np.dtype("float32"))
    assert chunks.shape == (10, 128, 258)
    assert chunks.dtype == np.float32
    assert (track.seconds, track.chunks) == (30.0, 10)
    assert track.content_hash == read_waveform(path).content_hash()


def test_chunks_are_consecutive_and_the_rest_is_dropped(tmp_path: Path) -> None:
    samples = noise(7)  # 154,350 samples: two chunks of 66,000 and a rest
    features = LogMel()
    path = wav(tmp_path / "a.wav", samples)
    chunks = chunks_of(path)
    assert len(chunks) == 2
    np.testing.assert_array_equal(chunks[0], features.transform(samples[:CHUNK]))
    np.testing.assert_array_equal(chunks[1], features.transform(samples[CHUNK : 2 * CHUNK]))


def test_one_sample_less_than_two_chunks_is_one_chunk(tmp_path: Path) -> None:
    for samples, count in ((2 * CHUNK - 1, 1), (2 * CHUNK, 2)):
        path = wav(tmp_path / f"{samples}.wav", noise(samples / RATE))
        assert len(chunks_of(path)) == count


def test_a_short_track_is_repeated_up_to_one_chunk(tmp_path: Path) -> None:
    samples = noise(1)
    features = LogMel()
    path = wav(tmp_path / "a.wav", samples)
    repeated = np.concatenate([samples, samples, samples])[:CHUNK]  # 66,150 samples, cut
    np.testing.assert_array_equal(chunks_of(path), features.transform(repeated)[None])


def test_a_track_shorter_than_an_fft_window_is_reported(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(1023 / RATE))
    reason = r"0\.046 s is shorter than one FFT window \(1024 samples at 22050 Hz\)"
    with pytest.raises(UnusableTrackError, match=reason):
        chunks_of(path)
    assert chunks_of(wav(path, noise(1024 / RATE))).shape == (1, 128, 258)


def test_stereo_of_another_rate_is_averaged_and_resampled(tmp_path: Path) -> None:
    rate = 44_100
    t = np.arange(7 * rate) / rate
    left, right = np.sin(2 * np.pi * 440 * t), 0.5 * np.sin(2 * np.pi * 1000 * t)
    path = wav(tmp_path / "a.wav", np.stack([left, right], axis=1), rate)
    chunks = chunks_of(path)
    assert chunks.shape == (2, 128, 258)
    t = np.arange(2 * CHUNK) / RATE
    mono = (np.sin(2 * np.pi * 440 * t) + 0.5 * np.sin(2 * np.pi * 1000 * t)) / 2
    expected = by_librosa(mono[:CHUNK].astype(np.float32), LogMel())
    # the tones' own bands, away from the first frames, where the resampling filter starts
    for band in set(expected[:, 10:-10].argmax(axis=0)) | {16}:
        np.testing.assert_allclose(chunks[0, band, 10:-10], expected[band, 10:-10], atol=0.02)


@settings(max_examples=60, deadline=None)
@given(st.integers(1000, 40_000), st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]))
@example(22050, 44100)
@example(8819, 44100)  # 4409.5 samples at 22,050 Hz: soxr makes one more than fits
def test_as_many_chunks_as_fit_at_22050_hz(length: int, rate: int) -> None:
    # chunks of 0.1 s, so that rounding at the end of resampling is seen often
    at_22050 = int(length * 22050 / rate)
    track = DecodedTrack(Waveform(noise(length / rate, rate), rate), chunk_seconds=0.1)
    if at_22050 < 1024:
        with pytest.raises(UnusableTrackError):
            track.chunks(22050)
        return
    assert track.chunks(22050).shape == (max(1, at_22050 // 2205), 2205)
