"""What tells genres without music is found, and what tells nothing is not reported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc_ray.data.audio import Waveform, read_waveform
from mgc_ray.data.confounds import Confounds, Properties, find_confounds, properties_of
from mgc_ray.data.dataset import TrackPlace
from mgc_ray.data.tracks import Track

RATE = 22_050
ALIKE = Properties(RATE, "WAV PCM_16", 1, 11_000.0, -12.0)


def place_of(properties: Properties = ALIKE, seconds: float = 30.0, chunks: int = 10) -> TrackPlace:
    return TrackPlace(0, 0, chunks, seconds, "hash", "recording", 0.0, properties)


def track_of(genre: str, i: int, folder: str = "music", split: str = "train") -> Track:
    name = f"{genre}{i}"
    return Track(f"/{folder}/{name}.wav", genre, name, group=name, split=split)


def confounds_of(
    odd: dict[str, object], jazz: int = 10, rock: int = 10, split: str = "train"
) -> Confounds:
    """Of jazz and rock tracks that are alike except for `odd` properties of jazz."""
    properties = {key: odd.pop(key) for key in list(odd) if key in Properties.__annotations__}
    folder = str(odd.pop("folder", "music"))
    tracks = [track_of("jazz", i, folder, split) for i in range(jazz)]
    tracks += [track_of(genre, i) for genre in ("pop", "rock") for i in range(rock)]
    jazz_place = replace(place_of(replace(ALIKE, **properties)), **odd)
    return find_confounds(tracks, [jazz_place] * jazz + [place_of()] * 2 * rock)


@pytest.mark.parametrize(
    ("odd", "name"),
    [
        ({"sample_rate": 44_100}, "sample rate"),
        ({"codec": "MP3 MPEG_LAYER_III"}, "codec"),
        ({"codec": "WAV PCM_24"}, "codec"),
        ({"channels": 2}, "channels"),
        ({"bandwidth": 16_000.0}, "bandwidth"),
        ({"loudness": -20.0}, "loudness"),
        ({"seconds": 240.0}, "length"),
        ({"seconds": float("nan"), "chunks": 7}, "length"),
        ({"folder": "other collection"}, "source folder"),
    ],
)
def test_each_property_that_tells_a_genre_is_named(odd: dict[str, object], name: str) -> None:
    found = confounds_of(odd)
    (warning,) = found.warnings
    assert warning.startswith("'jazz' can be told from the other genres without its music")
    assert f"({name} alone; F1 1.00 on 10 tracks)" in warning
    # jazz is always right; pop and rock are alike, so at most one of them is
    assert found.accuracy is not None
    assert 10 / 30 <= found.accuracy <= 20 / 30


def test_files_that_are_alike_tell_nothing() -> None:
    assert confounds_of({}).warnings == ()


def test_properties_that_differ_within_genres_tell_nothing() -> None:
    tracks = [track_of(genre, i) for genre in ("jazz", "rock") for i in range(20)]
    rates = np.random.default_rng(0).choice([RATE, 44_100], 40)
    found = find_confounds(tracks, [place_of(replace(ALIKE, sample_rate=int(r))) for r in rates])
    assert found.warnings == ()
    assert found.accuracy == pytest.approx(0.5, abs=0.2)


def test_two_properties_may_tell_a_genre_only_together() -> None:
    # jazz: 44.1 kHz and mono; the other genres have one of both
    forms = {"jazz": [(44_100, 1)], "pop": [(44_100, 2), (RATE, 1)], "rock": [(RATE, 2), (RATE, 1)]}
    tracks = [track_of(genre, i) for genre in forms for i in range(20)]
    made = [forms[t.genre][i % len(forms[t.genre])] for i, t in enumerate(tracks)]
    places = [place_of(replace(ALIKE, sample_rate=rate, channels=n)) for rate, n in made]
    (warning,) = find_confounds(tracks, places).warnings
    assert "(together: sample rate, channels; F1" in warning


def test_the_test_part_is_not_looked_at() -> None:
    assert confounds_of({"sample_rate": 44_100}, split="test").warnings == ()


def test_four_tracks_are_too_few_to_say_so() -> None:
    assert confounds_of({"sample_rate": 44_100}, jazz=4).warnings == ()


def test_tracks_of_one_artist_are_no_evidence() -> None:
    tracks = [replace(track_of("jazz", i), group="one artist") for i in range(10)]
    tracks += [track_of("rock", i) for i in range(10)]
    places = [place_of(replace(ALIKE, sample_rate=44_100))] * 10 + [place_of()] * 10
    assert find_confounds(tracks, places) == Confounds(None, ())


def test_a_folder_per_genre_is_no_source() -> None:
    tracks = [
        replace(track_of(genre, i), path=f"/music/{genre}/{i}.wav")
        for genre in ("jazz", "rock")
        for i in range(10)
    ]
    assert find_confounds(tracks, [place_of()] * 20).warnings == ()


@pytest.mark.parametrize(("rock", "warned"), [(5, False), (6, True)])
def test_genres_that_differ_more_than_five_times_in_size_are_reported(
    rock: int, warned: bool
) -> None:
    found = confounds_of({}, jazz=1, rock=rock)
    assert bool(found.warnings) is warned
    if warned:
        assert "has 6 tracks and 'jazz' only 1" in found.warnings[0]


def test_no_genre_no_confound() -> None:
    assert find_confounds([replace(track_of("", 0), genre="")], [place_of()]) == Confounds(None, ())


# --- properties ---


def test_properties_of_a_file(tmp_path: Path) -> None:
    time = np.arange(2 * 44_100) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time)
    soundfile.write(tmp_path / "a.flac", np.stack([tone, tone], 1), 44_100, subtype="PCM_24")
    properties = properties_of(read_waveform(tmp_path / "a.flac"))
    assert (properties.sample_rate, properties.codec, properties.channels) == (
        44_100,
        "FLAC PCM_24",
        2,
    )
    assert properties.loudness == -9.0  # 10 log10(0.5^2 / 2)
    # a pure tone, but for the window's leakage
    assert properties.bandwidth == pytest.approx(1000, abs=250)


def test_an_upsampled_file_has_the_bandwidth_of_its_source() -> None:
    import soxr

    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000 * 2).astype(np.float32)
    waveform = Waveform(soxr.resample(noise, 16_000, 44_100), 44_100)
    assert properties_of(waveform).bandwidth == pytest.approx(8_000, abs=300)


@pytest.mark.parametrize("length", [1, 2, 100, 5000])
def test_short_tracks_have_properties_too(length: int) -> None:
    samples = np.full(length, 0.1, np.float32)
    assert properties_of(Waveform(samples, RATE)).loudness == -20.0
