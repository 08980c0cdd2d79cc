"""What a report reads from Optuna's journal, of journals written here."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mgc_ray.reporting.history import end_times, importances, read_journal

START = datetime(2026, 1, 1)
RANGES = {"lr": FloatDistribution(0, 1), "dropout": FloatDistribution(0, 1)}


def write_journal(path: Path, states: Sequence[TrialState], **user_attrs: str) -> None:
    """Trial i of the family gru starts after i minutes, takes 30 seconds and scores its lr."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(study_name="gru", storage=storage, direction="maximize")
    for number, state in enumerate(states):
        lr = number / len(states)
        trial = optuna.trial.create_trial(
            params={"lr": lr, "dropout": (7 * number % len(states)) / len(states)},
            distributions=RANGES,
            state=state,
            value=lr if state == TrialState.COMPLETE else None,
            intermediate_values={1: lr},
            user_attrs=user_attrs or {"trial": f"gru-{number:04d}"},
        )
        trial.datetime_start = START + timedelta(minutes=number)
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=30)
        study.add_trial(trial)


def test_end_times_count_from_the_start_of_the_first_trial(tmp_path: Path) -> None:
    states = [TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL]
    write_journal(tmp_path / "journal", states)
    trials = read_journal(tmp_path / "journal")["gru"]
    assert end_times(trials) == {"gru-0000": 30, "gru-0001": 90}


def test_the_setting_that_decides_the_score_is_the_most_important(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal", [TrialState.COMPLETE, TrialState.PRUNED] * 20)
    shares = importances(read_journal(tmp_path / "journal")["gru"])
    assert max(shares, key=lambda name: shares[name]) == "lr"
    assert sum(shares.values()) == pytest.approx(1)


def test_few_trials_have_no_importances(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal", [TrialState.COMPLETE] * 9)
    assert importances(read_journal(tmp_path / "journal")["gru"]) == {}


def test_trials_of_an_earlier_search_are_left_out(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal", [TrialState.COMPLETE] * 2, **{"from": "old/gru-0000"})
    assert read_journal(tmp_path / "journal") == {"gru": []}


def test_a_journal_that_is_missing_or_damaged_is_no_error(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "gone") == {}
    (tmp_path / "damaged").write_text("no journal\n")
    assert read_journal(tmp_path / "damaged") == {}
