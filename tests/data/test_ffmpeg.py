"""Songs that libsndfile does not read, decoded by FFmpeg."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mgc_ray.data.audio import UnusableTrackError, read_waveform
from mgc_ray.data.ffmpeg import format_of, seconds_by_ffmpeg
from tests.made_songs import ENCODERS, encode


def _melody(rate: int, seconds: float = 2.0) -> np.ndarray:
    """Two channels of which the second is half as loud, float32 [samples, 2]."""
    time = np.arange(round(rate * seconds)) / rate
    tone = 0.4 * np.sin(2 * np.pi * (330 + 110 * time) * time)
    return np.stack([tone, tone / 2], 1).astype(np.float32)


def _song(folder: Path, ending: str, seconds: float = 2.0) -> Path:
    encoder, rate, format = ENCODERS[ending]
    return encode(folder / f"song.{ending}", _melody(rate, seconds), rate, encoder, format)


def _reason(path: Path) -> str:
    with pytest.raises(UnusableTrackError) as caught:
        read_waveform(path)
    return str(caught.value)


@pytest.mark.parametrize("ending", ENCODERS)
def test_each_format_gives_the_music_that_was_encoded(tmp_path: Path, ending: str) -> None:
    path = _song(tmp_path, ending)
    waveform = read_waveform(path)
    rate = ENCODERS[ending][1]
    assert (waveform.sample_rate, waveform.channels, waveform.lost_seconds) == (rate, 2, 0.0)
    assert waveform.seconds == pytest.approx(2.0, abs=0.1)
    # encoders delay the music by up to some thousand samples, where the file does not say so
    expected = _melody(rate).mean(1)
    middle = slice(rate // 2, rate)
    shift = int(np.argmax(np.correlate(waveform.samples, expected[middle]))) - rate // 2
    assert abs(shift) < (5000 if ending in ("aac", "ac3", "wma") else 2)
    decoded = np.roll(waveform.samples, -shift)[middle]
    assert np.corrcoef(expected[middle], decoded)[0, 1] > 0.99
    loudness = np.sqrt(np.mean(decoded**2))
    assert loudness == pytest.approx(np.sqrt(np.mean(expected[middle] ** 2)), rel=0.05)


def test_a_wrong_ending_does_not_matter(tmp_path: Path) -> None:
    path = _song(tmp_path, "m4a").rename(tmp_path / "song.mp3")
    assert read_waveform(path).seconds == pytest.approx(2.0, abs=0.1)


def test_the_length_is_read_from_the_header(tmp_path: Path) -> None:
    path = _song(tmp_path, "m4a", 5.0)
    assert seconds_by_ffmpeg(path, "mov") == pytest.approx(5.0, abs=0.1)
    assert seconds_by_ffmpeg(path, "asf") == 0.0  # which it is not


def test_what_is_missing_of_a_damaged_song_is_counted(tmp_path: Path) -> None:
    path = _song(tmp_path, "mka", 6.0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    path.write_bytes(content)
    waveform = read_waveform(path)
    assert 0 < waveform.lost_seconds < 3
    assert waveform.seconds + waveform.lost_seconds == pytest.approx(6.0, abs=0.1)
    path.write_bytes(content[: len(content) // 3])
    assert _reason(path).startswith("corrupt: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\0\0\0\x20ftypM4A " + bytes(1000), "not audio, or corrupt: "),
        (bytes.fromhex("3026b2758e66cf11") + bytes(1000), "not audio, or corrupt: "),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n/etc/passwd\n", "not audio, or corrupt: "),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not audio, or corrupt: "),
    ],
)
def test_what_is_no_song_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "song.m4a"
    path.write_bytes(content)
    assert _reason(path).startswith(words)


def test_a_playlist_is_nothing_that_ffmpeg_is_asked_to_read(tmp_path: Path) -> None:
    (tmp_path / "song.m4a").write_bytes(b"#EXTM3U\nhttp://example.org/a.aac\n")
    assert format_of(tmp_path / "song.m4a") == ""


def test_a_tag_may_stand_before_the_music(tmp_path: Path) -> None:
    path = _song(tmp_path, "aac")
    tag = b"ID3\x04\0\0" + bytes([0, 0, 2, 3])  # of 2 * 128 + 3 bytes
    path.write_bytes(tag + bytes(259) + path.read_bytes())
    assert format_of(path) == "aac"
    assert read_waveform(path).seconds == pytest.approx(2.0, abs=0.1)


def test_without_its_package_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _song(tmp_path, "m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    assert _reason(path) == ".m4a is decoded by the package av: pip install av"
    assert seconds_by_ffmpeg(path, "mov") == 0.0
