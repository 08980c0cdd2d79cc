"""Features in files outside of the package: found, identified, sent to other processes, refused."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mgc_ray
from mgc_ray import RequestError
from mgc_ray.config import CHUNK_SECONDS, DatasetConfig
from mgc_ray.data.audio import Waveform
from mgc_ray.data.features import (
    DecodedTrack,
    FeatureSet,
    _embedding,
    _own,
    audio_features,
    feature_arguments,
    feature_names,
    feature_set_from_json,
    kinds_of,
    named_features,
    register_feature,
)
from mgc_ray.data.files import MissingFileError
from tests.data.features.made_own import LOUDNESS, example, write_encoder


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(_own, "_versions", {})
    monkeypatch.setattr(_own, "_current", {})


@pytest.fixture
def own_file(tmp_path: Path) -> Callable[..., Path]:
    def write(source: str = LOUDNESS, name: str = "loudness") -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        return path

    return write


def set_of(*features: object, **settings: Any) -> FeatureSet:
    return audio_features(DatasetConfig(features=tuple(map(str, features)), **settings))


def noise(seconds: float = 7, chunk_seconds: float = CHUNK_SECONDS) -> DecodedTrack:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * 22_050))
    return DecodedTrack(Waveform(samples.astype(np.float32), 22_050), None, chunk_seconds)


def test_the_example_of_the_documentation_is_an_encoder_in_25_lines(tmp_path: Path) -> None:
    assert len(example().strip().splitlines()) <= 25
    features = set_of("log_mel", write_encoder(tmp_path))
    assert list(features.columns) == ["log_mel", "my_encoder"]
    encoder: Any = features.columns["my_encoder"]
    assert encoder.provenance == ("my_net, licence CC BY 4.0", "1,000 hours of folk music")
    assert kinds_of(DatasetConfig(features=("my_encoder",))) == {"embedding"}
    track = noise()
    values = features.of(track).columns["my_encoder"]
    assert values.shape == (2, 128, 1)
    assert values.dtype == encoder.dtype
    network = torch.nn.Conv1d(1, 64, kernel_size=512, stride=160)
    network.load_state_dict(torch.load(tmp_path / "my_encoder.pt", weights_only=True))
    heard = network(torch.from_numpy(track.chunks(16_000))[:, None]).relu()
    expected = torch.cat([heard.mean(2), heard.amax(2)], 1).detach().numpy()
    np.testing.assert_allclose(values[:, :, 0], expected, rtol=1e-4, atol=1e-5)


def test_many_chunks_are_computed_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = set_of(write_encoder(tmp_path), chunk_seconds=1)
    (batches,) = features.of(noise(20, 1)).columns.values()
    monkeypatch.setattr(_embedding, "_BATCH", 100)
    (together,) = features.of(noise(20, 1)).columns.values()
    assert len(batches) == 20
    np.testing.assert_allclose(batches, together, rtol=1e-4, atol=1e-5)


def test_a_file_has_arguments_and_columns_as_those_of_the_package(
    own_file: Callable[..., Path],
) -> None:
    path = own_file()
    features = set_of(f"{path}:db", path, chunk_seconds=2)
    assert list(features.columns) == ["loudness", "loudness:db"]
    columns = features.of(noise(7, 2)).columns
    assert columns["loudness:db"].shape == (3, 1, 20)
    decibels = 10 * np.log10(columns["loudness"])
    np.testing.assert_allclose(columns["loudness:db"], decibels, rtol=1e-4)
    assert kinds_of(DatasetConfig(features=(f"{path}:db",))) == {"spectrogram"}
    with pytest.raises(RequestError, match=r"loudness must be one of loudness:db, loudness:power"):
        set_of(f"{path}:dbb")
    # names, as configurations hold them, and back, as config.toml has them
    names = named_features(["log_mel", f"{path}:db"])
    assert names == ("log_mel", "loudness:db")
    assert feature_arguments(names) == ("log_mel", f"{path.resolve()}:db")
    assert feature_arguments(("log_mel", "loudness")) == ("log_mel", str(path.resolve()))


def test_python_code_registers_a_file(own_file: Callable[..., Path]) -> None:
    assert mgc_ray.register_feature(own_file()) == "loudness"
    assert "loudness" in feature_names()
    assert list(set_of("loudness:power").columns) == ["loudness:power"]


def test_a_changed_file_is_another_feature(own_file: Callable[..., Path]) -> None:
    before = set_of(own_file())
    after = set_of(own_file(LOUDNESS.replace("800", "400")))
    assert before != after
    assert before.to_json() != after.to_json()
    assert before.columns != after.columns
    assert feature_set_from_json(before.to_json()) == before  # both are known here
    assert feature_set_from_json(after.to_json()) == after
    quiet, loud = (one.of(noise()).columns["loudness"] for one in (before, after))
    assert quiet.shape == loud.shape
    assert (quiet != loud).any()
    assert not before.joins(after)
    assert not set_of("loudness:db").joins(feature_set_from_json(before.to_json()))


def test_changed_weights_are_another_feature(tmp_path: Path) -> None:
    path = write_encoder(tmp_path)
    before = set_of(path)
    assert set_of(path) == before
    content = before.to_json()
    _own.identified.cache_clear()  # as in another process
    write_encoder(tmp_path, seed=1)
    after = set_of(path)
    assert after.files == before.files
    assert after != before
    with pytest.raises(RequestError, match="my_net, licence CC BY 4.0 must have the weights that"):
        feature_set_from_json(content).of(noise())


def test_a_dataset_or_model_of_another_file_is_refused(own_file: Callable[..., Path]) -> None:
    content = set_of(own_file()).to_json()
    _own._versions.clear()
    _own._current.clear()
    with pytest.raises(MissingFileError, match="add --features FILE, the loudness.py that it was"):
        feature_set_from_json(content)
    register_feature(own_file(LOUDNESS + "\n# changed"))
    with pytest.raises(MissingFileError, match=r"loudness.py that was used before \(hash \w{16}\)"):
        feature_set_from_json(content)
    del content["files"]
    with pytest.raises(RequestError, match="there is no feature 'loudness'"):
        feature_set_from_json(content)


def test_what_only_reads_other_features_needs_no_file(own_file: Callable[..., Path]) -> None:
    features = set_of("log_mel", own_file())
    assert features.only(["log_mel"]).to_json() == set_of("log_mel").to_json()
    assert features.only(["loudness"]).files == features.files


def test_another_process_gets_the_file_with_the_features(tmp_path: Path) -> None:
    features = set_of("log_mel", write_encoder(tmp_path))
    assert copy.deepcopy(features) == features
    assert pickle.loads(pickle.dumps(features)) == features
    assert pickle.loads(pickle.dumps(set_of("log_mel"))) == set_of("log_mel")
    (tmp_path / "my_encoder.py").unlink()
    (tmp_path / "pickled").write_bytes(pickle.dumps((features, noise().waveform)))
    program = (
        "import pickle, sys\n"
        "from mgc_ray.data.decoded import DecodedTrack\n"
        "features, waveform = pickle.load(open('pickled', 'rb'))\n"
        "values = features.of(DecodedTrack(waveform)).columns['my_encoder']\n"
        "pickle.dump(values, open('values', 'wb'))\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
    values = pickle.loads((tmp_path / "values").read_bytes())
    np.testing.assert_array_equal(values, features.of(noise()).columns["my_encoder"])


BANDS = "    bands = 1\n"


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("log_mel", LOUDNESS, "must be named like a Python variable, and unlike ast, chroma, "),
        ("array", LOUDNESS, "must be named like a Python variable"),
        ("track_id", LOUDNESS, "must be named like a Python variable"),
        ("my-encoder", LOUDNESS, "must be named like a Python variable"),
        ("loudness", "def", "loudness.py cannot be read as Python: "),
        ("loudness", "x = 1\n1 / 0", "cannot be used: ZeroDivisionError: division by zero, line 2"),
        ("loudness", "class Features: ...", "loudness.py must have a class Feature: see mgc_ray/"),
        (
            "loudness",
            LOUDNESS.replace('"spectrogram"', '"wave"'),
            "kind of the feature must be spectrogram or embedding, but it is 'wave': see",
        ),
        ("loudness", LOUDNESS.replace(BANDS, ""), "bands of the feature must be a whole number"),
        (
            "loudness",
            LOUDNESS.replace('"spectrogram"', '"embedding"'),
            "groups of the feature must be {name: how many bands}, together as many as bands",
        ),
        (
            "loudness",
            LOUDNESS.replace("return Feature(unit", "return Features(unit"),
            "cannot be used: NameError: name 'Features' is not defined, line 31",
        ),
        (
            "loudness",
            LOUDNESS.replace('return f"loudness:{argument}"', 'return f"log_mel:{argument}"'),
            "column must give loudness, or loudness:..., but it gave 'log_mel:db'",
        ),
    ],
)
def test_a_file_that_is_no_feature_is_refused(
    own_file: Callable[..., Path], name: str, source: str, message: str
) -> None:
    with pytest.raises(RequestError) as error:
        set_of(f"{own_file(source, name)}:db")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            LOUDNESS.replace("track.chunks(8_000)", "track.chunk(8_000)"),
            "AttributeError: 'DecodedTrack' object has no attribute 'chunk', line 21",
        ),
        (
            LOUDNESS.replace("values[:, None]", "values"),
            r"compute must give float32 [chunks, 1, 29], but it gave float32 (2, 29)",
        ),
        (
            LOUDNESS.replace("astype(np.float32)", "astype(np.float64)"),
            "compute must give float32 [chunks, 1, 29], but it gave float64 (2, 1, 29)",
        ),
        (
            LOUDNESS.replace("10 * np.log10(power + 1e-9)", "power / 0"),
            "compute must give finite numbers, but it gave NaN or infinity",
        ),
        (LOUDNESS.replace("return values", "return list(values) #"), "but it gave list"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_values_that_are_not_what_the_file_promises_are_refused(
    own_file: Callable[..., Path], source: str, message: str
) -> None:
    features = set_of(f"{own_file(source)}:db")
    with pytest.raises(RequestError) as error:
        features.of(noise())
    assert message in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--features .*nowhere.py cannot be read as Python"):
        set_of(tmp_path / "nowhere.py")
