"""Words and tables of a report, of searches written here."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc_ray.data.audio import read_waveform
from mgc_ray.reporting import content
from mgc_ray.reporting.songs import excerpt
from mgc_ray.results import (
    COMPLETED,
    FAILED,
    OUT_OF_TIME,
    STOPPED_EARLY,
    Member,
    SearchResult,
    TrialResources,
)
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


def test_scores_of_each_genre_and_what_it_is_taken_for(result: SearchResult) -> None:
    metrics = content.metrics(result)
    assert metrics is not None
    assert content.genre_scores(metrics).rows == [
        ("blues", "2", "100.0%", "66.7%", "0.800", ""),
        ("rock", "2", "50.0%", "100.0%", "0.667", "blues 1"),
    ]


def test_a_genre_that_is_never_predicted_has_no_precision(tmp_path: Path) -> None:
    result = write_search(tmp_path / "first", [("a", "Ann", 0, 0.1), ("b", "Bob", 1, 0.2)], [])
    metrics = content.metrics(result)
    assert metrics is not None
    assert content.genre_scores(metrics).rows[1] == ("rock", "1", "0.0%", "–", "0.000", "blues 1")


def test_genres_are_taken_for_the_two_most_frequent_others(result: SearchResult) -> None:
    metrics = content.metrics(result)
    assert metrics is not None
    four = replace(
        metrics,
        genres=("blues", "folk", "pop", "rock"),
        confusion_matrix=[[5, 1, 3, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
    )
    blues, folk, _, rock = content.genre_scores(four).rows
    assert blues[-1] == "pop 3, rock 2"
    assert folk[-1] == ""
    assert rock[2:] == ("–", "0.0%", "0.000", "")  # it has no track


def test_the_cells_of_the_confusion_matrix(result: SearchResult) -> None:
    metrics = content.metrics(result)
    assert metrics is not None
    (blues, first), (rock, second) = content.confusion(metrics)
    assert (blues, rock) == ("blues", "rock")
    assert [(cell.count, cell.share, cell.right) for cell in first + second] == [
        (2, 1, True),
        (0, 0, False),
        (1, 0.5, False),
        (1, 0.5, True),
    ]
    assert second[0].words == "1 of 2 rock predicted as blues"
    assert content.confusion_in_words(metrics).endswith(
        "The most frequent mistake: rock predicted as blues (1 track)."
    )
    perfect = replace(metrics, confusion_matrix=[[2, 0], [0, 2]])
    assert "mistake" not in content.confusion_in_words(perfect)


def test_mistakes_come_with_the_highest_probability_first(tmp_path: Path) -> None:
    predictions = [("a", "Ann", 0, 0.6), ("b", "Bob", 0, 0.9), ("c", "Cy", 1, 0.8)]
    table = content.mistakes(write_search(tmp_path / "first", predictions, []), [])
    assert table is not None
    assert table.caption.startswith("2 of the 3 test tracks are wrong. In brackets")
    assert [tuple(map(str, row)) for row in table.rows] == [
        ("b", "Bob", "blues (10%)", "rock (90%)"),
        ("a", "Ann", "blues (40%)", "rock (60%)"),
    ]
    assert not table.audio  # the dataset is not at hand


def test_only_the_ten_most_confident_mistakes_are_shown(tmp_path: Path) -> None:
    predictions = [(f"{i}", "Ann", 0, 0.6 + i / 100) for i in range(12)]
    table = content.mistakes(write_search(tmp_path / "first", predictions, []), [])
    assert table is not None
    assert table.caption.startswith("12 of the 12 test tracks are wrong; these are the 10 most")
    assert [row[0] for row in table.rows] == [f"{i}" for i in range(11, 1, -1)]


def test_no_mistakes_are_not_mentioned(tmp_path: Path) -> None:
    result = write_search(tmp_path / "first", PREDICTIONS[:3], [])
    assert content.mistakes(result, []) is None


def test_what_stands_beside_the_figure(result: SearchResult) -> None:
    facts = {fact.what: (fact.value, fact.note) for fact in content.facts(result)}
    assert facts["protocol"] == (
        "grouped",
        "– all songs of a known artist are in one part of the split",
    )
    assert facts["guessing"] == ("50.0%", "of the tracks are right if all are called blues")
    assert facts["validation"][0] == "75.0%"
    assert "of 4 tracks: too high" in facts["validation"][1]
    assert "without music" not in facts  # which was not measured
    assert "also trained on" not in facts


def test_what_a_figure_without_a_test_part_does_not_mean(result: SearchResult) -> None:
    assert list(content.warnings(result)) == []
    ensemble = result.ensemble
    assert ensemble is not None
    models = {name: replace(model, test=None) for name, model in ensemble.models.items()}
    valid = replace(result, ensemble=replace(ensemble, models=models))
    (warning,) = content.warnings(valid)
    assert warning == "The ensemble was selected on these tracks, so the figure is too high."
    assert "validation" not in [fact.what for fact in content.facts(valid)]  # it is the figure


def test_the_best_trials_and_all_of_them_with_their_changed_settings(result: SearchResult) -> None:
    best, every = content.best_trials(result), content.all_trials(result)
    assert best is not None
    assert best.rows == [
        ("gru-0000", "0.750", "2", "2", "30:00", "completed"),
        ("gru-0001", "0.250", "1", "1", "30:00", "stopped early"),
    ]
    assert every is not None
    assert every.rows == [
        ("gru-0000", "0.750", "2", "completed", "lr 0.02"),
        ("gru-0001", "0.250", "1", "stopped early", "lr 0.01"),
    ]
    assert content.best_settings(result.records[0]) == [("lr", "0.02")]
    failed = content.failed_trials(result)
    assert failed is not None
    assert failed.rows == [("gru-0002", "the loss is NaN")]


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e300])
def test_a_strangers_trial_may_have_taken_any_time(tmp_path: Path, seconds: float) -> None:
    result = write_search(tmp_path / "first", PREDICTIONS, [])
    odd = replace(result, ended=(record(0, [0.5], seconds=seconds),))
    table = content.best_trials(odd)
    assert table is not None
    assert table.rows[0][:2] == ("gru-0000", "0.500")


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ([COMPLETED] * 20, "20 trials of gru: 20 completed."),
        (
            [*[COMPLETED] * 18, STOPPED_EARLY, FAILED],
            "20 trials of gru: 18 completed, 1 stopped early by ASHA, 1 failed.",
        ),
        (
            [COMPLETED, OUT_OF_TIME, OUT_OF_TIME],
            "3 trials of gru: 1 completed. The time limit of 180 s ended 2 of 20 trials and left "
            "17 unstarted.",
        ),
        ([OUT_OF_TIME] * 20, "The time limit of 180 s ended 20 of 20 trials."),
        (
            [COMPLETED] * 19,
            "19 trials of gru: 19 completed. The time limit of 180 s ended 0 of 20 trials and left "
            "1 unstarted.",
        ),
    ],
)
def test_how_trials_ended(tmp_path: Path, statuses: list[str], words: str) -> None:
    records = [record(number, [0.5], status=status) for number, status in enumerate(statuses)]
    result = write_search(tmp_path / "first", PREDICTIONS, records)
    limited = replace(result.config, tuning=replace(result.config.tuning, time_limit=180))
    assert content.trials_in_words(replace(result, config=limited)) == words


def test_the_folds_of_a_refitted_trial_are_one_member(result: SearchResult) -> None:
    ensemble = result.ensemble
    assert ensemble is not None
    members = (
        *(Member(f"gru-0000-fold{fold}", 0.3) for fold in (1, 2)),
        *(Member(f"cnn-0001-fold{fold}", 0.2) for fold in (1, 2)),
    )
    refitted = replace(ensemble, members=members)
    assert content.members_in_words(refitted) == "gru-0000 (60%, 2 folds), cnn-0001 (40%, 2 folds)"
    assert content.members_in_words(ensemble) == "gru-0000 (100%)"


def test_cost_adds_up_all_trials(result: SearchResult) -> None:
    cost = {
        "epochs": "3",
        "hours of all trials added up": "1.50",  # 3 trials of 1800 s
        "CPU hours": "3.00",
        "GPU hours": "0.75",
        "minutes, from start to end": "2.0",
    }
    assert dict(content.cost(result)) == cost
    without = replace(result, resources=TrialResources(2, 0, 1))
    assert dict(content.cost(without)) == {k: v for k, v in cost.items() if k != "GPU hours"}


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
    (warning,) = content.warnings(leaky)
    assert warning.endswith("so the figure says nothing about new music")
    assert content.protocol(replace(result, protocol="")) == ""


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
