"""The networks of musicnn give what the original code gives, from the weights of its package."""

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.audio import Waveform
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.features import audio_features, feature_set_from_json
from mgc_ray.data.features._musicnn_networks import MusicNN
from mgc_ray.data.features._tf_checkpoint import read_tensors
from mgc_ray.data.features.musicnn import Feature, load_weights

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("musicnn") is None, reason="the package musicnn is not installed"
)

# By musicnn 0.1.0 with TensorFlow 2.21 of the sound below: the first four values of each group of
# outputs (vgg: mean and max of pool4, pool5, tags), and the sum of all.
REFERENCE = {
    "MSD_musicnn": (
        [(2.2583e-06, 2.0688e-06, -2.9688e-06, -2.0285e-06), -2.684046],
        [(2.2583e-06, 2.0688e-06, -2.9688e-06, -2.0285e-06), 1427.644],
        [(-0.17718, 1.4977, -0.28483, -0.27512), 74.53053],
        [(0.037562, 0.0097605, 0.018916, 0.030305), 1.026289],
    ),
    "MSD_vgg": (
        [(9.3368e-07, 7.0129e-07, -1.0265, -0.51403), -50.22914],
        [(9.3368e-07, 7.0129e-07, -1.0265, 1.9525), 148.4168],
        [(-0.0064976, -0.76918, -0.13298, -0.59732), -1.465335],
        [(0.14114, 0.031453, 0.057153, 0.057258), 1.327983],
    ),
    "MTT_musicnn": (
        [(-0.00022635, -0.62417, 2.5953, 8.2033e-06), 184.3173],
        [(-0.00019871, -0.62417, 5.748, 8.2033e-06), 1031.081],
        [(1.0601, -0.032879, -0.092263, -0.18606), 45.31069],
        [(0.040351, 0.013726, 0.20727, 0.012297), 1.182234],
    ),
    "MTT_vgg": (
        [(-0.53741, -0.28902, -0.04624, -1.0871e-05), 46.40642],
        [(0.5199, 1.2455, 1.028, -1.0871e-05), 438.9786],
        [(-0.28238, 0.63123, -0.078724, 0.46796), 93.31119],
        [(0.050659, 0.14139, 0.33947, 7.0886e-05), 1.300612],
    ),
}
SAMPLES = 186 * 256  # 187 frames, one patch


def sound() -> np.ndarray:
    t = np.arange(SAMPLES) / 16_000
    sweep = 0.02 * np.sin(2 * np.pi * (220 * t + 300 * t**2)) * (1 + np.sin(4 * np.pi * t)) / 2
    return (sweep + 0.01 * np.sign(np.sin(2 * np.pi * 110 * t))).astype(np.float32)


def track(samples: np.ndarray, chunk_samples: int) -> DecodedTrack:
    return DecodedTrack(Waveform(samples, 16_000), chunk_seconds=chunk_samples / 16_000)


@needs_weights
@pytest.mark.parametrize("model", REFERENCE)
def test_outputs_are_those_of_the_original_code(model: str) -> None:
    feature = Feature(model=model, chunk_samples=SAMPLES)
    values = feature.compute(track(sound(), SAMPLES))
    assert (
        values.shape == (1, feature.bands, feature.frames) == (1, sum(feature.groups.values()), 1)
    )
    groups = np.split(values[0, :, 0], np.cumsum([*feature.groups.values()])[:-1])
    for found, (first, total) in zip(groups, REFERENCE[model], strict=True):
        # the original takes the logarithm in float16
        assert found[:4] == pytest.approx(first, abs=4e-3)
        assert found.sum() == pytest.approx(total, rel=2e-3)


@needs_weights
def test_a_chunk_has_a_frame_per_patch_and_a_short_one_is_repeated() -> None:
    samples = np.concatenate([sound(), 0.3 * sound(), sound()[:1000]])
    feature = Feature(chunk_samples=len(samples))
    values = feature.compute(track(samples, len(samples)))
    alone = Feature(chunk_samples=SAMPLES).compute(track(sound(), SAMPLES))
    assert values.shape == (1, 1756, 2)
    tags, alone = values[0, -50:], alone[0, -50:, 0]
    assert np.abs(tags[:, 0] - alone).max() < 0.02  # its last frame has other samples
    assert np.abs(tags[:, 1] - alone).max() > 0.02
    half = Feature(chunk_samples=SAMPLES // 2)
    twice = np.tile(sound()[: SAMPLES // 2], 2)
    expected = Feature(chunk_samples=SAMPLES).compute(track(twice, SAMPLES))
    found = half.compute(track(twice[: SAMPLES // 2], SAMPLES // 2))
    assert found == pytest.approx(expected, abs=1e-4)


@needs_weights
def test_loud_music_does_not_overflow() -> None:
    values = Feature(chunk_samples=SAMPLES).compute(track(50 * sound(), SAMPLES))
    assert np.isfinite(values).all()


@needs_weights
def test_several_networks_have_a_column_each() -> None:
    config = DatasetConfig(features=("musicnn", "log_mel", "musicnn:MTT_vgg"))
    features = audio_features(config)
    assert list(features.columns) == ["log_mel", "musicnn", "musicnn:MTT_vgg"]
    provenance = features.columns["musicnn:MTT_vgg"].provenance  # type: ignore[attr-defined]
    assert provenance == ("MTT_vgg of musicnn 0.1.0, ISC licence", "tags of MagnaTagATune")
    assert feature_set_from_json(features.to_json()) == features


@needs_weights
def test_a_network_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match="MSD_musicnn, .* but it is musicnn:MSD_musicn .nearest"):
        audio_features(DatasetConfig(features=("musicnn:MSD_musicn",)))


def test_without_the_package_its_installation_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("MUSICNN", raising=False)
    with pytest.raises(RequestError, match="pip install --no-deps musicnn==0.1.0"):
        audio_features(DatasetConfig(features=("musicnn",)))
    (tmp_path / "MSD_musicnn").mkdir()
    (tmp_path / "MSD_musicnn/.index").write_bytes(b"damaged")
    (tmp_path / "MSD_musicnn/.data-00000-of-00001").touch()
    monkeypatch.setenv("MUSICNN", str(tmp_path))
    with pytest.raises(RequestError, match="cannot be read from .* no table of TensorFlow"):
        load_weights(MusicNN(), "MSD_musicnn")
    monkeypatch.setenv("MUSICNN", str(tmp_path / "missing.whl"))
    with pytest.raises(RequestError, match="MUSICNN names .*missing.whl, which does not exist"):
        load_weights(MusicNN(), "MSD_musicnn")


def table(blocks: list[bytes]) -> bytes:
    """An SSTable of blocks whose index is the last one."""
    out = b"".join(block + b"\0" + bytes(4) for block in blocks)
    start = len(out) - len(blocks[-1]) - 5
    footer = b"\0\0" + varint(start) + varint(len(blocks[-1]))
    return out + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def block(entries: list[tuple[int, bytes, bytes]]) -> bytes:
    """Of (length of the shared prefix, rest of the key, value)."""
    parts = [
        varint(shared) + varint(len(rest)) + varint(len(value)) + rest + value
        for shared, rest, value in entries
    ]
    return b"".join(parts) + struct.pack("<II", 0, 1)


def entry(shape: tuple[int, ...], start: int, size: int) -> bytes:
    """A BundleEntryProto of float32."""
    dims = b"".join(b"\x12\x02\x08" + bytes([n]) for n in shape)
    place = (b"\x20" + varint(start) if start else b"") + b"\x28" + varint(size)
    return b"\x08\x01\x12" + varint(len(dims)) + dims + place + b"\x35" + bytes(4)


def checkpoint(size: int = 24) -> bytes:
    first = entry((2, 3), 0, size)
    data = block(
        [(0, b"", b"\x08\x01"), (0, b"conv/kernel", first), (5, b"bias", entry((2,), 24, 8))]
    )
    index = block([(0, b"z", b"\0" + varint(len(data)))])
    return table([data, index])


def test_a_checkpoint_is_read_by_names_shapes_and_places() -> None:
    values = np.arange(8, dtype="<f4")
    tensors = read_tensors(checkpoint(), values.tobytes())
    assert list(tensors) == ["conv/kernel", "conv/bias"]
    assert tensors["conv/kernel"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["conv/bias"].tolist() == [6, 7]


@pytest.mark.parametrize(
    ("index", "data"),
    [(checkpoint(), b"short"), (checkpoint(size=20), bytes(32)), (checkpoint()[9:], bytes(32))],
)
def test_a_damaged_checkpoint_is_a_value_error(index: bytes, data: bytes) -> None:
    with pytest.raises(ValueError, match="its data has|cannot reshape|no tensors"):
        read_tensors(index, data)
