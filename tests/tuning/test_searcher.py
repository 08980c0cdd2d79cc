"""What Optuna is told: every outcome as what it was, and all of it again after a restart."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mgc_ray.tuning.searcher import OptunaSearcher, load_studies
from mgc_ray.tuning.space import load_space


def _searcher(folder: Path, *families: str, seed: int = 0) -> OptunaSearcher:
    return OptunaSearcher(folder / "journal", {f: load_space(f) for f in families}, seed)


def _result(epoch: int, value: float, finished: bool = False) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "val_track_accuracy": value,
        "best_so_far": value,
        "finished": finished,
    }


def _trials(folder: Path, family: str = "gru") -> list[optuna.trial.FrozenTrial]:
    return load_studies(folder / "journal")[family].get_trials()


def test_the_first_trial_is_the_familys_defaults(tmp_path: Path) -> None:
    first = _searcher(tmp_path, "gru").suggest("a")
    assert first["trial"] == "gru-0000"
    assert first["params"]["lr"] == 0.001
    assert first["params"]["hidden"] == 128


def test_families_take_turns_with_a_study_each(tmp_path: Path) -> None:
    searcher = _searcher(tmp_path, "cnn", "gru")
    names = [searcher.suggest(f"t{i}")["trial"] for i in range(4)]
    assert names == ["cnn-0000", "gru-0001", "cnn-0002", "gru-0003"]
    assert len(_trials(tmp_path, "cnn")) == len(_trials(tmp_path, "gru")) == 2


def test_a_trial_that_ended_by_itself_is_told_as_complete(tmp_path: Path) -> None:
    searcher = _searcher(tmp_path, "gru")
    searcher.suggest("a")
    searcher.on_trial_result("a", _result(1, 0.3))
    searcher.on_trial_result("a", _result(2, 0.5, finished=True))
    searcher.on_trial_complete("a", _result(2, 0.5, finished=True))
    trial = _trials(tmp_path)[0]
    assert trial.state == TrialState.COMPLETE
    assert trial.value == 0.5
    assert trial.intermediate_values == {1: 0.3, 2: 0.5}


def test_a_stopped_trial_is_told_as_pruned_with_the_value_it_was_stopped_at(
    tmp_path: Path,
) -> None:
    searcher = _searcher(tmp_path, "gru")
    searcher.suggest("a")
    searcher.on_trial_result("a", _result(1, 0.3))
    searcher.on_trial_complete("a", _result(2, 0.4))  # Tune keeps the last result to itself
    trial = _trials(tmp_path)[0]
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.3, 2: 0.4}


def test_a_failed_trial_is_told_as_failed_with_its_reason(tmp_path: Path) -> None:
    searcher = _searcher(tmp_path, "gru")
    searcher.suggest("a")
    searcher.suggest("b")
    searcher.on_trial_complete("a", {"failure": "loss is nan", "finished": True})
    searcher.on_trial_complete("b", None, error=True)
    trials = _trials(tmp_path)
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 2
    assert trials[0].user_attrs["failure"] == "loss is nan"


def test_the_same_seed_suggests_the_same(tmp_path: Path) -> None:
    def suggestions(folder: str, seed: int) -> list[Any]:
        (tmp_path / folder).mkdir()
        searcher = _searcher(tmp_path / folder, "gru", seed=seed)
        return [searcher.suggest(f"t{i}")["params"] for i in range(5)]

    assert suggestions("a", 0) == suggestions("b", 0)
    assert suggestions("c", 1)[1:] != suggestions("d", 0)[1:]


def test_a_new_searcher_goes_on_where_a_killed_driver_stopped(tmp_path: Path) -> None:
    first = _searcher(tmp_path, "gru")
    before = {name: first.suggest(name) for name in ("a", "b", "c")}
    first.on_trial_complete("a", _result(1, 0.5, finished=True))
    first.on_trial_result("b", _result(1, 0.2))

    second = _searcher(tmp_path, "gru")
    again = [second.suggest("x"), second.suggest("y")]
    assert again == [before["b"], before["c"]]
    assert second.suggest("z")["trial"] == "gru-0003"
    second.on_trial_result("x", _result(1, 0.2))
    second.on_trial_complete("x", _result(2, 0.6, finished=True))
    states = [trial.state for trial in _trials(tmp_path)]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING] * 2


@pytest.mark.parametrize("family", ["gru"])
def test_later_suggestions_learn_from_what_was_told(tmp_path: Path, family: str) -> None:
    """With dropout near 0 rewarded, TPE proposes less of it than random sampling would."""
    searcher = _searcher(tmp_path, family)
    proposed = []
    for i in range(40):
        params = searcher.suggest(f"t{i}")["params"]
        proposed.append(params["dropout"])
        value = 1 - params["dropout"]
        searcher.on_trial_complete(f"t{i}", _result(1, value, finished=True))
    assert sum(proposed[20:]) / 20 < 0.2  # the mean of the whole range is 0.3
