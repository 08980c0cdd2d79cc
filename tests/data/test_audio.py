"""Audio files -> waveforms, and the reason why a file cannot be a track."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import mgc_ray.data.decoding
from mgc_ray.data.audio import UnusableTrackError, Waveform, check_openable, read_waveform
from mgc_ray.data.decoding import open_sound
from mgc_ray.reporting.songs import excerpt

RATE = 22050
NOBODY = 65534


def tone(samples: int = 5000, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(samples) / rate)).astype(np.float32)


def noise(samples: int = 5000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def written(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def reason(path: str | Path) -> str:
    with pytest.raises(UnusableTrackError) as caught:
        read_waveform(path)
    return str(caught.value)


# --- decoding ---


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "PCM_U8", 2**-7),
        ("a.au", "PCM_16", 2**-15),
        ("a.flac", "PCM_16", 2**-15),
        ("a.flac", "PCM_24", 2**-23),
        ("a.aiff", "PCM_16", 2**-15),
    ],
)
def test_lossless_formats_preserve_the_samples(
    tmp_path: Path, name: str, subtype: str, tolerance: float
) -> None:
    samples = noise()
    waveform = read_waveform(written(tmp_path / name, samples, subtype=subtype))
    assert waveform.sample_rate == RATE
    assert waveform.samples.dtype == np.float32
    assert waveform.samples.shape == (5000,)
    assert np.abs(waveform.samples - samples).max() <= tolerance


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_formats_preserve_the_tone(tmp_path: Path, name: str, channels: int) -> None:
    samples = tone(RATE, 44100)
    path = written(tmp_path / name, np.stack([samples] * channels, axis=1), 44100)
    waveform = read_waveform(path)
    assert waveform.sample_rate == 44100
    assert abs(len(waveform.samples) - RATE) < 2304  # two MP3 frames of padding at most
    loudest = np.abs(np.fft.rfft(waveform.samples)).argmax() * 44100 / len(waveform.samples)
    assert loudest == pytest.approx(440, abs=3)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_the_files_own_sample_rate_is_kept(tmp_path: Path, rate: int) -> None:
    waveform = read_waveform(written(tmp_path / "a.wav", tone(2 * rate, rate), rate))
    assert waveform.sample_rate == rate
    assert len(waveform.samples) == 2 * rate
    assert waveform.seconds == 2.0


def test_channels_are_averaged(tmp_path: Path) -> None:
    frames = np.array([[0.5, 0.25], [-0.5, 0.25], [0.0, -1.0], [0.125, 0.125]], np.float32)
    waveform = read_waveform(written(tmp_path / "a.wav", frames, subtype="FLOAT"))
    np.testing.assert_array_equal(
        waveform.samples, np.array([0.375, -0.125, -0.5, 0.125], np.float32)
    )


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_16_bit_samples_are_exactly_those_of_libsndfile(
    tmp_path: Path, name: str, channels: int
) -> None:
    frames = np.random.default_rng(0).integers(-32768, 32768, (5000, channels)).astype(np.int16)
    frames[0], frames[1] = -32768, 32767
    path = written(tmp_path / name, frames, subtype="PCM_16")
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    samples = read_waveform(path).samples
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, expected)
    assert samples[0] == -1.0


def test_six_channels_are_averaged(tmp_path: Path) -> None:
    frames = np.array([[0.75, 0, 0, 0, 0, 0], [0.25, 0.25, 0.5, 0.5, 0, -0.375]], np.float32)
    waveform = read_waveform(written(tmp_path / "a.wav", frames, subtype="FLOAT"))
    np.testing.assert_array_equal(waveform.samples, np.array([0.125, 0.1875], np.float32))


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_long_file_is_read_in_blocks_without_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    frames = np.stack([noise(10_001, seed) for seed in range(channels)], axis=1)
    path = written(tmp_path / "a.flac", frames)
    whole = read_waveform(path).samples
    monkeypatch.setattr(mgc_ray.data.decoding, "_BLOCK", 1000)
    np.testing.assert_array_equal(read_waveform(path).samples, whole)
    assert len(whole) == 10_001


def test_of_a_long_song_the_beginning_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.flac", noise(10 * 1000), 1000)
    whole = read_waveform(path).samples
    monkeypatch.setattr(mgc_ray.data.decoding, "LONGEST", 4)
    waveform = read_waveform(path)  # less than half of it, and not corrupt
    np.testing.assert_array_equal(waveform.samples, whole[:4000])
    assert waveform.lost_seconds == 6
    monkeypatch.setattr(mgc_ray.data.decoding, "MOST_SAMPLES", 2500)
    assert len(read_waveform(path).samples) == 2500


def test_a_bomb_takes_no_more_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mgc_ray.data.decoding, "MOST_SAMPLES", 1 << 23)
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 384_000, 1, "PCM_16") as file:
        file.write(tone())
        file.write(np.zeros(1 << 24, np.int16))
    assert path.stat().st_size < 1 << 17
    waveform = read_waveform(path)
    assert waveform.samples.nbytes == 1 << 25
    assert waveform.lost_seconds == pytest.approx((5000 + (1 << 23)) / 384_000)


@pytest.mark.parametrize("seconds", [0.3, 5])
def test_a_flac_of_unknown_length_is_read_whole(tmp_path: Path, seconds: float) -> None:
    samples = noise(round(seconds * RATE))
    path = written(tmp_path / "a.flac", samples, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    assert content[:4] == b"fLaC"
    content[21] &= 0xF0  # the last 36 bits of STREAMINFO's number of samples: 0 is not known
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with open_sound(path) as file:
        assert file.frames > 1 << 60
    waveform = read_waveform(path)
    assert len(waveform.samples) == len(samples)
    assert waveform.lost_seconds == 0


def test_a_truncated_wav_is_as_long_as_what_is_left(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise())
    path.write_bytes(path.read_bytes()[: 44 + 2 * 3000])
    waveform = read_waveform(path)
    assert len(waveform.samples) == 3000
    assert waveform.lost_seconds == 0  # 2,000 samples, less than a tenth of a second


def test_the_name_of_a_readable_file_does_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise())
    for name in ("no_suffix", "a.mp3", "Ünïcode – 音楽.flac", "a.WAV"):
        shutil.copy(path, tmp_path / name)
        assert len(read_waveform(tmp_path / name).samples) == 5000


# --- resampling ---


def test_resampling_keeps_the_tone_and_the_length() -> None:
    waveform = Waveform(tone(44_100, 44_100), 44_100)
    samples = waveform.resampled(22_050)
    assert samples.dtype == np.float32
    assert len(samples) == 22_050
    # away from the ends, where the filter sees the silence beside the file
    assert np.abs(samples - tone(22_050))[1000:-1000].max() < 1e-3


def test_the_same_rate_is_not_resampled() -> None:
    waveform = Waveform(tone(), RATE)
    assert waveform.resampled(RATE) is waveform.samples


# --- what cannot be a track ---


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert reason(tmp_path / "a.wav") == "no such file"
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    assert reason(tmp_path / "loop.wav") == "no such file"
    (tmp_path / "file").touch()
    assert reason(tmp_path / "file" / "a.wav") == "no such file"


def test_a_folder_is_reported(tmp_path: Path) -> None:
    assert reason(tmp_path) == "not a file"


def test_a_pipe_is_reported_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert reason(tmp_path / "a.wav") == "not a file"


def test_an_empty_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert reason(tmp_path / "a.wav") == "empty file"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a"])
def test_text_is_reported_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("this is no music\n" * 100)
    assert reason(tmp_path / name) == "not audio, or corrupt: Format not recognised"


@pytest.mark.parametrize(("name", "share"), [("a.flac", 0.4), ("a.mp3", 0.4), ("a.wav", 0.4)])
def test_a_file_of_which_less_than_half_is_left_is_reported(
    tmp_path: Path, name: str, share: float
) -> None:
    path = written(tmp_path / name, noise(10 * RATE))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert re.fullmatch(r"corrupt: [34]\.\d of 10\.\d s can be decoded", reason(path))


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.wav"])
def test_of_a_truncated_file_what_is_left_is_used_and_the_loss_is_known(
    tmp_path: Path, name: str
) -> None:
    path = written(tmp_path / name, tone(10 * RATE))
    whole, content = read_waveform(path), path.read_bytes()
    assert whole.lost_seconds == 0
    path.write_bytes(content[: int(len(content) * 0.8)])
    waveform = read_waveform(path)
    assert waveform.seconds == pytest.approx(8, abs=0.3)
    assert waveform.lost_seconds == pytest.approx(10 - waveform.seconds, abs=0.06)
    np.testing.assert_allclose(waveform.samples[:RATE], whole.samples[:RATE], atol=1e-4)


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.ogg"])
@pytest.mark.parametrize("damaged", [1000, 1500, 6000])
def test_what_is_behind_damage_is_decoded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, damaged: int
) -> None:
    path = written(tmp_path / name, noise(10 * RATE) * np.linspace(0.2, 1, 10 * RATE))
    whole, content = read_waveform(path), bytearray(path.read_bytes())
    at = len(content) // 3
    content[at : at + damaged] = np.random.default_rng(0).bytes(damaged)
    path.write_bytes(content)
    waveform = read_waveform(path)
    assert waveform.seconds > 8.5
    assert waveform.lost_seconds == pytest.approx(max(0, whole.seconds - waveform.seconds), abs=0.1)
    # the end, which is the loudest, is there
    assert np.abs(waveform.samples[-RATE // 2 :]).max() > 0.4
    path.rename(tmp_path / "other.wav")  # whatever it is called
    read_waveform(tmp_path / "other.wav")
    assert capfd.readouterr().err == ""  # libmpg123 would write what it thinks of it


# libsndfile takes the last two for MP3 by their ending, and cannot open the last one
@pytest.mark.parametrize("head", [b"", b"ID3\4\0\0\0\0\0\0", b"\0" * 4, b"FORM", b"RIFF"])
def test_libmpg123_is_silent_whatever_a_damaged_mp3_begins_with(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], head: bytes
) -> None:
    path = written(tmp_path / "a.mp3", noise(RATE))
    content = bytearray(head + path.read_bytes())
    content[2000:2200] = b"\xff" * 200
    path.write_bytes(content)
    with contextlib.suppress(soundfile.LibsndfileError):
        soundfile.read(path)
    assert "Illegal Audio-MPEG-Header" in capfd.readouterr().err  # what would be written
    with contextlib.suppress(UnusableTrackError):
        read_waveform(path)
    excerpt(path, "")
    assert capfd.readouterr().err == ""


def test_what_is_written_while_an_mp3_is_decoded_is_not_lost(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "a.mp3", noise(RATE))
    with open_sound(path):
        os.write(2, b"by another thread")
    assert capfd.readouterr().err == "by another thread"


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF000])
def test_the_data_of_a_wav_from_a_pipe_are_the_rest_of_the_file(tmp_path: Path, size: int) -> None:
    path = written(tmp_path / "a.wav", tone())
    expected, content = read_waveform(path), bytearray(path.read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content)
    waveform = read_waveform(path)
    np.testing.assert_array_equal(waveform.samples, expected.samples)
    assert waveform.lost_seconds == 0


def test_an_mp3_is_decoded_by_a_process_without_standard_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp3", noise(RATE))
    program = "import os, sys; os.close(2); from mgc_ray.data.audio import read_waveform; "
    program += "print(len(read_waveform(sys.argv[1]).samples))"
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= RATE


def test_a_wav_without_samples_is_reported(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise())
    content = path.read_bytes()[:44]
    path.write_bytes(content)
    assert reason(path) == "corrupt: 0.0 of 0.2 s can be decoded"
    path.write_bytes(content[:40] + bytes(4))
    assert reason(path) == "holds no samples"


def test_a_wav_truncated_in_its_header_is_reported(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise())
    path.write_bytes(path.read_bytes()[:30])
    assert reason(path).startswith("not audio, or corrupt: Error in WAV file")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_reported(tmp_path: Path, value: float) -> None:
    samples = noise()
    samples[4321] = value
    path = written(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert reason(path) == "holds NaN or infinity"


def test_silence_is_reported(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", np.zeros(5000))
    assert reason(path) == "silent: peak to peak 0.0e+00 of full scale"
    path = written(tmp_path / "b.wav", noise() * 1e-5, subtype="FLOAT")
    assert reason(path) == "silent: peak to peak 1.0e-05 of full scale"


def test_a_constant_value_is_silence(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", np.full(5000, 0.5))
    assert reason(path) == "silent: peak to peak 0.0e+00 of full scale"


def test_channels_that_cancel_each_other_are_silence(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", np.stack([tone(), -tone()], axis=1), subtype="FLOAT")
    assert reason(path).startswith("silent")


def test_a_quiet_passage_is_not_silence(tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros(50_000, np.float32), 1e-3 * noise(100)])
    assert len(read_waveform(written(tmp_path / "a.flac", samples)).samples) == 50_100


def test_headerless_audio_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(noise().tobytes())
    assert reason(path) == "not audio, or corrupt: samplerate must be specified"


def test_a_nul_in_the_name_is_reported(tmp_path: Path) -> None:
    assert reason(f"{tmp_path}/a\0.wav") == "no such file"


def test_a_name_that_is_too_long_is_reported(tmp_path: Path) -> None:
    assert reason(tmp_path / ("a" * 300 + ".wav")).startswith("cannot be opened: ")


@pytest.mark.parametrize("rate", [10, 999, 384_001, 2_000_000_000])
def test_an_absurd_sample_rate_is_reported(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate // 4 if rate > 10**9 else rate)
        file.writeframes((noise() * 32767).astype("<i2").tobytes())
    content = bytearray(path.read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(content)
    assert reason(path) == f"sample rate {rate} Hz is outside 1000 to 384000 Hz"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user reaches; pytest's own belong to one user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_file_without_permission_is_reported(open_folder: Path) -> None:
    path = written(open_folder / "a.wav", noise())
    path.chmod(0)
    locked = open_folder / "locked"
    locked.mkdir()
    written(locked / "b.wav", noise())
    locked.chmod(0)
    readable = written(open_folder / "c.wav", noise())
    # all is imported before the change of user, who may not reach the interpreter's folder
    script = f"""
import os
from mgc_ray.data.audio import UnusableTrackError, check_openable, read_waveform
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
for path in {[str(readable), str(path), str(locked / "b.wav")]!r}:
    try:
        check_openable(path)
        print("ok", flush=True)
        read_waveform(path)
    except UnusableTrackError as error:
        print(error, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    locked.chmod(0o755)
    lines = done.stdout.splitlines()
    if done.returncode or lines[:1] != ["ok"]:
        pytest.skip(f"an unprivileged user cannot be tried here: {lines} {done.stderr[-300:]}")
    assert lines[1:] == ["no permission to read it"] * 2


def test_a_usable_file_is_openable(tmp_path: Path) -> None:
    check_openable(written(tmp_path / "a.wav", noise()))


# --- identical content ---


def test_the_same_samples_have_the_same_hash_in_another_format(tmp_path: Path) -> None:
    samples = (noise() * 32767).astype(np.int16)
    one = read_waveform(written(tmp_path / "a.wav", samples))
    other = read_waveform(written(tmp_path / "b.flac", samples))
    assert one.content_hash() == other.content_hash()


def test_a_mono_file_and_its_doubled_channel_have_the_same_hash(tmp_path: Path) -> None:
    samples = noise()
    mono = read_waveform(written(tmp_path / "a.wav", samples))
    stereo = read_waveform(written(tmp_path / "b.wav", np.stack([samples, samples], axis=1)))
    assert mono.content_hash() == stereo.content_hash()


def test_other_samples_length_or_rate_give_another_hash() -> None:
    samples = noise()
    changed = samples.copy()
    changed[2500:2504] += 2**-15  # every fourth sample is hashed
    hashes = {
        Waveform(samples, RATE).content_hash(),
        Waveform(changed, RATE).content_hash(),
        Waveform(samples[:-1], RATE).content_hash(),
        Waveform(samples, 44_100).content_hash(),
    }
    assert len(hashes) == 4
