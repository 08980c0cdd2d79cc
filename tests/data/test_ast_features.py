"""An Audio Spectrogram Transformer's features: the extractor's numbers, and how a track is cut."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mgc_ray import RequestError
from mgc_ray.data.ast_fbank import AstFbank, ast_features
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.hugging_face import is_hugging_face
from mgc_ray.data.spectrogram import features_from_json, features_to_json

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")
RATE = 16_000
CHUNK = 1023 * 160 + 400  # samples of 1024 frames
FLOOR = -23 * np.log(2)


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason='needs pip install "mgc-ray[hf]"')


@pytest.fixture(scope="module")
def model(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two files that the features depend on."""
    folder = tmp_path_factory.mktemp("ast")
    transformers.ASTConfig(max_length=64).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=64).save_pretrained(folder)
    return folder


def noise(seconds: float) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return (0.1 * samples).astype(np.float32)


def wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def sound(name: str) -> np.ndarray:
    t = np.arange(CHUNK) / RATE
    if name == "loud tone":  # rounding of a float32 FFT would show beside it
        return (0.9 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    if name == "offset, then silence":
        return np.where(t < 5, noise(11)[:CHUNK] + 0.3, 0).astype(np.float32)
    return noise(11)[:CHUNK]


# --- the numbers ---


@pytest.mark.parametrize("name", ["noise", "loud tone", "offset, then silence"])
def test_the_values_are_those_of_the_extractor(
    name: str, tmp_path: Path, transformers: Any
) -> None:
    if transformers.utils.is_speech_available():
        pytest.skip("torchaudio is installed, which the extractor would take")
    extractor = transformers.ASTFeatureExtractor(do_normalize=False)
    (expected,) = extractor(sound(name), sampling_rate=RATE)["input_values"]
    (chunk,) = AstFbank().chunks(wav(tmp_path / "a.wav", sound(name)))
    np.testing.assert_allclose(chunk.T, expected, rtol=0, atol=1e-5)


def test_a_tone_is_loudest_in_the_bands_around_it() -> None:
    # 129 equal steps from mel(20 Hz) = 31.7 to mel(8 kHz) = 2840.0, of 21.8 each; 1 kHz is
    # 1000 mel, 44.5 steps from the lower end: between the centres of the 44th and the 45th band
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    energies = AstFbank().transform(tone)
    assert set(np.argsort(energies.mean(axis=1))[-2:]) == {43, 44}


def test_silence_inside_a_track_is_the_floor() -> None:
    energies = AstFbank().transform(np.zeros(4000, np.float32))
    np.testing.assert_allclose(energies, FLOOR, rtol=1e-6)


# --- how a track is cut ---


def test_thirty_seconds_are_three_chunks_of_which_the_last_ends_with_the_track(
    tmp_path: Path,
) -> None:
    # 480,000 samples are 1 + (480,000 - 400) // 160 = 2998 frames, two chunks and 950 frames
    samples = noise(30)
    path = wav(tmp_path / "a.wav", samples)
    chunks = AstFbank().chunks(path)
    assert (chunks.shape, chunks.dtype) == ((3, 128, 1024), np.float32)
    assert AstFbank().inspect(path).chunks == 3
    for chunk, start in zip(chunks, (0, 1024, 2998 - 1024), strict=True):
        alone = AstFbank().transform(samples[start * 160 :][:CHUNK])
        np.testing.assert_allclose(chunk, alone, atol=1e-5)


def test_less_than_half_a_chunk_at_the_end_is_left_out(tmp_path: Path) -> None:
    features = AstFbank(frames=10)  # 1,840 samples
    for frames, starts in ((24, [0, 10]), (25, [0, 10, 15]), (14, [0]), (10, [0]), (15, [0, 5])):
        samples = noise(1)[: 400 + (frames - 1) * 160]
        path = wav(tmp_path / f"{frames}.wav", samples)
        whole = features.transform(samples)
        expected = [whole[:, start : start + 10] for start in starts]
        np.testing.assert_array_equal(features.chunks(path), expected)
        assert features.inspect(path).chunks == len(starts)


def test_a_short_track_is_repeated_up_to_a_chunk(tmp_path: Path) -> None:
    second = noise(1)
    (chunk,) = AstFbank().chunks(wav(tmp_path / "a.wav", second))
    expected = AstFbank().transform(np.resize(second, CHUNK))
    np.testing.assert_array_equal(chunk, expected)
    assert AstFbank().inspect(tmp_path / "a.wav").chunks == 1


@pytest.mark.parametrize("seconds", [10.24, 10.255, 15.38, 25.6001, 30.013])
@pytest.mark.parametrize("rate", [22_050, 44_100, 8_000])
def test_as_many_chunks_as_inspection_says(tmp_path: Path, seconds: float, rate: int) -> None:
    samples = np.resize(noise(3), round(seconds * rate))
    path = wav(tmp_path / "a.wav", samples, rate)
    features = AstFbank()
    assert len(features.chunks(path)) == features.inspect(path).chunks


def test_less_than_a_window_is_no_track(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(1)[:399])
    for look in (AstFbank().inspect, AstFbank().chunks):
        with pytest.raises(UnusableTrackError, match=r"shorter than one FFT window \(400 samples"):
            look(path)


# --- settings ---


def test_settings_go_to_json_and_back() -> None:
    features = AstFbank(bands=64, frames=128)
    assert features_to_json(features) == {"kind": "ast_fbank", "bands": 64, "frames": 128}
    assert features_from_json(features_to_json(features)) == features
    assert features.groups == {"fbank": slice(0, 64)}


def test_workers_need_neither_torch_nor_transformers(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(1))
    program = (
        "import sys\n"
        "from mgc_ray.data.spectrogram import features_from_json\n"
        "features_from_json({'kind': 'ast_fbank', 'bands': 128, 'frames': 64})"
        f".chunks({str(path)!r})\n"
        "print({'torch', 'transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


# --- the model's own settings ---


def test_a_models_folder_tells_its_features(model: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ast_features(model) == ast_features(str(model)) == AstFbank(bands=128, frames=64)


def test_another_sample_rate_is_refused(transformers: Any, tmp_path: Path) -> None:
    transformers.ASTConfig().save_pretrained(tmp_path)
    transformers.ASTFeatureExtractor(sampling_rate=22_050).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="must take 16000 Hz, but .* takes 22050 Hz: name"):
        ast_features(tmp_path)


def test_another_kind_of_model_is_refused(transformers: Any, tmp_path: Path) -> None:
    transformers.ViTConfig().save_pretrained(tmp_path)
    transformers.ASTFeatureExtractor().save_pretrained(tmp_path)
    told = "must be an audio-spectrogram-transformer, but it is a vit: name a folder with"
    with pytest.raises(RequestError, match=told):
        ast_features(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_settings_is_refused(
    transformers: Any, tmp_path: Path, content: str | None
) -> None:
    transformers.ASTConfig().save_pretrained(tmp_path)
    if content:
        (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(RequestError, match="is no audio-spectrogram-transformer that can be read"):
        ast_features(tmp_path)


def test_a_name_that_the_hub_does_not_give_is_refused(
    transformers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told = r"results/grü-001 \(no folder here, so a name in the hub\) is no audio-spectrogram"
    with pytest.raises(RequestError, match=told):
        ast_features("results/grü-001")


def test_without_transformers_a_model_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    told = r'needs the library transformers, but here: .* Install it: pip install "mgc-ray\[hf\]"'
    with pytest.raises(RequestError, match=told):
        ast_features(tmp_path)


def test_a_model_of_hugging_face_is_known_by_its_folder_or_its_name(tmp_path: Path) -> None:
    assert is_hugging_face("MIT/ast-finetuned-audioset-10-10-0.4593")
    assert not is_hugging_face("gru-001")
    assert not is_hugging_face("results/gru-001/ensemble")
    assert not is_hugging_face(tmp_path)
    (tmp_path / "config.json").write_text('{"family": "gru"}')
    assert not is_hugging_face(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    assert is_hugging_face(tmp_path)
