"""The features of an Audio Spectrogram Transformer: its own extractor's, and how a track is cut."""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.audio import UnusableTrackError, Waveform
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.features import FeatureSet, audio_features, feature_set_from_json
from mgc_ray.data.features.ast import Feature
from tests.data.features.made_ast import import_transformers, write_extractor

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")
RATE = 16_000
CHUNK = 10_240  # samples of 64 frames, 0.64 s


@pytest.fixture(scope="module")
def transformers() -> Any:
    return import_transformers()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_extractor(tmp_path_factory.mktemp("ast"), mean=-3.0, std=2.5)


@pytest.fixture(scope="module")
def features(model: Path) -> FeatureSet:
    return audio_features(DatasetConfig(features=f"ast:{model}"))


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(round(seconds * rate))
    return (0.1 * samples).astype(np.float32)


def chunks_of(features: FeatureSet, samples: np.ndarray, rate: int = RATE) -> np.ndarray:
    track = DecodedTrack(Waveform(samples, rate), None, features.chunk_seconds, features.keep_end)
    return features.of(track).columns["ast"]


# --- the numbers ---


def test_values_are_those_of_the_models_own_extractor(
    model: Path, features: FeatureSet, transformers: Any
) -> None:
    extractor = transformers.ASTFeatureExtractor.from_pretrained(model)
    samples = noise(2)
    chunks = chunks_of(features, samples)
    assert (chunks.shape, chunks.dtype) == ((3, 128, 64), np.float32)
    for chunk, start in zip(chunks, (0, CHUNK, 2 * CHUNK), strict=True):
        part = samples[start : start + CHUNK]
        expected = extractor(part, sampling_rate=RATE, return_tensors="np")["input_values"][0]
        np.testing.assert_allclose(chunk.T, expected, rtol=0, atol=1e-5)


def test_values_are_not_normalised_where_the_model_was_not(transformers: Any) -> None:
    plain, normalised = (
        FeatureSet({"ast": Feature(frames=64, mean=-3.0, std=2.5, do_normalize=on)}, 0.64)
        for on in (False, True)
    )
    one, other = (chunks_of(features, noise(0.7)) for features in (plain, normalised))
    np.testing.assert_allclose(other, (one + 3) / 5, rtol=0, atol=1e-5)


def test_a_tone_is_loudest_in_the_bands_around_it(features: FeatureSet) -> None:
    # 129 equal steps from mel(20 Hz) = 31.7 to mel(8 kHz) = 2840.0, of 21.8 each; 1 kHz is
    # 1000 mel, 44.5 steps from the lower end: between the centres of the 44th and the 45th band
    tone = np.sin(2 * np.pi * 1000 * np.arange(CHUNK) / RATE).astype(np.float32)
    (chunk,) = chunks_of(features, tone)
    assert set(np.argsort(chunk[:, :60].mean(axis=1))[-2:]) == {43, 44}


# --- how a track is cut ---


def test_a_chunk_is_what_the_model_takes_at_once(features: FeatureSet) -> None:
    assert (features.chunk_seconds, features.keep_end) == (0.64, True)
    assert Feature().chunk_seconds == 10.24
    assert str(features) == "ast 128 bands x 64 frames, 0.64 s per chunk"


def test_half_a_chunk_or_more_at_the_end_gives_one_more(features: FeatureSet) -> None:
    # the last chunk ends with the track, and so begins in the one before
    for length, starts in (
        (CHUNK, [0]),
        (CHUNK + CHUNK // 2 - 160, [0]),
        (CHUNK + CHUNK // 2, [0, CHUNK // 2]),
        (2 * CHUNK + CHUNK // 2 - 160, [0, CHUNK]),
        (2 * CHUNK + 8_000, [0, CHUNK, CHUNK + 8_000]),
    ):
        samples = noise(2)[:length]
        expected = [chunks_of(features, samples[start : start + CHUNK])[0] for start in starts]
        np.testing.assert_array_equal(chunks_of(features, samples), expected)


def test_a_short_track_is_repeated_up_to_one_chunk(features: FeatureSet) -> None:
    short = noise(0.2)
    expected = chunks_of(features, np.resize(short, CHUNK))
    np.testing.assert_array_equal(chunks_of(features, short), expected)


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [
        (0.64, 44_100),
        (0.96, 8_000),
        (92_157 / 96_000, 96_000),  # half a chunk is left at 16,000 Hz, rounded, and not at 22,050
        (1.6, 22_050),
        (2.24001, 44_100),
    ],
)
def test_other_features_have_the_same_chunks(model: Path, seconds: float, rate: int) -> None:
    both = audio_features(DatasetConfig(features=("log_mel", f"ast:{model}")))
    assert both.columns["log_mel"].frames == 1 + round(0.64 * 22_050) // 256
    track = DecodedTrack(Waveform(noise(seconds, rate), rate), None, 0.64, keep_end=True)
    columns = both.of(track).columns
    assert len(columns["ast"]) == len(columns["log_mel"])


def test_a_track_shorter_than_a_window_is_reported(features: FeatureSet) -> None:
    with pytest.raises(UnusableTrackError, match="shorter than one FFT window"):
        chunks_of(features, noise(1)[:740])


# --- the settings of a model ---


def test_the_settings_of_a_models_folder_are_used_without_a_warning(model: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = audio_features(DatasetConfig(features=f"ast:{model}"))
    expected = Feature(bands=128, frames=64, mean=-3.0, std=2.5, do_normalize=True)
    assert features.columns == {"ast": expected}
    assert feature_set_from_json(features.to_json()) == features


def request(folder: Path | str) -> FeatureSet:
    return audio_features(DatasetConfig(features=f"ast:{folder}"))


def test_a_feature_without_its_model_is_refused() -> None:
    with pytest.raises(
        RequestError,
        match="--features ast needs the model whose features they are: give ast:FOLDER or "
        "ast:OWNER/NAME",
    ):
        audio_features(DatasetConfig(features="ast"))


def test_another_length_of_chunks_is_refused(model: Path) -> None:
    with pytest.raises(
        RequestError,
        match="--chunk-seconds must be left out with ast, whose chunks last 0.64 s, but it is 5",
    ):
        audio_features(DatasetConfig(features=f"ast:{model}", chunk_seconds=5))


def test_another_sample_rate_is_refused(tmp_path: Path) -> None:
    write_extractor(tmp_path, sampling_rate=22_050)
    with pytest.raises(RequestError, match="must take 16000 Hz, but .* takes 22050 Hz: give anoth"):
        request(tmp_path)


def test_another_kind_of_model_is_refused(transformers: Any, tmp_path: Path) -> None:
    write_extractor(tmp_path)
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(
        RequestError, match="must be an audio-spectrogram-transformer, but it is a vit: "
    ):
        request(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_the_settings_of_an_extractor_is_refused(
    transformers: Any, tmp_path: Path, content: str | None
) -> None:
    transformers.ASTConfig().save_pretrained(tmp_path)
    if content:
        (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(RequestError, match="is no audio-spectrogram-transformer that can be read"):
        request(tmp_path)


def test_a_name_that_the_hub_does_not_have_is_refused(
    transformers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    reason = r"results/grü-001 \(no folder here, so a name in the hub\) is no audio-spectrogram"
    with pytest.raises(RequestError, match=reason):
        request("results/grü-001")


def test_without_transformers_a_model_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    reason = r'needs the library transformers, but here: .* Install it: pip install "mgc-ray\[hf\]"'
    with pytest.raises(RequestError, match=reason):
        request(tmp_path)
