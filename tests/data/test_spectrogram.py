"""Arrays and audio -> chunks: the right pieces and reasons; what all features have in common."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError, read_waveform
from mgc_ray.data.spectrogram import (
    GTZAN_ARRAYS,
    BandGroups,
    Features,
    LogMel,
    Precomputed,
    audio_features,
    features_from_json,
    features_to_json,
    read_array,
)

RATE = 22050
# one of each kind and more
FEATURES = [
    LogMel(),
    LogMel(n_fft=2048, top_db=60.0),
    BandGroups(("log_mel", "chroma")),
    BandGroups(("mfcc",), LogMel(n_fft=2048, chunk_samples=44_100)),
    Precomputed(128, 38, "uint8"),
    Precomputed(128, 38, "uint8", GTZAN_ARRAYS),
]


def noise(seconds: float) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def wav(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


def npy(header: str) -> bytes:
    """The start of a .npy file of version 1.0."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


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
    with pytest.raises(UnusableTrackError, match="has 128 bands"):
        Precomputed(96, 38, "uint8").chunks(tmp_path / "a.npy")


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


# --- audio as arrays ---

AS_ARRAYS = Precomputed(128, 38, "uint8", GTZAN_ARRAYS)


def test_audio_gives_what_its_array_gives(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(30))
    (array,) = GTZAN_ARRAYS.arrays(read_waveform(path))
    np.save(tmp_path / "a.npy", array)
    for features in (AS_ARRAYS, Precomputed(128, 38, "float32", GTZAN_ARRAYS)):
        chunks = features.chunks(path)
        assert (chunks.shape, chunks.dtype) == ((10, 128, 38), features.dtype)
        np.testing.assert_array_equal(chunks, features.chunks(tmp_path / "a.npy"))
        np.testing.assert_array_equal(chunks[3], array[:, 114:152])
    inspection = AS_ARRAYS.inspect(path)
    assert (inspection.seconds, inspection.chunks) == (30.0, 10)
    assert inspection.content_hash == read_waveform(path).content_hash()


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        (10, 3),  # 129 columns
        (60, 20),
        (60.5, 20),
        (62, 20),  # a rest of 26 columns is no piece
        (64, 21),  # 52 columns
    ],
)
def test_each_excerpt_is_cut_as_an_array(tmp_path: Path, seconds: float, count: int) -> None:
    path = wav(tmp_path / "a.wav", noise(seconds))
    chunks = AS_ARRAYS.chunks(path)
    assert AS_ARRAYS.inspect(path).chunks == len(chunks) == count
    arrays = GTZAN_ARRAYS.arrays(read_waveform(path))
    pieces = [array[:, i : i + 38] for array in arrays for i in range(0, array.shape[1] - 37, 38)]
    np.testing.assert_array_equal(chunks, pieces)


def test_audio_shorter_than_a_piece_is_repeated(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(1))  # 44 frames, 13 columns
    (chunk,) = AS_ARRAYS.chunks(path)
    assert AS_ARRAYS.inspect(path).chunks == 1
    assert chunk.max() == 255
    np.testing.assert_array_equal(chunk[:, 13:26], chunk[:, :13])
    np.testing.assert_array_equal(chunk[:, 26:], chunk[:, :12])


def test_unusable_audio_is_told_as_of_log_mel(tmp_path: Path) -> None:
    short = wav(tmp_path / "short.wav", noise(2047 / RATE))
    silent = wav(tmp_path / "silent.wav", np.zeros(RATE, np.float32))
    (tmp_path / "text.wav").write_text("no audio")
    for path, told in (
        (short, r"shorter than one FFT window \(2048 samples"),
        (silent, "silent"),
        (tmp_path / "text.wav", "not audio, or corrupt"),
        (tmp_path / "none.wav", "no such file"),
    ):
        for look in (AS_ARRAYS.inspect, AS_ARRAYS.chunks):
            with pytest.raises(UnusableTrackError, match=told):
                look(path)


def test_audio_without_a_recipe_is_told(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(1))
    with pytest.raises(UnusableTrackError, match=r"not a \.npy spectrogram"):
        Precomputed(128, 38, "uint8").chunks(path)


@pytest.mark.parametrize(("bands", "frames"), [(96, 38), (128, 388)])
def test_a_recipe_of_other_arrays_is_refused(bands: int, frames: int) -> None:
    told = f"makes 128 bands x 387 columns, and pieces are {bands} bands x {frames} frames: leave"
    with pytest.raises(RequestError, match=told):
        Precomputed(bands, frames, "uint8", GTZAN_ARRAYS)


# --- features of audio that can be asked for ---


def test_log_mel_alone_is_log_mel() -> None:
    assert audio_features(["log_mel"], None) == LogMel()
    assert audio_features(("log_mel",), 5) == LogMel(chunk_samples=110_250)


def test_several_groups_share_a_chunk() -> None:
    assert audio_features(["chroma", "log_mel"]) == BandGroups(("log_mel", "chroma"))
    features = audio_features(["mfcc"], 1.5)
    assert features == BandGroups(("mfcc",), LogMel(chunk_samples=33_075))
    assert (features.bands, features.frames) == (20, 130)


@pytest.mark.parametrize("seconds", [0.99, 60.1, 0, -3, float("nan"), float("inf")])
def test_chunks_of_another_length_are_refused(seconds: float) -> None:
    with pytest.raises(RequestError, match=f"must last 1 to 60 s, but {seconds:g} s is asked for"):
        audio_features(["log_mel"], seconds)


# --- what all features have in common ---


@pytest.mark.parametrize("features", FEATURES, ids=repr)
def test_groups_are_all_bands_in_their_order(features: Features) -> None:
    bands = [band for group in features.groups.values() for band in range(group.start, group.stop)]
    assert bands == list(range(features.bands))


def test_groups_have_names() -> None:
    assert LogMel(n_mels=40).groups == {"log_mel": slice(0, 40)}
    assert Precomputed(96, 38, "uint8").groups == {"precomputed": slice(0, 96)}


# --- settings as JSON ---


@pytest.mark.parametrize("features", FEATURES, ids=repr)
def test_settings_come_back_from_json(features: Features) -> None:
    settings = features_to_json(features)
    assert features_from_json(settings) == features
    assert json.loads(json.dumps(settings)) == settings


def test_settings_of_several_groups_are_plain_values() -> None:
    assert features_to_json(BandGroups(("mfcc", "log_mel"))) == {
        "kind": "band_groups",
        "names": ["log_mel", "mfcc"],
        "log_mel": {
            "sample_rate": 22050,
            "n_fft": 1024,
            "hop_length": 256,
            "n_mels": 128,
            "chunk_samples": 66_000,
            "top_db": 80.0,
        },
    }


def test_settings_of_arrays_are_those_of_earlier_versions_and_the_recipe() -> None:
    earlier = {"kind": "precomputed", "bands": 128, "frames": 38, "value_type": "uint8"}
    assert features_to_json(Precomputed(128, 38, "uint8")) == earlier
    assert features_from_json(earlier) == Precomputed(128, 38, "uint8")
    assert features_to_json(AS_ARRAYS) == earlier | {
        "recipe": {
            "sample_rate": 22050,
            "n_fft": 2048,
            "hop_length": 512,
            "n_mels": 128,
            "top_db": 80.0,
            "columns": 387,
            "width": 387.5,
            "excerpt_seconds": 30.0,
        }
    }


@pytest.mark.parametrize(
    ("features", "changed"),
    [
        (AS_ARRAYS, {"recipe": {"columns": 387}}),
        (AS_ARRAYS, {"recipe": 5}),
        (BandGroups(("mfcc",)), {"log_mel": {"n_mfcc": 20}}),
        (BandGroups(("mfcc",)), {"names": 5}),
    ],
)
def test_settings_inside_that_do_not_fit_are_refused(features: Features, changed: dict) -> None:
    with pytest.raises(
        RequestError, match=r"(the settings of .* features do not fit|must be settings by name)"
    ):
        features_from_json(features_to_json(features) | changed)


def test_groups_of_another_version_are_refused() -> None:
    settings = features_to_json(BandGroups(("mfcc",))) | {"names": ["mfcc", "onsets"]}
    with pytest.raises(RequestError, match="must be one of log_mel, .*mfcc, but 'onsets' is asked"):
        features_from_json(settings)


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
        (
            {"kind": "mfcc"},
            r"one of \['ast_fbank', 'band_groups', 'log_mel', 'precomputed'\], .* say 'mfcc'",
        ),
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
