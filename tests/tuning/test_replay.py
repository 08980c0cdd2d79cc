"""Every prefix of what a search writes: wherever it is killed, no ended trial is lost."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mgc_ray.data.files import delete_partial_files
from mgc_ray.data.storage import SharedFolder, Storage
from tests.tuning.driving import Driver, check, run
from tests.writing import Disk, before_each_change

TRIALS = 2


def _records(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("trials/*/trial.json")}


def _states(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("trials/*/state.safetensors")}


@pytest.fixture(scope="module")
def prefixes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders with `here` and `storage` as they were before each change of a file."""
    root = tmp_path_factory.mktemp("replay")
    place = root / "place"
    place.mkdir()
    search = SharedFolder(place / "here", Storage(str(place / "storage")), "a")
    taken: list[Path] = []

    def take() -> None:
        taken.append(root / f"{len(taken):04d}")
        shutil.copytree(place, taken[-1])

    with pytest.MonkeyPatch.context() as patch, before_each_change(take):
        patch.setattr("mgc_ray.data.storage._THREADS", 1)  # one change after the other
        run(search, TRIALS)
    take()
    return taken


def test_a_search_that_is_killed_before_any_change_loses_no_ended_trial(
    prefixes: list[Path], tmp_path: Path
) -> None:
    assert len(prefixes) > 80
    for number, prefix in enumerate(prefixes):
        here = tmp_path / f"{number}" / "here"
        shutil.copytree(prefix, here.parent)
        ended = _records(here)
        search = SharedFolder(here, Storage(str(here.parent / "storage")), "a")
        delete_partial_files(here)
        driver = Driver(search)
        assert driver.ended == ended, prefix
        check(here)
        if number % 20 == 0:
            run(search, TRIALS)
            assert len(check(here)) == TRIALS
            assert len(check(here.parent / "storage/a")) == TRIALS


def test_a_search_that_goes_on_from_any_prefix_of_its_bucket_loses_no_ended_trial(
    prefixes: list[Path], tmp_path: Path
) -> None:
    """The machine of its driver is lost."""
    known: set[str] = set()
    for number, prefix in enumerate(prefixes):
        bucket = prefix / "storage/a"
        sent = _records(bucket)
        assert known <= sent | _states(bucket), prefix  # what had a state has it, or a record
        known |= _states(bucket)
        storage = tmp_path / f"{number}/storage"
        shutil.copytree(prefix / "storage", storage)
        search = SharedFolder(tmp_path / f"{number}/there", Storage(str(storage)), "a")
        search.storage.get("a", search.folder)  # type: ignore[union-attr]
        assert Driver(search).ended == sent, prefix
        check(search.folder)
        if number % 20 == 0:
            run(search, TRIALS)
            assert len(check(search.folder)) == TRIALS


def test_no_ended_trial_is_lost_by_a_loss_of_power(tmp_path: Path) -> None:
    """On a real ext4, of which only what was synced is certain to be on the disk."""
    disk = Disk(tmp_path)
    try:
        folder = disk.place / "search"
        driver = Driver(SharedFolder(folder, None))

        def lose_power(after: Callable[[], object]) -> None:
            after()
            with disk.after_power_loss() as crashed:
                delete_partial_files(crashed / "search")
                again = Driver(SharedFolder(crashed / "search", None))
                assert again.ended == driver.ended
                check(crashed / "search")
                for record in again.earlier:
                    mine = f"trials/{record.trial}/trial.json"
                    assert (crashed / "search" / mine).read_bytes() == (folder / mine).read_bytes()

        for _ in range(TRIALS):
            lose_power(driver.start)
            for _ in range(2):
                lose_power(driver.running[0].step)
            lose_power(driver.running[0].step)
        assert len(driver.ended) == TRIALS
    finally:
        disk.unmount()
