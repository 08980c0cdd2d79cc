"""Hidden layers of encoders of transformers, on tiny models that are made here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.audio import Waveform
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.features import audio_features, feature_set_from_json
from mgc_ray.data.features._embedding import _on_device
from tests.data.features.made_ast import import_transformers
from tests.data.features.made_hf import write_hubert, write_wav2vec2, write_whisper

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")
RATE = 16_000


@pytest.fixture(scope="module")
def transformers() -> Any:
    return import_transformers()


def sound(seconds: float) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return (0.1 * samples).astype(np.float32)


@pytest.mark.parametrize("write", [write_wav2vec2, write_hubert])
def test_outputs_are_mean_and_deviation_of_each_layer(
    write: Callable[[Path], Path], tmp_path: Path, transformers: Any
) -> None:
    folder = write(tmp_path / "tiny")
    features = audio_features(DatasetConfig(features=(f"hf:{folder}",), chunk_seconds=1))
    (feature,) = features.columns.values()
    assert list(features.columns) == ["hf:tiny"]
    track = DecodedTrack(Waveform(sound(2.5), RATE), None, 1.0)
    values = feature.compute(track)
    assert (values.shape, values.dtype) == ((2, 3 * 2 * 16, 1), np.float16)
    assert feature.groups == {"layer0": 32, "layer1": 32, "layer2": 32}  # type: ignore[attr-defined]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    part = extractor(sound(2.5)[RATE : 2 * RATE], sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        states = network(**part, output_hidden_states=True).hidden_states
    for number, state in enumerate(states):
        found = values[1, 32 * number : 32 * (number + 1), 0].astype(np.float32)
        expected = torch.cat([state[0].mean(0), state[0].std(0, correction=0)])
        np.testing.assert_allclose(found, expected, atol=2e-3)
    assert feature_set_from_json(features.to_json()) == features


def test_licence_and_training_are_those_of_the_card(tmp_path: Path) -> None:
    folder = write_wav2vec2(tmp_path / "tiny")
    spec = DatasetConfig(features=(f"hf:{folder}",))
    (feature,) = audio_features(spec).columns.values()
    assert feature.provenance == ("tiny, licence not stated", "not stated")  # type: ignore[attr-defined]
    (folder / "README.md").write_text("---\nlicense: mit\ndatasets: [fma]\n---\n")
    (feature,) = audio_features(spec).columns.values()
    assert feature.provenance == ("tiny, licence mit", "trained on fma")  # type: ignore[attr-defined]


def test_other_weights_than_those_of_the_dataset_are_refused(tmp_path: Path) -> None:
    folder = write_wav2vec2(tmp_path / "tiny", seed=0)
    (feature,) = audio_features(DatasetConfig(features=(f"hf:{folder}",))).columns.values()
    write_wav2vec2(folder, seed=1)
    with pytest.raises(RequestError, match="must have the weights that the features were made"):
        _on_device(feature)  # type: ignore[arg-type]


def test_what_is_no_encoder_of_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="needs an audio encoder: give hf:FOLDER or hf:OWNER"):
        audio_features(DatasetConfig(features=("hf",)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RequestError, match="is no audio encoder that can be read .*: give a fold"):
        audio_features(DatasetConfig(features=(f"hf:{tmp_path}",)))
    folder = write_whisper(tmp_path / "whisper")
    with pytest.raises(RequestError, match="must be an encoder of audio .* but it is 'whisper'"):
        audio_features(DatasetConfig(features=(f"hf:{folder}",)))
