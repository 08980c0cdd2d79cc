"""Words and tables of a report, of searches written here."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc_ray.data.audio import read_waveform
from mgc_ray.data.dataset import write_skipped
from mgc_ray.data.tracks import Skipped
from mgc_ray.reporting import content
from mgc_ray.reporting.songs import excerpt
from mgc_ray.results import FAILED, STOPPED_EARLY, SearchResult
from tests.reporting.made_search import record, write_search

# 3 of 4 right: of blues 2 of 2, of rock 1 of 2
PREDICTIONS = [
    ("a", "Ann", 0, 0.1),
    ("b", "Bob", 0, 0.4),
    ("c", "Cy", 1, 0.8),
    ("d", "Di", 1, 0.3),
]
RECORDS = [
    record(0, [0.5, 0.75], params={"lr": 0.02}),
    record(1, [0.25], status=STOPPED_EARLY),
    record(2, [], status=FAILED, reason="the loss is NaN"),
]


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    return write_search(tmp_path / "first", PREDICTIONS, RECORDS)


def test_precision_recall_and_f1_of_each_genre(result: SearchResult) -> None:
    metrics = content.metrics(result)
    assert metrics is not None
    assert content.genre_scores(metrics).rows == [
        ("blues", "2", "66.7%", "100.0%", "0.800"),
        ("rock", "2", "100.0%", "50.0%", "0.667"),
    ]


def test_a_genre_that_is_never_predicted_has_no_precision(tmp_path: Path) -> None:
    result = write_search(tmp_path / "first", [("a", "Ann", 0, 0.1), ("b", "Bob", 1, 0.2)], [])
    metrics = content.metrics(result)
    assert metrics is not None
    assert content.genre_scores(metrics).rows[1] == ("rock", "1", "–", "0.0%", "0.000")


def test_mistakes_come_with_the_highest_probability_first(tmp_path: Path) -> None:
    predictions = [("a", "Ann", 0, 0.6), ("b", "Bob", 0, 0.9), ("c", "Cy", 1, 0.8)]
    table = content.mistakes(write_search(tmp_path / "first", predictions, []))
    assert table is not None
    assert [tuple(map(str, row)) for row in table.rows] == [
        ("b", "Bob", "blues", "rock", "90%", "10%"),
        ("a", "Ann", "blues", "rock", "60%", "40%"),
    ]
    assert table.audio == [None, None]  # the dataset is not at hand


def test_the_best_trials_with_the_settings_that_are_not_at_their_defaults(
    result: SearchResult,
) -> None:
    table = content.best_trials(result)
    assert table is not None
    assert table.rows == [
        ("gru-0000", "0.750", "2", "completed", "lr 0.02"),
        ("gru-0001", "0.250", "1", "stopped early", "lr 0.01"),
    ]
    failed = content.failed_trials(result)
    assert failed is not None
    assert failed.rows == [("gru-0002", "the loss is NaN")]


def test_cost_adds_up_all_trials(result: SearchResult) -> None:
    assert dict(content.cost(result)) == {
        "trials": "3 (1 completed, 1 failed, 1 stopped early)",
        "epochs": "3",
        "hours of all trials added up": "1.50",  # 3 trials of 1800 s
        "CPU hours": "3.00",
        "GPU hours": "0.75",
        "minutes, from start to end": "2.0",
    }


def test_cost_includes_refitting(result: SearchResult) -> None:
    ensemble = result.ensemble
    assert ensemble is not None
    refitted = replace(result, ensemble=replace(ensemble, selected_on="out_of_fold"))
    cost = dict(content.cost(refitted))
    assert cost["hours of refitting, added up"] == "1.00"  # the family's 3600 s
    assert cost["CPU hours"] == "5.00"


def test_a_leaky_protocol_is_marked(result: SearchResult) -> None:
    leaky = replace(result, protocol="random-chunks", fold="1/5", leaky=True)
    assert content.protocol(leaky) == (
        "random-chunks, fold 1/5, LEAKY: chunks of one song on both sides of the split"
    )
    assert content.protocol(replace(result, protocol="")) == "not known yet"


def test_files_that_were_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    dataset = tmp_path / "datasets" / "music"
    dataset.mkdir(parents=True)
    write_skipped(dataset, [Skipped(f"{i}.mp3", "not audio") for i in range(59)])
    result = write_search(tmp_path / "first", PREDICTIONS, [], dataset=str(dataset))
    tables = content.skipped_files(result)
    assert tables is not None
    reasons, files = tables
    assert reasons.rows == [("not audio", "59")]
    assert files.caption == "59 files, the first 50 of them"
    assert len(files.rows) == 50
    assert content.skipped_files(replace(result, dataset=str(tmp_path / "gone"))) is None


def test_an_excerpt_is_the_middle_ten_seconds(tmp_path: Path) -> None:
    rate = 44_100
    samples = np.zeros((30 * rate, 2), np.float32)
    samples[10 * rate : 20 * rate] = 0.5 * np.sin(np.arange(10 * rate) / 10)[:, None]
    soundfile.write(tmp_path / "song.wav", samples, rate)
    path = tmp_path / "song.wav"
    assert excerpt(path, "another song") is None  # a stranger's dataset may name any file
    uri = excerpt(path, read_waveform(path).content_hash())
    assert uri is not None
    head, data = uri.split(",")
    assert head == "data:audio/mpeg;base64"
    decoded, decoded_rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert decoded.ndim == 1
    assert len(decoded) / decoded_rate == pytest.approx(10, abs=0.1)
    quarter = len(decoded) // 4
    for part in (decoded[:quarter], decoded[-quarter:]):  # all of it is the loud middle
        assert np.sqrt(np.mean(part**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_what_is_no_audio_has_no_excerpt(tmp_path: Path) -> None:
    (tmp_path / "letter.mp3").write_text("dear reader")
    (tmp_path / "headerless.raw").write_bytes(bytes(10))
    for path in (None, *(tmp_path / name for name in ("letter.mp3", "gone.mp3", "headerless.raw"))):
        assert excerpt(path, "") is None


@pytest.mark.filterwarnings("error")  # numpy would warn of the overflow, on standard error
def test_absurd_samples_have_no_excerpt(tmp_path: Path) -> None:
    samples = np.full((22_050, 2), 3e38, np.float32)
    soundfile.write(tmp_path / "song.wav", samples, 22_050, subtype="FLOAT")
    assert excerpt(tmp_path / "song.wav", "") is None
