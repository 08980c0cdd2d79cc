"""Waveforms and arrays -> chunks: librosa's numbers, the right pieces, the reasons for the rest."""

import pickle
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError, Waveform, read_waveform
from mgc_ray.data.spectrogram import (
    LogMel,
    Precomputed,
    features_from_json,
    features_to_json,
    mel_filters,
    read_array,
)

RATE = 22050
CHUNK = 66_000
MUSIC = Path(__file__).parents[3] / "shared" / "gtzan" / "audio"
GENRES = ("blues", "classical", "country", "disco", "hiphop")
GENRES += ("jazz", "metal", "pop", "reggae", "rock")


def by_librosa(samples: np.ndarray, features: LogMel) -> np.ndarray:
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


def npy(header: str) -> bytes:
    """The start of a .npy file of version 1.0."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


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
def test_features_of_generated_signals_equal_librosas(kind: str) -> None:
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
def test_features_of_other_settings_equal_librosas(features: LogMel) -> None:
    samples = signal("mixture")
    np.testing.assert_allclose(
        features.transform(samples), by_librosa(samples, features), rtol=0, atol=1e-3
    )


@pytest.mark.filterwarnings("ignore:Empty filters")
def test_bands_narrower_than_a_bin_are_silent_as_librosas() -> None:
    features = LogMel(n_fft=64, hop_length=64)
    # 33 bins for 128 bands, so that even of four bands side by side all can lie between two bins
    silent = mel_filters(RATE, 64, 128).max(axis=1) == 0
    assert silent.reshape(-1, 4).all(axis=1).any()
    samples = signal("mixture")
    np.testing.assert_allclose(
        features.transform(samples), by_librosa(samples, features), rtol=0, atol=1e-3
    )


def test_several_waveforms_are_transformed_each_by_itself() -> None:
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


@pytest.mark.parametrize("genre", GENRES)
def test_features_of_real_tracks_equal_librosas(genre: str) -> None:
    if not MUSIC.exists():
        pytest.skip(f"needs GTZAN's audio in {MUSIC}, which is no part of this project")
    features = LogMel()
    path = min((MUSIC / genre).glob("*.flac"))
    chunks = features.chunks(path)
    samples = read_waveform(path).resampled(RATE)
    for i in (0, len(chunks) - 1):
        expected = by_librosa(samples[i * CHUNK : (i + 1) * CHUNK], features)
        np.testing.assert_allclose(chunks[i], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels"),
    [(22050, 1024, 128), (22050, 2048, 128), (44100, 2048, 96), (16000, 512, 64), (8000, 256, 20)],
)
def test_the_filters_equal_librosas(sample_rate: int, n_fft: int, n_mels: int) -> None:
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


def test_nothing_lies_further_below_the_loudest_than_top_db() -> None:
    features = LogMel().transform(signal("digital silence inside"))
    assert features.max() - features.min() == pytest.approx(80, abs=1e-4)


# --- chunks of audio ---


def test_thirty_seconds_give_ten_chunks(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(30))
    features = LogMel()
    chunks = features.chunks(path)
    assert (features.bands, features.frames, features.dtype) == (128, 258, np.dtype("float32"))
    assert chunks.shape == (10, 128, 258)
    assert chunks.dtype == np.float32
    inspection = features.inspect(path)
    assert (inspection.seconds, inspection.chunks) == (30.0, 10)
    assert inspection.content_hash == read_waveform(path).content_hash()


def test_chunks_are_consecutive_and_the_rest_is_dropped(tmp_path: Path) -> None:
    samples = noise(7)  # 154,350 samples: two chunks of 66,000 and a rest
    features = LogMel()
    path = wav(tmp_path / "a.wav", samples)
    chunks = features.chunks(path)
    assert features.inspect(path).chunks == len(chunks) == 2
    np.testing.assert_array_equal(chunks[0], features.transform(samples[:CHUNK]))
    np.testing.assert_array_equal(chunks[1], features.transform(samples[CHUNK : 2 * CHUNK]))


def test_a_sample_less_than_two_chunks_is_one(tmp_path: Path) -> None:
    features = LogMel()
    for samples, count in ((2 * CHUNK - 1, 1), (2 * CHUNK, 2)):
        path = wav(tmp_path / f"{samples}.wav", noise(samples / RATE))
        assert features.inspect(path).chunks == len(features.chunks(path)) == count


def test_a_short_track_is_repeated_up_to_a_chunk(tmp_path: Path) -> None:
    samples = noise(1)
    features = LogMel()
    path = wav(tmp_path / "a.wav", samples)
    assert features.inspect(path).chunks == 1
    repeated = np.concatenate([samples, samples, samples])[:CHUNK]  # 66,150 samples, cut
    np.testing.assert_array_equal(features.chunks(path), features.transform(repeated)[None])


def test_a_track_shorter_than_an_fft_window_is_told(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(1023 / RATE))
    told = r"0\.046 s is shorter than one FFT window \(1024 samples at 22050 Hz\)"
    with pytest.raises(UnusableTrackError, match=told):
        LogMel().inspect(path)
    with pytest.raises(UnusableTrackError, match=told):
        LogMel().chunks(path)
    assert LogMel().chunks(wav(path, noise(1024 / RATE))).shape == (1, 128, 258)


def test_stereo_of_another_rate_is_averaged_and_resampled(tmp_path: Path) -> None:
    rate = 44_100
    t = np.arange(7 * rate) / rate
    left, right = np.sin(2 * np.pi * 440 * t), 0.5 * np.sin(2 * np.pi * 1000 * t)
    path = wav(tmp_path / "a.wav", np.stack([left, right], axis=1), rate)
    chunks = LogMel().chunks(path)
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
def test_inspection_counts_as_many_chunks_as_are_made(length: int, rate: int) -> None:
    # chunks of 0.1 s, so that rounding at the end of resampling is seen often
    features = LogMel(chunk_samples=2205, n_mels=8)
    waveform = Waveform(noise(length / rate, rate), rate)
    expected = max(1, int(length * 22050 / rate) // 2205)
    if int(length * 22050 / rate) < 1024:
        return
    assert features._count(waveform) == expected
    assert len(waveform.resampled(RATE)) >= expected * 2205 - 1 or expected == 1


# --- precomputed arrays ---


@pytest.fixture
def array(tmp_path: Path) -> np.ndarray:
    array = np.random.default_rng(0).integers(0, 256, (128, 387)).astype(np.uint8)
    np.save(tmp_path / "a.npy", array)
    return array


def test_an_array_gives_ten_equal_pieces(tmp_path: Path, array: np.ndarray) -> None:
    features = Precomputed(128, 38, "uint8")
    chunks = features.chunks(tmp_path / "a.npy")
    assert (chunks.shape, chunks.dtype) == ((10, 128, 38), np.uint8)
    for i in range(10):
        np.testing.assert_array_equal(chunks[i], array[:, 38 * i : 38 * (i + 1)])
    inspection = features.inspect(tmp_path / "a.npy")
    assert np.isnan(inspection.seconds)
    assert inspection.chunks == 10


def test_a_short_array_is_repeated_up_to_a_piece(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 2, 3], [4, 5, 6]]))
    features = Precomputed(2, 5, "float32")
    assert features.inspect(tmp_path / "a.npy").chunks == 1
    chunks = features.chunks(tmp_path / "a.npy")
    assert chunks.dtype == np.float32
    np.testing.assert_array_equal(chunks, [[[1, 2, 3, 1, 2], [4, 5, 6, 4, 5]]])


def test_an_array_in_fortran_order_is_the_same_track(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "b.npy", np.asfortranarray(array))
    features = Precomputed(128, 38, "uint8")
    one, other = (features.inspect(tmp_path / name) for name in ("a.npy", "b.npy"))
    assert one.content_hash == other.content_hash
    np.testing.assert_array_equal(
        features.chunks(tmp_path / "a.npy"), features.chunks(tmp_path / "b.npy")
    )


def test_another_array_has_another_hash(tmp_path: Path, array: np.ndarray) -> None:
    changed = array.copy()
    changed[5, 5] += 1
    np.save(tmp_path / "b.npy", changed)
    features = Precomputed(128, 38, "uint8")
    assert (
        features.inspect(tmp_path / "a.npy").content_hash
        != features.inspect(tmp_path / "b.npy").content_hash
    )


def test_an_array_of_other_bands_is_told(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(
        UnusableTrackError, match="has 128 bands, but most arrays of this table have 96"
    ):
        Precomputed(96, 38, "uint8").inspect(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (np.arange(5), r"not a 2-D array \[bands, frames\] but \(5,\)"),
        (np.ones((2, 3, 4)), r"not a 2-D array \[bands, frames\] but \(2, 3, 4\)"),
        (np.float32(3), r"not a 2-D array \[bands, frames\] but \(\)"),
        (np.zeros((3, 0)), r"not a 2-D array \[bands, frames\] but \(3, 0\)"),
        (np.array([[1, "a"]], object), "no .npy array, or corrupt: Object arrays cannot be loaded"),
        (np.ones((2, 3)) * 1j, "holds complex128, not numbers"),
        (np.eye(3, dtype=bool), "holds bool, not numbers"),
        (np.array([["a", "b"]]), "holds <U1, not numbers"),
        (np.array([[1, np.nan]]), "holds NaN or infinity"),
        (np.array([[1, -np.inf]]), "holds NaN or infinity"),
        (np.array([[1.0, 1e300]]), "holds values beyond float32"),
        (np.array([[-1e300, 1.0]]), "holds values beyond float32"),
        (np.full((2, 3), 7), "silent: every value is 7"),
    ],
)
def test_an_array_that_is_no_spectrogram_is_told(
    tmp_path: Path, content: np.ndarray, told: str
) -> None:
    np.save(tmp_path / "b.npy", content, allow_pickle=True)
    with pytest.raises(UnusableTrackError, match=told):
        read_array(tmp_path / "b.npy")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64", "float16", ">f4", "float64"])
def test_every_real_type_is_read(tmp_path: Path, dtype: str) -> None:
    array = np.array([[0, 100], [50, 127]]).astype(dtype)
    np.save(tmp_path / "b.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "b.npy"), array)
    chunks = Precomputed(2, 2, "float32").chunks(tmp_path / "b.npy")
    np.testing.assert_array_equal(chunks, [[[0, 100], [50, 127]]])


def test_a_pickle_is_told_and_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "was_run",))

    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UnusableTrackError, match="no .npy array, or corrupt"):
        read_array(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.array([[Trap()]], object), allow_pickle=True)
    with pytest.raises(UnusableTrackError, match="no .npy array, or corrupt: Object arrays"):
        read_array(tmp_path / "c.npy")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"text",
        b"PK\x03\x04 a zip that breaks off",
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2), } ("),
        npy("{'descr': '|,1', 'fortran_order': False, 'shape': (1, 2), }"),
        npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30}, 2), }}"),
        npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**12}, 128), }}"),
    ],
)
def test_a_file_that_is_no_array_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.npy").write_bytes(content)
    with pytest.raises(UnusableTrackError, match="no .npy array, or corrupt: "):
        read_array(tmp_path / "b.npy")


def test_several_arrays_in_one_file_are_told(tmp_path: Path) -> None:
    with open(tmp_path / "b.npy", "wb") as file:
        np.savez(file, a=np.eye(2), b=np.eye(3))
    with pytest.raises(UnusableTrackError, match="no .npy array, or corrupt: "):
        read_array(tmp_path / "b.npy")


def test_an_array_that_breaks_off_is_told(tmp_path: Path, array: np.ndarray) -> None:
    content = (tmp_path / "a.npy").read_bytes()
    for length in (60, 5000):
        (tmp_path / "a.npy").write_bytes(content[:length])
        with pytest.raises(UnusableTrackError, match="no .npy array, or corrupt: "):
            read_array(tmp_path / "a.npy")


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=4))
@example([(0x40, ord("("))])
def test_no_damage_of_the_header_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    np.save(path, np.arange(12, dtype=np.uint8).reshape(3, 4))
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position] = value
    path.write_bytes(content)
    try:
        assert read_array(path).ndim == 2
    except UnusableTrackError as error:
        assert str(error)  # noqa: PT017


# --- settings as JSON ---


@pytest.mark.parametrize(
    "features", [LogMel(), LogMel(n_fft=2048, top_db=60.0), Precomputed(128, 38, "uint8")]
)
def test_settings_come_back_from_json(features: LogMel | Precomputed) -> None:
    assert features_from_json(features_to_json(features)) == features


def test_settings_of_log_mel_are_plain_values() -> None:
    assert features_to_json(LogMel()) == {
        "kind": "log_mel",
        "sample_rate": 22050,
        "n_fft": 1024,
        "hop_length": 256,
        "n_mels": 128,
        "chunk_samples": 66_000,
        "top_db": 80.0,
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kind": "mfcc"}, r"must be one of \['log_mel', 'precomputed'\], .* say 'mfcc'"),
        ({"kind": None}, r"must be one of .* say None: they were written by another version"),
        ({"n_mfcc": 20}, "the settings of log_mel features do not fit: .*n_mfcc"),
    ],
)
def test_settings_of_another_version_are_refused(changed: dict, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        features_from_json(features_to_json(LogMel()) | changed)


@pytest.mark.parametrize("settings", [{}, [], "log_mel", None, 5])
def test_settings_that_are_no_settings_are_refused(settings: object) -> None:
    with pytest.raises(RequestError, match="features must be one of"):
        features_from_json(settings)


def test_precomputed_settings_without_a_field_are_refused() -> None:
    with pytest.raises(RequestError, match="settings of precomputed features do not fit"):
        features_from_json({"kind": "precomputed", "bands": 128})
