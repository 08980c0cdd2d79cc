"""Sets of features: which can be asked for, how they are combined, and their description."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.audio import UnusableTrackError, Waveform
from mgc_ray.data.features import (
    DecodedTrack,
    FeatureSet,
    TrackFeatures,
    audio_features,
    feature_names,
    feature_set_from_json,
)
from mgc_ray.data.features._array_recipe import GTZAN_ARRAYS
from mgc_ray.data.features.array import Array
from mgc_ray.data.features.log_mel import LogMel

ARRAY = FeatureSet({"array": Array(bands=128, frames=38, value_type="uint8")})


def set_of(*names: str, **settings: Any) -> FeatureSet:
    return audio_features(DatasetConfig(features=names, **settings))


# --- features that can be asked for ---


def test_the_default_is_the_log_mel_spectrogram_of_the_baseline() -> None:
    features = audio_features(DatasetConfig())
    assert features == FeatureSet({"log_mel": LogMel()})
    assert (features.columns["log_mel"].bands, features.columns["log_mel"].frames) == (128, 258)


def test_all_features_of_audio_are_found() -> None:
    assert {"ast", "chroma", "contrast", "log_mel", "mfcc", "tempogram"} <= set(feature_names())
    assert "array" not in feature_names()
    assert not any(name.startswith("_") for name in feature_names())


def test_the_order_of_the_request_does_not_matter() -> None:
    assert set_of("mfcc", "log_mel", "chroma") == set_of("log_mel", "chroma", "mfcc")
    assert list(set_of("mfcc", "chroma", "log_mel").columns) == ["log_mel", "chroma", "mfcc"]


def test_seconds_become_samples() -> None:
    # 2 s at 22,050 Hz; the frames are centred, so one more than hops of 256 fit
    features = set_of("log_mel", chunk_seconds=2)
    assert features.columns == {"log_mel": LogMel(chunk_samples=44_100)}
    assert features.columns["log_mel"].frames == 173
    assert features.chunk_seconds == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("log_mell",),
            f"--features must be among {', '.join(feature_names())}, or the path of a file, but it "
            "is 'log_mell' (nearest: log_mel)",
        ),
        (("array",), "--features must be among ast, "),
        (("_librosa",), "--features must be among ast, "),
        (
            ("mfcc", "mfcc"),
            "--features must be one or several, each once, but it is 'mfcc mfcc'",
        ),
        ((), "--features must be one or several, each once, but it is ''"),
        (
            ("chroma:24",),
            "--features chroma takes no argument, but it is chroma:24: give chroma",
        ),
    ],
)
def test_features_that_cannot_be_computed_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(RequestError) as error:
        set_of(*names)
    assert str(error.value).startswith(message)


# --- one decoding for all features ---


def test_shared_work_is_done_once() -> None:
    track = DecodedTrack(Waveform(np.ones(3000, np.float32), 22_050))
    calls: list[str] = []

    def compute(name: str) -> Callable[[], int]:
        return lambda: calls.append(name) or len(calls)

    assert track.once("a", compute("first")) == 1
    assert track.once("a", compute("second")) == 1
    assert track.once("b", compute("third")) == 2
    assert calls == ["first", "third"]


def test_mfcc_is_computed_from_the_log_mel_spectrogram_that_was_computed_already() -> None:
    track = DecodedTrack(Waveform(np.ones(3000, np.float32), 22_050))
    track.once(LogMel(), lambda: np.zeros((1, 128, 258), np.float32))
    columns = set_of("log_mel", "mfcc").of(track).columns
    assert not columns["log_mel"].any()
    assert not columns["mfcc"].any()


def test_the_features_of_a_file_share_its_duration_and_content_hash(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9999, 9999, (44_100, 2)).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", noise, 44_100)
    soundfile.write(tmp_path / "b.wav", noise, 44_100)
    one, other = (set_of("log_mel").compute(tmp_path / name) for name in ("a.flac", "b.wav"))
    assert (one.seconds, one.chunks) == (1.0, 1)
    assert one.content_hash == other.content_hash


def test_a_kind_of_file_that_a_set_does_not_take_is_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(128))
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-1, 1, 5000), 22_050)
    with pytest.raises(UnusableTrackError, match=r"a \.npy spectrogram, but .* takes audio"):
        set_of("log_mel").compute(tmp_path / "a.npy")
    with pytest.raises(UnusableTrackError, match=r"not a \.npy spectrogram"):
        ARRAY.compute(tmp_path / "a.wav")


def test_an_embedding_is_a_column_of_one_frame_per_chunk() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 50_000).astype(np.float32)
    features = FeatureSet({"log_mel": LogMel(chunk_samples=22_050), "peaks": Peaks()}, 1.0)
    columns = features.of(DecodedTrack(Waveform(noise, 22_050), chunk_seconds=1.0)).columns
    assert columns["log_mel"].shape == (2, 128, 87)
    expected = [[[part.min()], [part.max()]] for part in (noise[:22_050], noise[22_050:44_100])]
    np.testing.assert_array_equal(columns["peaks"], expected)
    assert features.chunk_bytes == 128 * 87 * 4 + 2 * 4


# --- where chunks are, and tracks shorter than half of one ---


def of_seconds(features: FeatureSet, seconds: float, rate: int = 22_050) -> TrackFeatures:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)
    track = DecodedTrack(Waveform(noise, rate), None, features.chunk_seconds, features.keep_end)
    return features.of(track)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
@pytest.mark.parametrize(
    ("seconds", "keep_end", "expected"),
    [
        (7.0, False, [(0, 2), (2, 4), (4, 6)]),
        (7.0, True, [(0, 2), (2, 4), (4, 6), (5, 7)]),  # the last chunk ends with the track
        (6.9, True, [(0, 2), (2, 4), (4, 6)]),  # less than half a chunk would be lost
        (1.5, True, [(0, 2)]),  # repeated
    ],
)
def test_chunks_know_where_they_are(
    rate: int, seconds: float, keep_end: bool, expected: list[tuple[float, float]]
) -> None:
    features = replace(set_of("log_mel", chunk_seconds=2), keep_end=keep_end)
    computed = of_seconds(features, seconds, rate)
    assert computed.times == pytest.approx(np.array(expected, float))
    assert computed.chunks == len(expected)


def test_chunks_of_a_recipe_know_where_they_are() -> None:
    recipe = replace(ARRAY.columns["array"], recipe=GTZAN_ARRAYS)
    computed = of_seconds(FeatureSet({"array": recipe}), 40.0)
    # 1,292 frames of 512 samples share 387.5 columns: 77.42 ms per column, 2.942 s per chunk
    chunk = 38 * 1292 / 387.5 * 512 / 22_050
    starts = [*(i * chunk for i in range(10)), *(30 + i * chunk for i in range(3))]
    assert computed.times == pytest.approx(np.array([[t, t + chunk] for t in starts]))


def test_arrays_are_of_unknown_duration(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(128, 80).astype(np.uint8))
    computed = ARRAY.compute(tmp_path / "a.npy")
    assert (computed.times, computed.chunks) == (None, 2)


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [
        (0.2, "0.20 s, shorter than half a chunk (of 2.00 s)"),
        (0.99, "0.99 s, shorter than half a chunk (of 2.00 s)"),
        (1.0, ""),
        (1.99, ""),
        (7.0, ""),
    ],
)
def test_a_track_shorter_than_half_a_chunk_says_so(seconds: float, reason: str) -> None:
    assert of_seconds(set_of("log_mel", chunk_seconds=2), seconds).too_short == reason


def test_an_array_shorter_than_half_a_chunk_says_so(tmp_path: Path) -> None:
    for frames, reason in ((18, "18 frames, shorter than half a chunk (of 38)"), (19, "")):
        np.save(tmp_path / "a.npy", np.eye(128, frames).astype(np.uint8))
        assert ARRAY.compute(tmp_path / "a.npy").too_short == reason
    recipe = FeatureSet({"array": replace(ARRAY.columns["array"], recipe=GTZAN_ARRAYS)})
    assert of_seconds(recipe, 1.4).too_short == "1.40 s, shorter than half a chunk (of 2.94 s)"
    assert of_seconds(recipe, 1.5).too_short == ""


@dataclass(frozen=True)
class Peaks:
    """The smallest and the largest sample of a chunk, as an encoder gives an embedding."""

    kind: ClassVar[str] = "embedding"
    pitched: ClassVar[bool] = False
    bands: int = 2
    frames: int = 1

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def compute(self, track: DecodedTrack) -> np.ndarray:
        chunks = track.chunks(22_050)
        return np.stack([chunks.min(axis=1), chunks.max(axis=1)], axis=1)[:, :, None]


# --- sets ---


def test_some_features_of_a_set() -> None:
    features = set_of("log_mel", "chroma", "mfcc", chunk_seconds=2)
    assert features.only(["mfcc", "log_mel"]) == set_of("log_mel", "mfcc", chunk_seconds=2)
    with pytest.raises(KeyError):
        features.only(["ast"])


def test_sets_of_members_are_joined() -> None:
    joined = set_of("log_mel", "chroma").joined(set_of("chroma", "mfcc"))
    assert joined == set_of("log_mel", "chroma", "mfcc")


@pytest.mark.parametrize(
    "other", [FeatureSet({"log_mel": LogMel(n_mels=40)}), set_of("mfcc", chunk_seconds=5), ARRAY]
)
def test_sets_that_differ_are_not_joined(other: FeatureSet) -> None:
    assert set_of("log_mel", "mfcc").joins(set_of("log_mel"))
    assert not set_of("log_mel").joins(other)
    assert not other.joins(set_of("log_mel"))


def test_bytes_of_a_chunk_are_those_of_all_features() -> None:
    # 258 frames of 128 + 12 bands, 4 bytes each
    assert set_of("log_mel", "chroma").chunk_bytes == 258 * 140 * 4
    assert ARRAY.chunk_bytes == 128 * 38


def test_a_set_is_described_in_words() -> None:
    features = set_of("log_mel", "chroma", chunk_seconds=2)
    assert str(features) == (
        "log_mel 128 bands x 173 frames, chroma 12 bands x 173 frames, 2.00 s per chunk"
    )
    assert str(ARRAY) == "array 128 bands x 38 frames"


# --- settings as JSON ---


def test_settings_are_plain_values() -> None:
    log_mel = {
        "sample_rate": 22050,
        "n_fft": 1024,
        "hop_length": 256,
        "n_mels": 128,
        "chunk_samples": 44_100,
        "top_db": 80.0,
    }
    assert set_of("log_mel", "mfcc", chunk_seconds=2).to_json() == {
        "chunk_seconds": 2.0,
        "keep_end": False,
        "columns": {"log_mel": log_mel, "mfcc": {"log_mel": log_mel}},
    }
    array = replace(ARRAY.columns["array"], recipe=GTZAN_ARRAYS)
    assert FeatureSet({"array": array}).to_json()["columns"]["array"] == {
        "bands": 128,
        "frames": 38,
        "value_type": "uint8",
        "recipe": {
            "sample_rate": 22050,
            "n_fft": 2048,
            "hop_length": 512,
            "n_mels": 128,
            "top_db": 80.0,
            "columns": 387,
            "width": 387.5,
            "excerpt_seconds": 30.0,
        },
        "transposed": False,
    }


@pytest.mark.parametrize("content", [{}, [], "log_mel", None, 5, {"columns": []}, {"columns": 3}])
def test_something_else_than_a_description_is_refused(content: object) -> None:
    with pytest.raises(
        RequestError, match="the description of features is damaged or from another version"
    ):
        feature_set_from_json(content)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"columns": {}}, "the description of features is damaged"),
        ({"columns": {"onsets": {}}}, "there is no feature 'onsets': ast, chroma, "),
        ({"columns": {"log_mel": {"n_mfcc": 20}}}, "there is no setting 'n_mfcc'"),
        ({"columns": {"log_mel": {"n_mels": 0}}}, "n_mels must be a whole number from 1 to 1000"),
        ({"columns": {"log_mel": None}}, "LogMel must be settings by name, but it is None"),
        ({"columns": {"array": {"bands": 128}}}, "frames is needed: frames of a chunk."),
        ({"columns": {"mfcc": {"log_mel": 3}}}, "log_mel must be settings by name, but it is 3"),
        ({"columns": {"../__init__": {}}}, "there is no feature '../__init__'"),
        ({"chunk_seconds": "long"}, "the description of features is damaged"),
        ({"chunk_seconds": float("nan")}, r"is damaged .*chunks of nan s"),
        ({"chunk_seconds": 1e12}, r"is damaged .*chunks of 1e\+12 s"),
    ],
)
def test_a_damaged_description_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        feature_set_from_json(set_of("log_mel").to_json() | changed)


@pytest.mark.parametrize("recipe", [5, {"columns": 387}, {"columns": 387, "n_mels": "many"}])
def test_a_damaged_recipe_is_refused(recipe: object) -> None:
    content = ARRAY.to_json()
    content["columns"]["array"]["recipe"] = recipe
    with pytest.raises(RequestError, match="recipe"):
        feature_set_from_json(content)
