"""What every feature must do; a new file in mgc_ray/data/features is tested here without an edit.

Only a feature that needs an argument needs one in `argument_of`.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc_ray.config import DatasetConfig
from mgc_ray.data.features import (
    FeatureSet,
    audio_features,
    feature_names,
    feature_set_from_json,
)
from mgc_ray.data.features.array import RECIPES, Array
from mgc_ray.settings import options
from tests.data.features.made_ast import write_extractor
from tests.data.features.made_hf import write_wav2vec2

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")
HERE = [  # the package musicnn may not be installed
    name for name in feature_names() if name != "musicnn" or importlib.util.find_spec(name)
]
NAMES = [*HERE, "array"]
RATE = 44_100


def argument_of(name: str, folder: Path) -> str:
    """What stands after the colon of `--features NAME:ARGUMENT`."""
    if name == "ast":
        if not (folder / "config.json").exists():
            write_extractor(folder)
        return str(folder)
    if name == "hf":
        if not (folder / "hf").exists():
            write_wav2vec2(folder / "hf")
        return str(folder / "hf")
    return ""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


def set_of(name: str, folder: Path) -> FeatureSet:
    """One feature alone."""
    if name == "array":
        recipe = RECIPES["gtzan"]
        return FeatureSet({"array": Array(bands=128, frames=38, value_type="uint8", recipe=recipe)})
    argument = argument_of(name, folder)
    spec = f"{name}:{argument}" if argument else name
    return audio_features(DatasetConfig(features=(spec,)))


@pytest.fixture(params=NAMES)
def features(request: pytest.FixtureRequest, folder: Path) -> FeatureSet:
    return set_of(request.param, folder)


def written(path: Path, seconds: float, seed: int = 0) -> Path:
    """Stereo music of sorts at 44.1 kHz: notes, a beat and noise."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    notes = np.sin(2 * np.pi * 440 * 2 ** ((t / 0.4).astype(int) % 5 / 12) * t)
    beat = random.standard_normal(len(t)) * np.exp(-40 * (t % 0.5))
    soundfile.write(path, np.stack([0.3 * notes, 0.3 * beat], axis=1), RATE)
    return path


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven seconds, which no feature's chunks divide."""
    return written(tmp_path_factory.mktemp("music") / "seven.wav", 7)


@pytest.fixture(scope="module")
def short_track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("music") / "short.wav", 0.3)


def column_of(features: FeatureSet, path: Path) -> np.ndarray:
    (column,) = features.compute(path).columns.values()
    return column


def check_column(features: FeatureSet, column: np.ndarray, chunks: int) -> None:
    (feature,) = features.columns.values()
    assert column.shape == (chunks, feature.bands, feature.frames)
    assert column.dtype == feature.dtype
    assert np.isfinite(column).all()


def test_a_feature_describes_its_chunks(features: FeatureSet) -> None:
    (feature,) = features.columns.values()
    assert feature.kind in ("spectrogram", "embedding")
    assert isinstance(feature.pitched, bool)
    assert isinstance(feature.dtype, np.dtype)
    assert feature.bands > 0
    assert feature.frames > (feature.kind == "spectrogram")
    if feature.kind == "embedding":
        assert sum(feature.groups.values()) == feature.bands  # type: ignore[attr-defined]
        assert len(feature.provenance) == 2  # type: ignore[attr-defined]
    assert features.chunk_bytes == feature.bands * feature.frames * feature.dtype.itemsize


def test_seven_seconds_are_cut_into_equal_chunks(features: FeatureSet, track: Path) -> None:
    if "array" in features.columns:
        chunks = 2  # of 38 columns, 77.5 ms apart: 2.9 s
    else:
        whole, rest = divmod(7, features.chunk_seconds)
        chunks = int(whole) + (features.keep_end and 2 * rest >= features.chunk_seconds)
    computed = features.compute(track)
    assert (computed.seconds, computed.chunks) == (7.0, chunks)
    check_column(features, column_of(features, track), chunks)


def test_a_track_shorter_than_a_chunk_is_one_chunk(features: FeatureSet, short_track: Path) -> None:
    check_column(features, column_of(features, short_track), 1)


def test_chunks_of_a_track_differ(features: FeatureSet, track: Path) -> None:
    column = column_of(features, track)
    assert all((chunk != column[0]).any() for chunk in column[1:])


def test_the_same_file_gives_the_same_values(features: FeatureSet, track: Path) -> None:
    np.testing.assert_array_equal(column_of(features, track), column_of(features, track))


def test_a_network_that_names_its_sample_rate_needs_nothing_but_chunks(
    features: FeatureSet, track: Path
) -> None:
    decoded = features.decode(track)
    alone = decoded.only_chunks(features.from_chunks.values()) if features.from_chunks else None
    for name in features.from_chunks:
        assert alone
        np.testing.assert_array_equal(
            features.column(name, alone), features.of(decoded).columns[name]
        )


def test_settings_are_plain_json(features: FeatureSet) -> None:
    content = features.to_json()
    assert json.loads(json.dumps(content)) == content
    assert feature_set_from_json(json.loads(json.dumps(content))) == features


def test_how_it_is_computed_is_described_as_plain_json(features: FeatureSet) -> None:
    described = features.described()
    assert json.loads(json.dumps(described)) == described
    (feature,), (one,) = features.columns.values(), described["inputs"].values()
    assert one["shape"] == ["chunks", feature.bands, feature.frames]
    assert one["dtype"] == str(feature.dtype)
    assert one["kind"]
    assert one["in_words"].endswith(".")


def test_equal_settings_are_one_key(features: FeatureSet) -> None:
    # `DecodedTrack.once` computes by it what several features need
    (feature,) = features.columns.values()
    (again,) = feature_set_from_json(features.to_json()).columns.values()
    assert again is not feature
    assert again == feature
    assert hash(again) == hash(feature)


def test_every_setting_has_a_sentence_of_help(features: FeatureSet) -> None:
    (feature,) = features.columns.values()
    for option in options(type(feature)):
        assert option.help.endswith("."), option.name


def test_features_computed_together_equal_those_computed_alone(folder: Path, track: Path) -> None:
    specs = []
    for name in HERE:
        argument = argument_of(name, folder)
        specs.append(f"{name}:{argument}" if argument else name)
    together = audio_features(DatasetConfig(features=tuple(specs)))
    columns = together.compute(track).columns
    names = [column.partition(":")[0] for column in columns]
    assert names == ["log_mel", *(n for n in HERE if n != "log_mel")]
    for name, column in columns.items():
        alone = together.only([name]).compute(track).columns
        assert list(alone) == [name]
        np.testing.assert_array_equal(column, alone[name])
