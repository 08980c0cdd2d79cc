"""What a search finds of itself after a loss of power, and what it makes of it."""

import os
from pathlib import Path

import pytest

from mgc_ray.data.files import delete
from mgc_ray.data.storage import SharedFolder, Storage, StorageError
from mgc_ray.results import JOURNAL, LEADERBOARD, read_records
from tests.places import DAMAGE
from tests.tuning.driving import (
    EPOCHS,
    Driver,
    begin,
    check,
    ended_for_optuna,
    on_leaderboard,
    run,
)
from tests.tuning.sequences import FailingStorage


def _weights(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("trials/*/checkpoint")}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(
    "what", ["trial.json", "checkpoint/model.safetensors", "checkpoint/config.json"]
)
def test_a_trial_whose_files_are_damaged_runs_again_and_no_other(
    tmp_path: Path, what: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    search = SharedFolder(tmp_path, None)
    run(search, 4)
    victim = sorted(_weights(tmp_path))[0]
    before = {r.trial: r for r in read_records(tmp_path / "trials")}
    DAMAGE[how](tmp_path / "trials" / victim / what)

    driver = Driver(search)
    assert f"{victim}: files of these trials are damaged" in capsys.readouterr().err
    assert driver.ended == before.keys() - {victim}
    assert ended_for_optuna(tmp_path) == sorted(driver.ended)
    assert driver.start().name == victim
    run(search, 4)
    after = {record.trial: record for record in check(tmp_path)}
    assert after.keys() == before.keys()
    assert after[victim].params == before[victim].params
    assert after[victim].curve == before[victim].curve


def test_damaged_files_are_fetched_again_from_a_storage(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "storage"))
    search = SharedFolder(tmp_path / "here", storage, "a")
    run(search, 3)
    victim = sorted(_weights(search.folder))[0]
    DAMAGE["empty"](search.folder / "trials" / victim / "trial.json")
    DAMAGE["empty"](search.folder / "trials" / victim / "checkpoint/model.safetensors")
    assert len(Driver(search).ended) == 3
    check(search.folder)


@pytest.mark.parametrize("left", ["config.json", "model.safetensors"])
def test_weights_that_were_being_deleted_do_not_run_a_trial_again(
    tmp_path: Path, left: str
) -> None:
    search = SharedFolder(tmp_path, None)
    run(search, 2)
    (other,) = {"config.json", "model.safetensors"} - {left}
    (tmp_path / "trials/gru-0000/checkpoint" / other).unlink()
    assert Driver(search).ended == {"gru-0000", "gru-0001"}
    assert _weights(tmp_path) == {"gru-0001"}


@pytest.mark.parametrize("how", [*DAMAGE, "cut anywhere"])
def test_a_damaged_journal_gets_the_trials_of_the_records(tmp_path: Path, how: str) -> None:
    search = SharedFolder(tmp_path, None)
    run(search, 3)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    cuts = range(0, len(whole), 97) if how == "cut anywhere" else [0]
    for size in cuts:
        if how == "cut anywhere":
            journal.write_bytes(whole[:size] + bytes(512))
        else:
            DAMAGE[how](journal)
        driver = Driver(search)
        assert driver.ended == {"gru-0000", "gru-0001", "gru-0002"}
        check(tmp_path)
        assert driver.start().name in ("gru-0003", "gru-0004")


def test_a_state_that_is_damaged_starts_its_trial_from_scratch(tmp_path: Path) -> None:
    search = SharedFolder(tmp_path, None)
    driver = Driver(search)
    driver.start().epoch()
    assert Driver(search).start().resumed_at == 1
    DAMAGE["empty"](tmp_path / "trials/gru-0000/state.safetensors")
    assert Driver(search).start().resumed_at == 0


def test_a_folder_that_is_deleted_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").touch()
    delete(tmp_path / "a")
    delete(tmp_path / "nothing")
    assert os.listdir(tmp_path) == []


def test_a_storage_that_fails_when_a_trial_ends_ends_the_search(tmp_path: Path) -> None:
    """Tune takes what is raised then for an error of the trial, and would run it again."""
    storage = FailingStorage(str(tmp_path / "storage"))
    driver = Driver(begin(tmp_path / "one", storage))
    trial = driver.start()
    for _ in range(EPOCHS):
        trial.step()
    storage.left = 0
    with pytest.raises(StorageError) as first:
        trial.step()
    storage.left = 100
    calls = (
        lambda log: log.on_step_begin(0, []),
        lambda log: log.on_trial_start(0, [], trial._tune),
        lambda log: log.on_trial_complete(0, [], trial._tune),
    )
    for call in calls:
        with pytest.raises(StorageError) as again:
            call(driver.log)
        assert again.value is first.value
    assert driver.log.failure is first.value
    again = begin(tmp_path / "one", storage)
    assert not (again.folder / LEADERBOARD).exists()
    assert Driver(again).ended == {"gru-0000"}
    assert on_leaderboard(again.folder) == ["gru-0000"]  # also where no more trials are to be run
