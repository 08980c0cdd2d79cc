"""The server's own computations, without a server; see tests/browser/test_serve.py for the rest."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgc_ray.data.features import FeatureSet, chroma
from mgc_ray.data.features.array import Array
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.ensembling.saved import load_ensemble
from tests.made_models import Member, write_ensemble

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("multipart", reason="python-multipart is not installed")


def _pixels(data_uri: str) -> np.ndarray:
    """uint8 [height, width, 3]."""
    png = base64.b64decode(data_uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_songs_predicted_together_get_what_each_gets_alone(tmp_path: Path) -> None:
    from mgc_ray.serving.app import predict_together

    log_mel = LogMel(n_mels=8, chunk_samples=11 * 256)
    features = FeatureSet({"log_mel": log_mel, "chroma": chroma.Feature(log_mel=log_mel)})
    members = [
        Member("gru", {"hidden": 4, "features": "log_mel"}, 0.5, temperature=2.0),
        Member("cnn", {"blocks": 1, "channels": 2, "features": "all"}, 0.5, temperature=0.5),
    ]
    model = load_ensemble(write_ensemble(tmp_path / "ensemble", features, members, 1.5))
    random = np.random.default_rng(0)
    songs = [
        {
            "log_mel": random.normal(-30, 10, (chunks, 8, 12)).astype(np.float32),
            "chroma": random.uniform(0, 1, (chunks, 12, 12)).astype(np.float32),
        }
        for chunks in (1, 4, 2)
    ]
    together = predict_together(model, songs)
    assert [prediction.chunks.shape for prediction in together] == [(1, 3), (4, 3), (2, 3)]
    for song, prediction in zip(songs, together, strict=True):
        alone = model.predict_song(song)
        assert prediction.song == pytest.approx(alone.song, abs=1e-6)
        assert prediction.chunks == pytest.approx(alone.chunks, abs=1e-6)
    assert not np.allclose(together[0].song, together[2].song, atol=1e-6)


def test_the_picture_shows_the_first_spectrogram_with_low_bands_below() -> None:
    from mgc_ray.serving.app import spectrogram_picture

    features = FeatureSet(
        {
            "array": Array(bands=3, frames=4, value_type="float32"),
            "log_mel": LogMel(n_mels=8, chunk_samples=3 * 256),
        }
    )
    chunks = np.zeros((2, 3, 4), np.float32)
    chunks[0, 0] = 1  # the lowest band of the first chunk
    song = {"log_mel": np.ones((2, 8, 4), np.float32), "array": chunks}
    picture = spectrogram_picture(features, song)
    assert picture
    pixels = _pixels(picture)
    assert pixels.shape == (3, 8, 3)
    brightness = pixels.astype(int).sum(2)
    assert (brightness[2, :4] > brightness[2, 4:]).all()
    assert (brightness[:2] == brightness[2, 7]).all()


def test_the_picture_of_a_long_song_has_about_1200_columns() -> None:
    from mgc_ray.serving.app import spectrogram_picture

    features = FeatureSet({"array": Array(bands=2, frames=500, value_type="uint8")})
    picture = spectrogram_picture(
        features, {"array": np.eye(2, 500, dtype=np.uint8)[None].repeat(10, 0)}
    )
    assert picture
    assert _pixels(picture).shape == (2, 1250, 3)  # every fourth of 5000 frames


def test_features_without_a_spectrogram_have_no_picture() -> None:
    from mgc_ray.serving.app import spectrogram_picture

    class Embedding(Array):
        kind = "embedding"

    feature = Embedding(bands=3, frames=1, value_type="float32")
    song = {"encoder": np.ones((2, 3, 1), np.float32)}
    assert spectrogram_picture(FeatureSet({"encoder": feature}), song) is None
