"""Audio -> arrays as published: their frames, range and values, and a track's excerpts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc_ray.data.audio import UnusableTrackError, Waveform
from mgc_ray.data.features._array_recipe import GTZAN_ARRAYS, ArrayRecipe, scaled

RATE = 22050
# 1.5 s are 12,000 samples, 188 frames; a picture of 20.5 columns, 20 of them whole
SMALL = ArrayRecipe(8000, 256, 64, 8, 80.0, columns=20, width=20.5, excerpt_seconds=1.5)


def music(seconds: float, seed: int = 0) -> np.ndarray:
    """Tones that come and go over noise, float32 at 22,050 Hz."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * hz * t) * np.exp(-3 * (t % beat)) for hz, beat in TONES)
    return (0.2 * tones + 0.002 * random.standard_normal(len(t))).astype(np.float32)


TONES = ((110, 0.5), (440, 1.7), (2500, 0.9), (7000, 3.1))


def arrays_of(recipe: ArrayRecipe, samples: np.ndarray) -> list[np.ndarray]:
    return recipe.arrays(Waveform(samples, recipe.sample_rate))


# --- which frames ---


def test_a_column_shows_the_frame_under_its_middle() -> None:
    # 1293 frames over 387.5 columns are 3.33677 a column: middles at 1.668, 5.005, 8.342, 11.679
    # and, of the last, 386.5 * 3.33677 = 1289.66
    frames = GTZAN_ARRAYS.frames_of_columns(1293)
    assert frames[:4].tolist() == [1, 5, 8, 11]
    assert (len(frames), frames[-1]) == (387, 1289)


def test_a_middle_on_the_border_of_two_frames_shows_the_earlier() -> None:
    # 12.5 * 1302 / 387.5 = 42, the border of frames 41 and 42
    assert GTZAN_ARRAYS.frames_of_columns(1302)[12] == 41


# number of frames -> sum of the indices that were kept of them in the published arrays
@pytest.mark.parametrize(
    ("frames", "total"),
    [
        (1292, 249_486),
        (1293, 249_679),
        (1296, 250_259),
        (1297, 250_453),
        (1298, 250_646),
        (1299, 250_840),
        (1302, 251_411),
        (1303, 251_612),
        (1305, 251_997),
        (1307, 252_384),
        (1308, 252_574),
    ],
)
def test_the_columns_are_the_published_ones(frames: int, total: int) -> None:
    shown = GTZAN_ARRAYS.frames_of_columns(frames)
    assert (len(shown), shown.sum()) == (387, total)


def test_a_shorter_excerpt_has_fewer_columns() -> None:
    # a whole excerpt has 1292 frames, 3.33419 a column: before frame 431 (10 s) lie the middles of
    # 431 / 3.33419 = 129.27, rounded 129 columns
    short = GTZAN_ARRAYS.frames_of_columns(431)
    np.testing.assert_array_equal(short, GTZAN_ARRAYS.frames_of_columns(1292)[:129])
    assert GTZAN_ARRAYS.frames_of_columns(2).tolist() == [1]


# --- which values ---


def test_values_are_256_equal_steps_of_the_range() -> None:
    # 80 dB in 256 steps of 0.3125 dB; the largest would be 256 and is 255
    decibel = np.array([[-80, -79.7, -79.6875], [-40, -0.3, 0]], np.float32)
    values = scaled(decibel)
    assert values.dtype == np.uint8
    assert values.tolist() == [[0, 0, 1], [128, 255, 255]]
    assert scaled(decibel + 13).tolist() == values.tolist()
    assert scaled(np.full((2, 3), -100, np.float32)).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("samples", [661_504, 660_000, 669_500])
def test_an_excerpt_equals_librosas(samples: int) -> None:
    import librosa

    waveform = music(31)[:samples]
    mel = librosa.feature.melspectrogram(
        y=waveform, sr=RATE, n_fft=2048, hop_length=512, n_mels=128
    )
    decibel = librosa.power_to_db(mel, ref=np.max)
    low, high = decibel.min(), decibel.max()
    frames = decibel.shape[1]
    # drawn 387.5 columns wide, frame j reaches from j to j + 1 times 387.5 / frames
    edges = np.arange(frames + 1) * 387.5 / frames
    shown = np.searchsorted(edges, np.arange(387) + 0.5) - 1
    expected = np.floor((decibel[:, shown] - low) / (high - low) * 256).clip(0, 255)
    (array,) = arrays_of(GTZAN_ARRAYS, waveform)
    assert (array.shape, array.dtype) == ((128, 387), np.uint8)
    difference = array - expected
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 1e-3


def test_the_range_is_that_of_the_whole_excerpt_and_not_of_the_columns() -> None:
    # a click of 1 is seen in frames 98 to 102, of which no column shows any, and one of 0.01 in
    # column 5, so that this is 40 of 80 dB below the loudest
    shown = SMALL.frames_of_columns(188)
    assert not {98, 99, 100, 101, 102} & set(shown)
    samples = np.zeros(12_000, np.float32)
    samples[100 * 64] = 1.0
    samples[shown[5] * 64] = 0.01
    (array,) = arrays_of(SMALL, samples)
    assert array.max() == array[:, 5].max() == 128


# --- which excerpts ---


@pytest.mark.parametrize(
    ("seconds", "widths"),
    [
        (10, [129]),
        (28.9, [373]),  # 1245 frames / 3.33419 = 373.4
        (29, [387]),
        (30, [387]),
        (30.4, [387]),
        (31, [387, 13]),  # 44 frames / 3.33419 = 13.2
        (44, [387, 181]),  # 603 frames / 3.33419 = 180.9
        (60, [387, 387]),
        (60.9, [387, 387]),
    ],
)
def test_a_track_is_cut_into_excerpts(seconds: float, widths: list[int]) -> None:
    arrays = arrays_of(GTZAN_ARRAYS, np.ones(round(seconds * RATE), np.float32))
    assert [array.shape[1] for array in arrays] == widths


def test_each_excerpt_is_scaled_separately() -> None:
    loud, quiet = music(30, seed=1), 0.01 * music(30.5, seed=2)
    both = arrays_of(GTZAN_ARRAYS, np.concatenate([loud, quiet]))
    (first,) = arrays_of(GTZAN_ARRAYS, loud)
    (second,) = arrays_of(GTZAN_ARRAYS, quiet)
    np.testing.assert_array_equal(both[0], first)
    np.testing.assert_array_equal(both[1], second)
    assert second.max() >= 250


@pytest.mark.filterwarnings("error")
def test_a_silent_excerpt_is_zero() -> None:
    samples = np.concatenate([music(1.5)[:12_000], np.zeros(12_000, np.float32)])
    arrays = arrays_of(SMALL, samples)
    assert [array.shape for array in arrays] == [(8, 20), (8, 20)]
    assert arrays[0].any()
    assert not arrays[1].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1500, 60_000), st.sampled_from([8000, 11025, 22050, 44100]))
def test_all_but_the_last_excerpt_are_whole(length: int, rate: int) -> None:
    waveform = Waveform(np.random.default_rng(0).uniform(-1, 1, length).astype(np.float32), rate)
    arrays = SMALL.arrays(waveform)
    # a rest of less than a 30th of 12,000 samples belongs to the excerpt before
    whole, rest = divmod(int(length * 8000 / rate), 12_000)
    assert len(arrays) == max(1, whole + (rest >= 400))
    assert all(array.shape == (8, 20) for array in arrays[:-1])
    assert 0 < arrays[-1].shape[1] <= 20


def test_a_track_shorter_than_an_fft_window_is_reported() -> None:
    waveform = Waveform(music(2047 / RATE), RATE)
    with pytest.raises(UnusableTrackError, match=r"one FFT window \(2048 samples at 22050 Hz"):
        GTZAN_ARRAYS.arrays(waveform)


def test_another_rate_is_resampled_first() -> None:
    t = np.arange(3 * 16_000) / 16_000
    tone = np.sin(2 * np.pi * 500 * t).astype(np.float32)
    one, other = (
        recipe.arrays(Waveform(tone, 16_000))[0] for recipe in (SMALL, replace(SMALL, n_fft=512))
    )
    assert one.shape == (8, 20)
    # mel edges of 8 bands up to 4 kHz (35.2 mel, 3.91 a step): 500 Hz is 7.5 mel, nearest to the
    # centre of the second, 7.82
    assert set(one.argmax(axis=0)) == set(other.argmax(axis=0)) == {1}
