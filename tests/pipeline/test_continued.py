"""A search that goes on from a storage, here or on another machine, whatever was interrupted."""

import shutil
from pathlib import Path

import pytest

from mgc_ray.data import storage as storages
from mgc_ray.data.storage import SharedFolder, Storage
from mgc_ray.pipeline.continued import fetch_search
from mgc_ray.results import JOURNAL, SEARCH, load_search
from tests.tuning.driving import Driver, begin, check, run


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def _some(search: SharedFolder, ended: int) -> Driver:
    """A driver that dies when so many trials have ended and one more is running."""
    driver = Driver(search)
    while len(driver.ended) < ended:
        trial = driver.running[0] if driver.running else driver.start()
        trial.step()
    driver.start().epoch()
    return driver


def test_another_machine_goes_on_and_the_first_takes_over_what_it_has_done(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = begin(tmp_path / "one", storage)
    assert len(_some(first, 2).ended) == 2
    second = begin(tmp_path / "two", storage)
    driver = _some(second, 4)
    assert {record.trial for record in driver.earlier} == {"gru-0000", "gru-0001"}
    with pytest.raises(OSError, match="another driver has taken a over"):
        first.send(JOURNAL)

    again = begin(tmp_path / "one", storage)
    assert "a was continued on another machine" in capsys.readouterr().err
    assert Driver(again).ended == driver.ended
    run(again, 5)
    assert len(check(again.folder)) == len(check(tmp_path / "storage/a")) == 5


def test_trials_that_did_not_reach_the_storage_are_kept(storage: Storage, tmp_path: Path) -> None:
    first = begin(tmp_path / "one", storage)
    _some(first, 2)
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "storage", kept)
    _some(first, 3)  # of which the storage hears nothing
    shutil.rmtree(tmp_path / "storage")
    shutil.copytree(kept, tmp_path / "storage")
    _some(begin(tmp_path / "two", storage), 2)  # another driver comes, and dies
    again = begin(tmp_path / "one", storage)
    assert Driver(again).ended == {"gru-0000", "gru-0001", "gru-0002"}
    check(again.folder)


@pytest.mark.parametrize("there", [False, True])
def test_a_fetch_that_is_killed_is_begun_again(
    storage: Storage, tmp_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each of its files; `there`: where an older state of the search is."""
    monkeypatch.setattr(storages, "_THREADS", 1)
    _some(begin(tmp_path / "one", storage), 1)
    if there:
        shutil.copytree(tmp_path / "one", tmp_path / "old")
    driver = _some(begin(tmp_path / "one", storage), 3)
    count = len(storage.files("a"))
    get = Storage._get_file

    for last in range(0, count - 1, 3):
        results = tmp_path / f"{last}"
        if there:
            shutil.copytree(tmp_path / "old", results)
        left = last

        def killed(self: Storage, key: str, path: Path) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            get(self, key, path)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Storage, "_get_file", killed)
            fetch_search(storage, "a", results / "a")
        assert there or not (results / "a").exists()
        search = begin(results, storage)
        assert Driver(search).ended == driver.ended
        check(search.folder)


def test_a_damaged_description_is_fetched_again(storage: Storage, tmp_path: Path) -> None:
    search = begin(tmp_path / "one", storage)
    run(search, 2)
    (search.folder / SEARCH).write_bytes(b"")
    fetch_search(storage, "a", search.folder)
    assert load_search(search.folder).name == "a"
    assert len(check(search.folder)) == 2
