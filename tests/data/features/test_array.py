"""Published .npy spectrograms -> chunks, and audio -> the same arrays by a recipe."""

import json
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError, read_waveform
from mgc_ray.data.features import FeatureSet, TrackFeatures
from mgc_ray.data.features._array_recipe import GTZAN_ARRAYS, ArrayRecipe
from mgc_ray.data.features.array import Array, array_shape, is_transposed, read_array
from mgc_ray.settings import as_json, validated

RATE = 22050


def computed(
    path: Path,
    bands: int = 128,
    frames: int = 38,
    value_type: str = "uint8",
    recipe: ArrayRecipe | None = None,
) -> TrackFeatures:
    array = Array(bands=bands, frames=frames, value_type=value_type, recipe=recipe)
    return FeatureSet({"array": array}).compute(path)


def chunks_of(path: Path, *size: object, recipe: ArrayRecipe | None = None) -> np.ndarray:
    return computed(path, *size, recipe=recipe).columns["array"]


def as_array(path: Path) -> TrackFeatures:
    """Audio as the array that would have been published."""
    return computed(path, recipe=GTZAN_ARRAYS)


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


# --- arrays ---


@pytest.fixture
def array(tmp_path: Path) -> np.ndarray:
    array = np.random.default_rng(0).integers(0, 256, (128, 387)).astype(np.uint8)
    np.save(tmp_path / "a.npy", array)
    return array


def test_an_array_is_cut_into_ten_equal_chunks(tmp_path: Path, array: np.ndarray) -> None:
    track = computed(tmp_path / "a.npy")
    chunks = track.columns["array"]
    assert (chunks.shape, chunks.dtype) == ((10, 128, 38), np.uint8)
    for i in range(10):
        np.testing.assert_array_equal(chunks[i], array[:, 38 * i : 38 * (i + 1)])
    assert np.isnan(track.seconds)
    assert track.chunks == 10


def test_a_short_array_is_repeated_up_to_one_chunk(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 2, 3], [4, 5, 6]]))
    chunks = chunks_of(tmp_path / "a.npy", 2, 5, "float32")
    assert chunks.dtype == np.float32
    np.testing.assert_array_equal(chunks, [[[1, 2, 3, 1, 2], [4, 5, 6, 4, 5]]])


def test_an_array_in_fortran_order_is_the_same_track(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "b.npy", np.asfortranarray(array))
    one, other = (computed(tmp_path / name) for name in ("a.npy", "b.npy"))
    assert one.content_hash == other.content_hash
    np.testing.assert_array_equal(one.columns["array"], other.columns["array"])


def test_another_array_has_another_hash(tmp_path: Path, array: np.ndarray) -> None:
    changed = array.copy()
    changed[5, 5] += 1
    np.save(tmp_path / "b.npy", changed)
    one, other = (computed(tmp_path / name) for name in ("a.npy", "b.npy"))
    assert one.content_hash != other.content_hash


def test_an_array_of_other_bands_is_reported(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(
        UnusableTrackError, match="has 128 bands, but most arrays of this table have 96"
    ):
        computed(tmp_path / "a.npy", bands=96)


def test_an_array_of_floats_among_uint8_is_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", np.eye(128, 38))
    with pytest.raises(UnusableTrackError, match="holds float64, but the others hold uint8"):
        computed(tmp_path / "b.npy")


@pytest.mark.parametrize(
    ("content", "reason"),
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
def test_an_array_that_is_no_spectrogram_is_reported(
    tmp_path: Path, content: np.ndarray, reason: str
) -> None:
    np.save(tmp_path / "b.npy", content, allow_pickle=True)
    with pytest.raises(UnusableTrackError, match=reason):
        read_array(tmp_path / "b.npy")


def test_an_array_by_python_2_is_read_without_a_message(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "old.npy"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 3L), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + header + bytes(range(6)))
    np.testing.assert_array_equal(read_array(path), [[0, 1, 2], [3, 4, 5]])
    assert array_shape(path) == ((2, 3), np.dtype("uint8"))
    assert not recwarn.list


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="only Unix has it")
@pytest.mark.timeout(10)
def test_a_pipe_is_no_array(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    assert array_shape(tmp_path / "a.npy") is None
    with pytest.raises(UnusableTrackError):
        read_array(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "change", [{"n_mels": 64}, {"hop_length": 1}, {"sample_rate": 10**9}, {"columns": 10**9}]
)
def test_a_recipe_that_is_none_of_this_program_is_refused(change: dict[str, int]) -> None:
    """As in a stranger's dataset or model: its numbers may ask for all memory and time."""
    settings = Array(bands=128, frames=38, value_type="uint8", recipe=GTZAN_ARRAYS)
    stored = json.loads(json.dumps(as_json(settings)))
    assert validated(Array, stored) == settings
    unknown = {name: value for name, value in change.items() if name in stored["recipe"]}
    assert unknown
    with pytest.raises(RequestError, match=r"must be one of this program \(gtzan\)|recipe"):
        validated(Array, stored | {"recipe": stored["recipe"] | unknown})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64", "float16", ">f4", "float64"])
def test_every_real_type_is_read(tmp_path: Path, dtype: str) -> None:
    array = np.array([[0, 100], [50, 127]]).astype(dtype)
    np.save(tmp_path / "b.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "b.npy"), array)
    chunks = chunks_of(tmp_path / "b.npy", 2, 2, "float32")
    np.testing.assert_array_equal(chunks, [[[0, 100], [50, 127]]])


def test_a_pickle_is_reported_and_never_run(tmp_path: Path) -> None:
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
def test_a_file_without_an_array_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.npy").write_bytes(content)
    with pytest.raises(UnusableTrackError, match="no .npy array, or corrupt: "):
        read_array(tmp_path / "b.npy")


def test_several_arrays_in_one_file_are_reported(tmp_path: Path) -> None:
    with open(tmp_path / "b.npy", "wb") as file:
        np.savez(file, a=np.eye(2), b=np.eye(3))
    with pytest.raises(UnusableTrackError, match="no .npy array, or corrupt: "):
        read_array(tmp_path / "b.npy")


def test_a_truncated_array_is_reported(tmp_path: Path, array: np.ndarray) -> None:
    content = (tmp_path / "a.npy").read_bytes()
    for length in (60, 5000):
        (tmp_path / "a.npy").write_bytes(content[:length])
        with pytest.raises(UnusableTrackError, match="no .npy array, or corrupt: "):
            read_array(tmp_path / "a.npy")


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=4))
@example([(0x40, ord("("))])
def test_a_damaged_header_is_reported_and_never_another_error(
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


def test_audio_gives_the_chunks_of_its_array(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(30))
    (array,) = GTZAN_ARRAYS.arrays(read_waveform(path))
    np.save(tmp_path / "a.npy", array)
    for value_type in ("uint8", "float32"):
        size = (128, 38, value_type)
        chunks = chunks_of(path, *size, recipe=GTZAN_ARRAYS)
        assert (chunks.shape, chunks.dtype) == ((10, 128, 38), value_type)
        np.testing.assert_array_equal(
            chunks, chunks_of(tmp_path / "a.npy", *size, recipe=GTZAN_ARRAYS)
        )
        np.testing.assert_array_equal(chunks[3], array[:, 114:152])
    track = as_array(path)
    assert (track.seconds, track.chunks) == (30.0, 10)
    assert track.content_hash == read_waveform(path).content_hash()


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
def test_each_excerpt_is_cut_like_an_array(tmp_path: Path, seconds: float, count: int) -> None:
    path = wav(tmp_path / "a.wav", noise(seconds))
    chunks = as_array(path).columns["array"]
    assert len(chunks) == count
    arrays = GTZAN_ARRAYS.arrays(read_waveform(path))
    pieces = [array[:, i : i + 38] for array in arrays for i in range(0, array.shape[1] - 37, 38)]
    np.testing.assert_array_equal(chunks, pieces)


def test_audio_shorter_than_a_chunk_is_repeated(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(1))  # 44 frames, 13 columns
    (chunk,) = as_array(path).columns["array"]
    assert chunk.max() == 255
    np.testing.assert_array_equal(chunk[:, 13:26], chunk[:, :13])
    np.testing.assert_array_equal(chunk[:, 26:], chunk[:, :12])


def test_unusable_audio_is_reported(tmp_path: Path) -> None:
    short = wav(tmp_path / "short.wav", noise(2047 / RATE))
    silent = wav(tmp_path / "silent.wav", np.zeros(RATE, np.float32))
    (tmp_path / "text.wav").write_text("no audio")
    for path, reason in (
        (short, r"shorter than one FFT window \(2048 samples"),
        (silent, "silent"),
        (tmp_path / "text.wav", "not audio, or corrupt"),
        (tmp_path / "none.wav", "no such file"),
    ):
        with pytest.raises(UnusableTrackError, match=reason):
            as_array(path)


def test_audio_without_a_recipe_is_reported(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(1))
    with pytest.raises(UnusableTrackError, match=r"not a \.npy spectrogram"):
        computed(path)


@pytest.mark.parametrize(("bands", "frames"), [(96, 38), (128, 388)])
def test_a_recipe_of_other_arrays_is_refused(bands: int, frames: int) -> None:
    with pytest.raises(
        RequestError,
        match=f"makes 128 bands x 387 columns, and chunks have {bands} bands x {frames} frames: "
        "leave the recipe out",
    ):
        Array(bands=bands, frames=frames, value_type="uint8", recipe=GTZAN_ARRAYS)


# --- the header alone ---


def test_shape_and_type_are_read_from_the_header(tmp_path: Path, array: np.ndarray) -> None:
    assert array_shape(tmp_path / "a.npy") == ((128, 387), np.dtype(np.uint8))
    np.save(tmp_path / "b.npy", np.arange(3))
    np.save(tmp_path / "c.npy", np.zeros((3, 0)))
    (tmp_path / "d.npy").write_text("no array")
    for name in ("b.npy", "c.npy", "d.npy", "missing.npy"):
        assert array_shape(tmp_path / name) is None


# --- [frames, bands] ---


@pytest.mark.parametrize(
    ("shapes", "transposed"),
    [
        ({(128, 387): 9}, False),
        ({(128, 387): 5, (128, 400): 5}, False),
        ({(128, 94): 9}, False),  # 3 s, more bands than frames
        ({(8, 47): 6, (9, 47): 1}, False),  # one of other bands
        ({(128, 387): 5, (64, 387): 5}, False),  # of two sets
        ({(1025, 128): 5, (1025, 130): 5}, False),
        ({(512, 1): 9}, False),  # embeddings
        ({(100, 128 + i): 1 for i in range(9)}, False),
        ({(387, 128): 9}, True),
        ({(387, 128): 99, (386, 128): 1}, True),
        ({(100 + i, 128): 1 for i in range(9)}, True),
        ({(100 + i, 100): 1 for i in range(9)}, True),
        ({(50 + i, 128): 1 for i in range(9)}, True),  # shorter than there are bands
        ({(430, 20): 4, (431, 20): 5}, True),
        ({(96, 64): 9}, None),  # both are usual
        ({(300, 100): 9}, None),  # neither is
        ({(47, 128): 9}, None),
        ({(753, 10): 9}, None),
    ],
    ids=str,
)
def test_which_dimension_has_the_bands(
    shapes: dict[tuple[int, int], int], transposed: bool | None
) -> None:
    assert is_transposed(Counter(shapes)) is transposed


def test_transposed_files_are_read_as_the_others(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "t.npy", array.T)
    one, other = (
        FeatureSet({"array": Array(bands=128, frames=38, value_type="uint8", transposed=swap)})
        for swap in (False, True)
    )
    usual, swapped = one.compute(tmp_path / "a.npy"), other.compute(tmp_path / "t.npy")
    np.testing.assert_array_equal(usual.columns["array"], swapped.columns["array"])
    assert usual.content_hash == swapped.content_hash
    reason = r"has 387 bands, but .* have 128 \(its dimensions seem to be swapped\)"
    with pytest.raises(UnusableTrackError, match=reason):
        one.compute(tmp_path / "t.npy")
