"""What Optuna knows of each trial, also after a restart, and what it suggests."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mgc_ray.config import Metric
from mgc_ray.results import COMPLETED, FAILED, STOPPED_EARLY, TrialRecord
from mgc_ray.tuning.searcher import OptunaSearcher, WarmStart, load_studies
from mgc_ray.tuning.space import load_space


def _searcher(folder: Path, *families: str, seed: int = 0) -> OptunaSearcher:
    return OptunaSearcher(folder / "journal", {f: load_space(f) for f in families}, seed)


def _result(epoch: int, value: float, finished: bool = False) -> dict[str, Any]:
    """A report as Tune hands it on."""
    metrics = {"val_track_accuracy": value, "val_loss": 1.0}
    return {"epoch": epoch, "metrics": metrics, "best_so_far": value, "finished": finished}


def _end(
    searcher: OptunaSearcher, name: str, *values: float, status: str = COMPLETED, reason: str = ""
) -> None:
    """Report the end of a trial whose epochs had these accuracies."""
    searcher.on_trial_end(_record(name, values, status, reason))


def _record(
    name: str, values: Sequence[float], status: str = COMPLETED, reason: str = ""
) -> TrialRecord:
    curve = [{"val_track_accuracy": value, "val_loss": 1.0} for value in values]
    family = name.split("-")[0]
    return TrialRecord(name, family, {}, status=status, reason=reason, curve=curve)


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


def test_a_trial_that_ended_by_itself_is_complete(tmp_path: Path) -> None:
    searcher = _searcher(tmp_path, "gru")
    searcher.suggest("a")
    searcher.on_trial_result("a", _result(1, 0.3))
    searcher.on_trial_result("a", _result(2, 0.5, finished=True))
    searcher.on_trial_complete("a", _result(2, 0.5, finished=True))
    _end(searcher, "gru-0000", 0.3, 0.5)
    trial = _trials(tmp_path)[0]
    assert trial.state == TrialState.COMPLETE
    assert trial.value == 0.5
    assert trial.intermediate_values == {1: 0.3, 2: 0.5}


def test_a_stopped_trial_is_pruned_with_the_value_at_which_it_was_stopped(
    tmp_path: Path,
) -> None:
    searcher = _searcher(tmp_path, "gru")
    searcher.suggest("a")
    searcher.on_trial_result("a", _result(1, 0.3))
    searcher.on_trial_complete("a", _result(2, 0.4))  # Tune keeps the last result to itself
    _end(searcher, "gru-0000", 0.3, 0.4, status=STOPPED_EARLY)
    trial = _trials(tmp_path)[0]
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.3, 2: 0.4}


def test_a_log_loss_is_reported_with_its_sign_changed_as_optuna_maximises(tmp_path: Path) -> None:
    searcher = _searcher(tmp_path, "gru")
    searcher.suggest("a")
    metric: Metric = "log_loss"
    curve = [{"val_log_loss": value, "val_loss": 1.0} for value in (1.5, 0.5, 0.75)]
    searcher.on_trial_end(TrialRecord("gru-0000", "gru", {}, metric, COMPLETED, curve=curve))
    trial = _trials(tmp_path)[0]
    assert trial.value == -0.5
    assert trial.intermediate_values == {1: -1.5, 2: -0.5, 3: -0.5}


def test_a_failed_trial_is_failed_with_its_reason(tmp_path: Path) -> None:
    searcher = _searcher(tmp_path, "gru")
    searcher.suggest("a")
    searcher.suggest("b")
    _end(searcher, "gru-0000", status=FAILED, reason="loss is nan")
    _end(searcher, "gru-0001", status=FAILED)
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


def test_a_new_searcher_continues_where_a_killed_driver_stopped(tmp_path: Path) -> None:
    first = _searcher(tmp_path, "gru")
    before = {name: first.suggest(name) for name in ("a", "b", "c")}
    _end(first, "gru-0000", 0.5)
    first.on_trial_result("b", _result(1, 0.2))

    second = _searcher(tmp_path, "gru")
    again = [second.suggest("x"), second.suggest("y")]
    assert again == [before["b"], before["c"]]
    assert second.suggest("z")["trial"] == "gru-0003"
    second.on_trial_result("x", _result(1, 0.2))
    _end(second, before["b"]["trial"], 0.2, 0.6)
    states = [trial.state for trial in _trials(tmp_path)]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING] * 2


def test_a_trial_that_has_a_record_but_no_end_in_optuna_gets_one_after_a_kill(
    tmp_path: Path,
) -> None:
    first = _searcher(tmp_path, "gru")
    names = [first.suggest(name)["trial"] for name in ("a", "b")]
    first.on_trial_result("a", _result(1, 0.2))
    record = _record(names[0], [0.2, 0.4])

    spaces = {"gru": load_space("gru")}
    second = OptunaSearcher(tmp_path / "journal", spaces, 0, earlier=[record])
    trial = _trials(tmp_path)[0]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.4)
    assert trial.intermediate_values == {1: 0.2, 2: 0.4}
    assert [second.suggest(name)["trial"] for name in ("x", "y")] == [names[1], "gru-0002"]


def test_a_journal_that_was_cut_in_the_middle_of_a_line_can_be_continued(tmp_path: Path) -> None:
    first = _searcher(tmp_path, "gru")
    first.suggest("a")
    _end(first, "gru-0000", 0.5)
    with (tmp_path / "journal").open("a") as file:
        file.write('{"op_code":5,"worker_id":"half a li')
    second = _searcher(tmp_path, "gru")
    second.suggest("b")
    assert [trial.value for trial in _trials(tmp_path)][:1] == [0.5]
    assert len(_trials(tmp_path)) == 2


def test_a_journal_that_has_lost_trials_gives_no_name_twice(tmp_path: Path) -> None:
    searcher = _searcher(tmp_path, "gru")
    searcher.suggest("a")
    searcher.suggest("b")
    journal = tmp_path / "journal"
    lines = journal.read_text().splitlines(keepends=True)
    named = next(i for i, line in enumerate(lines) if '"gru-0000"' in line)
    journal.write_text("".join(lines[:named]))  # of one trial, without its name
    assert _searcher(tmp_path, "gru").suggest("c")["trial"] == "gru-0001"
    searcher = _searcher(tmp_path, "gru")
    names = [searcher.suggest(f"t{i}")["trial"] for i in range(3)]
    assert names == ["gru-0001", "gru-0002", "gru-0003"]


@pytest.mark.parametrize("family", ["gru"])
def test_later_suggestions_learn_from_earlier_trials(tmp_path: Path, family: str) -> None:
    """With dropout near 0 rewarded, TPE proposes less of it than random sampling would."""
    searcher = _searcher(tmp_path, family)
    proposed = []
    for i in range(40):
        suggestion = searcher.suggest(f"t{i}")
        proposed.append(suggestion["params"]["dropout"])
        _end(searcher, suggestion["trial"], 1 - suggestion["params"]["dropout"])
    assert sum(proposed[20:]) / 20 < 0.2  # the mean of the whole range is 0.3


# --- warm start ---


def _narrow(trial: optuna.Trial) -> dict[str, Any]:
    """Without mixup, which then has its default 0.2, and with rates up to 0.003."""
    return {
        "lr": trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        "hidden": trial.suggest_categorical("hidden", [32, 64, 128]),
    }


def _wide(trial: optuna.Trial) -> dict[str, Any]:
    """Without a choice of 32; `weight_decay` under a condition that is never met by default."""
    params = {
        "lr": trial.suggest_float("lr", 5e-4, 1e-1, log=True),
        "hidden": trial.suggest_categorical("hidden", [64, 128]),
        "mixup": trial.suggest_float("mixup", 0.0, 0.5),
        "optimizer": trial.suggest_categorical("optimizer", ["adam", "adamw"]),
    }
    if params["optimizer"] == "adamw":
        params["weight_decay"] = trial.suggest_float("weight_decay", 1e-4, 1e-1)
    return params


@pytest.fixture
def earlier_journal(tmp_path: Path) -> Path:
    """Twenty trials of the narrow space, better the larger lr; each third is stopped."""
    searcher = OptunaSearcher(tmp_path / "earlier", {"gru": _narrow}, 0)
    for i in range(20):
        suggestion = searcher.suggest(f"t{i}")
        searcher.on_trial_result(f"t{i}", _result(1, 0.1))
        status = COMPLETED if i % 3 else STOPPED_EARLY
        _end(searcher, suggestion["trial"], 0.1, 100 * suggestion["params"]["lr"], status=status)
    searcher.suggest("left running")
    return tmp_path / "earlier"


def _warm(folder: Path, earlier: Path, comparable: bool) -> OptunaSearcher:
    starts = [WarmStart("before", earlier, comparable)]
    return OptunaSearcher(folder / "journal", {"gru": _wide}, 0, starts)


def test_results_on_the_comparable_are_known_as_far_as_the_space_has_them(
    tmp_path: Path, earlier_journal: Path
) -> None:
    _warm(tmp_path, earlier_journal, comparable=True)
    theirs = load_studies(earlier_journal)["gru"].get_trials()
    ours = {t.user_attrs["from"]: t for t in _trials(tmp_path) if "from" in t.user_attrs}
    within = [
        t
        for t in theirs
        if t.params["lr"] >= 5e-4 and t.params["hidden"] != 32 and t.state != TrialState.RUNNING
    ]
    assert len(within) >= 4
    assert set(ours) == {f"before/gru-{t.number:04d}" for t in within}
    for trial in within:
        mine = ours[f"before/gru-{trial.number:04d}"]
        assert mine.params == trial.params | {"mixup": 0.2, "optimizer": "adam"}
        assert mine.state == trial.state
        if trial.state == TrialState.COMPLETE:
            assert mine.value == trial.value
        assert mine.intermediate_values == trial.intermediate_values


def test_known_results_are_no_trials_of_the_new_search(
    tmp_path: Path, earlier_journal: Path
) -> None:
    searcher = _warm(tmp_path, earlier_journal, comparable=True)
    first = searcher.suggest("a")
    assert first["trial"] == "gru-0000"
    assert first["params"]["lr"] != 1e-3  # the defaults' result is among those known
    again = _warm(tmp_path, earlier_journal, comparable=True)
    assert again.suggest("x") == first  # left running by the first
    assert again.suggest("y")["trial"] == "gru-0001"


def test_the_best_settings_on_another_dataset_come_after_the_defaults(
    tmp_path: Path, earlier_journal: Path
) -> None:
    searcher = _warm(tmp_path, earlier_journal, comparable=False)
    proposed = [searcher.suggest(f"t{i}")["params"] for i in range(4)]
    assert proposed[0]["lr"] == 1e-3
    theirs = [
        t.params["lr"]
        for t in load_studies(earlier_journal)["gru"].get_trials(states=(TrialState.COMPLETE,))
        if t.params["lr"] > 1e-3 and t.params["hidden"] != 32
    ]
    assert [p["lr"] for p in proposed[1:3]] == sorted(theirs)[:-3:-1]
    assert all("from" not in t.user_attrs for t in _trials(tmp_path))


def test_a_warm_search_proposes_better_at_once(tmp_path: Path) -> None:
    def distance(params: dict[str, Any]) -> float:
        return abs(math.log10(params["lr"] / 1e-3))  # orders of magnitude from the best rate

    def without_mixup(trial: optuna.Trial) -> dict[str, Any]:
        return {"lr": trial.suggest_float("lr", 5e-4, 1e-1, log=True)}

    before = OptunaSearcher(tmp_path / "earlier", {"gru": without_mixup}, 1)
    for i in range(40):
        suggestion = before.suggest(f"t{i}")
        _end(before, suggestion["trial"], 1 - distance(suggestion["params"]))

    def proposed(folder: str, earlier: list[WarmStart]) -> float:
        (tmp_path / folder).mkdir()
        searcher = OptunaSearcher(tmp_path / folder / "journal", {"gru": _wide}, 0, earlier)
        distances = []
        for i in range(10):
            suggestion = searcher.suggest(f"t{i}")
            distances.append(distance(suggestion["params"]))
            _end(searcher, suggestion["trial"], 1 - distances[-1])
        return sorted(distances)[5]

    known = WarmStart("before", tmp_path / "earlier", comparable=True)
    assert proposed("warm", [known]) < proposed("cold", []) / 2
