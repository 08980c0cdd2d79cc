"""The server's own computations, without a server; see tests/browser/test_serve.py for the rest."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mgc_ray.data.features import FeatureSet, TrackFeatures
from mgc_ray.data.features.array import Array
from mgc_ray.data.features.log_mel import LogMel

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("multipart", reason="python-multipart is not installed")


def _pixels(data_uri: str) -> np.ndarray:
    """uint8 [height, width, 3]."""
    png = base64.b64decode(data_uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


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
    picture = spectrogram_picture(features, TrackFeatures(song, np.nan, ""))
    assert picture
    pixels = _pixels(picture)
    assert pixels.shape == (3, 8, 3)
    brightness = pixels.astype(int).sum(2)
    assert (brightness[2, :4] > brightness[2, 4:]).all()
    assert (brightness[:2] == brightness[2, 7]).all()


def test_the_picture_of_a_long_song_has_about_1200_columns() -> None:
    from mgc_ray.serving.app import spectrogram_picture

    features = FeatureSet({"array": Array(bands=2, frames=500, value_type="uint8")})
    song = {"array": np.eye(2, 500, dtype=np.uint8)[None].repeat(10, 0)}
    picture = spectrogram_picture(features, TrackFeatures(song, np.nan, ""))
    assert picture
    assert _pixels(picture).shape == (2, 1250, 3)  # every fourth of 5000 frames


def test_features_without_a_spectrogram_have_no_picture() -> None:
    from mgc_ray.serving.app import spectrogram_picture

    class Embedding(Array):
        kind = "embedding"

    feature = Embedding(bands=3, frames=1, value_type="float32")
    song = {"encoder": np.ones((2, 3, 1), np.float32)}
    features = FeatureSet({"encoder": feature})
    assert spectrogram_picture(features, TrackFeatures(song, 6.0, "")) is None


def test_the_picture_shows_chunks_where_they_are_in_the_song() -> None:
    from mgc_ray.serving.app import spectrogram_picture

    # two chunks of 2 s and 4 frames in a song of 7 s; the second ends with the song
    x = np.full((2, 1, 4), 1.0, np.float32)
    x[0, 0, 0] = 0.0
    times = np.array([[0.0, 2.0], [5.0, 7.0]])
    features = FeatureSet({"array": Array(bands=1, frames=4, value_type="float32")})
    picture = spectrogram_picture(features, TrackFeatures({"array": x}, 7.0, "", times=times))
    assert picture
    pixels = _pixels(picture)
    assert pixels.shape == (1, 14, 3)  # two frames per second
    bright = pixels[0].astype(int).sum(1) > 300
    assert bright.tolist() == [False] + [True] * 3 + [False] * 6 + [True] * 4


def test_parts_of_a_song_are_where_the_chunks_are(tmp_path: Path) -> None:
    from mgc_ray.serving.app import part_times

    features = FeatureSet({"log_mel": LogMel(chunk_samples=66_000)})
    for seconds, expected in (
        (7.0, [(0.0, 2.99), (2.99, 5.99)]),  # 66,000 samples at 22,050 Hz; 1.01 s are in none
        (2.0, [(0.0, 2.0)]),  # repeated up to a chunk
    ):
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * 44_100))
        soundfile.write(tmp_path / "song.wav", samples, 44_100)
        assert part_times(features.compute(tmp_path / "song.wav")) == expected
    np.save(tmp_path / "song.npy", np.eye(4, 8, dtype=np.float32))
    arrays = FeatureSet({"array": Array(bands=4, frames=4, value_type="float32")})
    assert part_times(arrays.compute(tmp_path / "song.npy")) == [(None, None)] * 2


def test_the_length_of_a_song_is_stated_by_its_header(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from mgc_ray.serving.app import stated_seconds

    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 44_100)
    soundfile.write(tmp_path / "a.wav", samples, 22_050)
    assert stated_seconds(str(tmp_path / "a.wav")) == 2
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = bytes(4)  # as a program writes it that writes to a pipe
    (tmp_path / "a.wav").write_bytes(content)
    assert stated_seconds(str(tmp_path / "a.wav")) == 2
    soundfile.write(tmp_path / "a.mp3", samples, 22_050)
    (tmp_path / "a.mp3").write_bytes(b"RIFF" + (tmp_path / "a.mp3").read_bytes())
    assert stated_seconds(str(tmp_path / "a.mp3")) == 0
    assert capfd.readouterr().err == ""  # libmpg123 would write what it thinks of it
    (tmp_path / "a.raw").write_bytes(content)
    assert stated_seconds(str(tmp_path / "a.raw")) == 0
