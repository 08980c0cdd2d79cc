"""What a dataset is asked to be: which settings go together, and what is told where they do not."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mgc_ray import RequestError
from mgc_ray.data.request import DatasetRequest, check_request, read_table, request_from_json
from mgc_ray.data.spectrogram import GTZAN_ARRAYS, LogMel


def folder(
    tmp_path: Path, suffix: str, genres: Sequence[str] = ("jazz", "rock"), count: int = 4
) -> str:
    for genre in genres:
        (tmp_path / genre).mkdir()
        for i in range(count):
            (tmp_path / genre / f"{genre}{i}{suffix}").touch()
    return str(tmp_path)


def test_a_request_comes_back_from_json() -> None:
    request = DatasetRequest(
        tracks="music",
        protocol="cross-validation",
        split_seed=3,
        fold="2/5",
        features=("log_mel", "chroma"),
        chunk_seconds=5.5,
        chunks_per_track=4,
        array_recipe="gtzan",
        synthetic=7,
    )
    assert request_from_json(json.loads(json.dumps(asdict(request)))) == request
    with pytest.raises(TypeError):
        request_from_json(asdict(request) | {"a later setting": 1})


def test_the_defaults_are_the_baselines() -> None:
    request = DatasetRequest("music")
    assert request.audio_features == LogMel()
    assert request.recipe is None
    assert request.labelled


def test_seconds_become_samples() -> None:
    # 2 s at 22,050 Hz; the frames are centred, so one more than hops of 256 fit
    features = DatasetRequest("music", chunk_seconds=2.0).audio_features
    assert features == LogMel(chunk_samples=44_100)
    assert features.frames == 173


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"fold": "1/5"},
            "--fold 1/5 names a part of --protocol cross-validation, but the protocol is grouped: "
            "leave it out, or add --protocol cross-validation",
        ),
        ({"protocol": "cross-validation"}, "needs --fold K/N .*, but there is none: give e.g."),
        ({"protocol": "cross-validation", "fold": "6/5"}, "but it is '6/5'"),
        ({"chunks_per_track": 0}, "--chunks-per-track must be 1 or more, but it is 0: give 1 for"),
        ({"synthetic": -1}, "--synthetic must be 0 or more, but it is -1: give 0 for none"),
        ({"array_recipe": "mine"}, "--array-recipe must be one of gtzan, not 'mine': leave it out"),
        ({"protocol": "unlabelled", "synthetic": 2}, "2 adds tracks of known genres, .* no genres"),
        ({"chunk_seconds": 0.5}, "must last 1 to 60 s, but 0.5 s is asked for"),
        ({"chunk_seconds": float("nan")}, "must last 1 to 60 s, but nan s is asked for"),
        ({"features": ("loudness",)}, "must be one of log_mel, chroma, .*, but 'loudness' is ask"),
        ({"features": ()}, "must be one group or more"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        check_request(DatasetRequest("music", **settings))


@pytest.mark.parametrize(
    ("suffix", "settings", "told"),
    [
        (
            ".npy",
            {"features": ("log_mel", "chroma")},
            "--features log_mel chroma is computed from audio, but the tracks are .npy "
            "spectrograms: leave it out",
        ),
        (
            ".npy",
            {"chunk_seconds": 5.0},
            "--chunk-seconds 5.0 cuts audio, but the tracks are .npy spectrograms: cut them by "
            "--chunks-per-track N",
        ),
        (
            ".npy",
            {"synthetic": 3},
            r"--synthetic 3 makes audio, but the tracks are .npy spectrograms: name how they were "
            r"made \(--array-recipe gtzan\), or leave it out",
        ),
        (
            ".wav",
            {"chunks_per_track": 1},
            "--chunks-per-track 1 cuts .npy spectrograms, but the tracks are audio: cut it by "
            "--chunk-seconds S",
        ),
        (
            ".wav",
            {"array_recipe": "gtzan"},
            "--array-recipe gtzan tells how .npy spectrograms were made, but the tracks are audio: "
            "leave it out",
        ),
    ],
)
def test_settings_for_the_other_kind_of_table_are_refused(
    tmp_path: Path, suffix: str, settings: dict[str, Any], told: str
) -> None:
    request = DatasetRequest(folder(tmp_path, suffix), **settings)
    with pytest.raises(RequestError, match=told):
        read_table(request)


def test_settings_for_this_kind_of_table_are_taken(tmp_path: Path) -> None:
    for name in ("arrays", "audio"):
        (tmp_path / name).mkdir()
    arrays = DatasetRequest(
        folder(tmp_path / "arrays", ".npy"), chunks_per_track=1, array_recipe="gtzan", synthetic=2
    )
    assert len(read_table(arrays).tracks) == 8
    assert arrays.recipe == GTZAN_ARRAYS
    audio = DatasetRequest(folder(tmp_path / "audio", ".wav"), chunk_seconds=5, synthetic=2)
    assert len(read_table(audio).tracks) == 8


def test_genres_that_the_generator_does_not_know_are_named(tmp_path: Path) -> None:
    tracks = folder(tmp_path, ".wav", ("jazz", "polka", "techno"))
    with pytest.raises(
        RequestError,
        match="--synthetic makes music of the genres blues, .*, rock, but the table has polka, "
        "techno: name its genres so where they are the same, or leave --synthetic out",
    ):
        read_table(DatasetRequest(tracks, synthetic=1))
    assert read_table(DatasetRequest(tracks)).genres == ["jazz", "polka", "techno"]


def test_an_unlabelled_table_needs_no_genre_folders(tmp_path: Path) -> None:
    (tmp_path / "song.wav").touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other.wav").touch()
    table = read_table(DatasetRequest(str(tmp_path), "unlabelled"))
    assert sorted(track.track_id for track in table.tracks) == ["other", "song"]
    assert table.genres == []
