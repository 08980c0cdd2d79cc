"""Records, their order, and the leaderboard."""

import csv
from pathlib import Path

from mgc_ray.tuning.display import clock, settings_in_words
from mgc_ray.tuning.records import TrialRecord, ranked, read_records, write_leaderboard


def _record(name: str, accuracies: list[float], status: str = "completed") -> TrialRecord:
    curve = [
        {
            "val_track_accuracy": a,
            "val_chunk_accuracy": a / 2,
            "val_macro_f1": a / 4,
            "val_loss": 1 - a,
        }
        for a in accuracies
    ]
    best = accuracies.index(max(accuracies)) + 1 if accuracies else 0
    return TrialRecord(
        name, name.split("-")[0], {"lr": 0.01}, status, best_epoch=best, curve=curve, seconds=1.5
    )


def test_best_first_and_failed_ones_last() -> None:
    records = [
        _record("gru-0000", [0.5, 0.4]),
        _record("gru-0001", [0.9], "failed"),
        _record("gru-0002", []),
        _record("cnn-0003", [0.6], "stopped_early"),
    ]
    assert [record.trial for record in ranked(records)] == [
        "cnn-0003",
        "gru-0000",
        "gru-0002",
        "gru-0001",
    ]


def test_a_tie_goes_to_the_lower_loss_and_then_to_the_earlier_trial() -> None:
    a, b, c = (_record(f"gru-000{i}", [0.5]) for i in range(3))
    c.curve[0]["val_loss"] = 0.1
    assert [record.trial for record in ranked([b, a, c])] == ["gru-0002", "gru-0000", "gru-0001"]


def test_the_leaderboard_has_a_row_a_trial_with_the_best_epochs_figures(tmp_path: Path) -> None:
    other = _record("cnn-0001", [], "failed")
    other.params = {"dropout": 0.3}
    other.reason = "killed"
    write_leaderboard(tmp_path / "l.csv", [other, _record("gru-0000", [0.4, 0.8, 0.6])])
    with open(tmp_path / "l.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "trial": "gru-0000",
        "family": "gru",
        "status": "completed",
        "epochs": "3",
        "val_track_accuracy": "0.800000",
        "val_chunk_accuracy": "0.400000",
        "val_macro_f1": "0.200000",
        "seconds": "1.50",
        "reason": "",
        "dropout": "",
        "lr": "0.01",
    }
    assert rows[1]["val_track_accuracy"] == ""
    assert (rows[1]["status"], rows[1]["reason"]) == ("failed", "killed")


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    records = [_record("gru-0010", [0.1]), _record("cnn-0002", [0.2])]
    for record in records:
        record.write(tmp_path / record.trial)
    assert read_records(tmp_path) == [records[1], records[0]]  # by number


def test_settings_in_words_says_what_differs() -> None:
    defaults = {"lr": 0.001, "bidirectional": True, "batch_size": 32, "schedule": "constant"}
    chosen = {"lr": 0.000423, "bidirectional": False, "batch_size": 32, "schedule": "cosine"}
    assert settings_in_words(chosen, defaults) == "lr 0.00042, not bidirectional, schedule cosine"
    assert settings_in_words(defaults, defaults) == "the defaults"


def test_clock() -> None:
    assert [clock(s) for s in (5, 75, 3725)] == ["0:05", "1:15", "1:02:05"]
