"""The same numbers in batches with PyTorch, on the CPU, and on a GPU where there is one."""

import numpy as np
import pytest
import torch

import mgc_ray.data.spectrogram_torch
from mgc_ray import RequestError
from mgc_ray.data.spectrogram import LogMel
from mgc_ray.data.spectrogram_torch import log_mel, transform_tracks

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def waveforms(count: int, samples: int = 66_000) -> np.ndarray:
    """Tones of another pitch and level each, with noise and a silent part, float32 [count, n]."""
    random = np.random.default_rng(count)
    t = np.arange(samples) / 22_050
    rows = [
        10.0**-i * (np.sin(2 * np.pi * 110 * (i + 1) * t) + 0.01 * random.standard_normal(samples))
        for i in range(count)
    ]
    rows[0][samples // 2 :] = 0
    return np.array(rows, np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "features",
    [
        LogMel(),
        LogMel(n_fft=2048, hop_length=512, n_mels=40),
        LogMel(sample_rate=16_000, n_fft=512, hop_length=160, n_mels=64, top_db=60.0),
    ],
)
def test_a_batch_equals_its_waveforms_one_by_one(features: LogMel, device: str) -> None:
    samples = waveforms(5)
    decibel = log_mel(torch.from_numpy(samples).to(device), features)
    assert decibel.device.type == device
    assert decibel.dtype == torch.float32
    expected = np.stack([features.transform(one) for one in samples])
    np.testing.assert_allclose(decibel.cpu().numpy(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_tracks_of_any_length_share_batches(
    monkeypatch: pytest.MonkeyPatch, batch: int, device: str
) -> None:
    monkeypatch.setattr(mgc_ray.data.spectrogram_torch, "_BATCH", batch)
    features = LogMel(chunk_samples=8_000)
    tracks = [waveforms(count, 8_000) for count in (1, 4, 2)]
    made = transform_tracks(tracks, features, device)
    assert [len(chunks) for chunks in made] == [1, 4, 2]
    for chunks, track in zip(made, tracks, strict=True):
        assert chunks.dtype == np.float32
        np.testing.assert_allclose(chunks, features.transform(track), rtol=0, atol=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_pytorch_does_not_see_is_told() -> None:
    with pytest.raises(RequestError, match="PyTorch sees none there: install a CUDA build"):
        transform_tracks([waveforms(1)], LogMel(), "cuda")
