"""What can happen to a search, in any order, and what must hold all the way.

A search runs on two machines that share a storage. Its driver is killed and resumed on either of
them, thaws after another one has taken over, loses the storage in the middle of a send, loses a
machine with its disk; files of ended trials are damaged. A trial's node freezes, so that the trial
runs again, and thaws.
"""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mgc_ray.data.storage import Storage, StorageError
from mgc_ray.results import JOURNAL
from tests.places import DAMAGE
from tests.tuning.driving import (
    EPOCHS,
    Driver,
    Trial,
    begin,
    check,
    ended_for_optuna,
    on_leaderboard,
    run,
)

MACHINES = ("one", "two")


class FailingStorage(Storage):
    """A folder that fails after some more files have been sent."""

    left = 1_000_000

    def _put_file(self, path: Path, key: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise StorageError(5, "the storage cannot be used", self.uri)
        super()._put_file(path, key)


class Search(RuleBasedStateMachine):
    """`sent`: trials whose record has reached the storage, which must not be lost any more."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mgc_ray_sequence"))
        self.storage = FailingStorage(str(self.folder / "storage"))
        self.machine = "one"
        self.old: Driver | None = None
        self.frozen: Trial | None = None
        self.sent: set[str] = set()
        self.driver: Driver | None = Driver(begin(self.folder / "one", self.storage))

    @precondition(lambda self: self.driver and len(self.driver.running) < 2)
    @rule()
    def start(self) -> None:
        self._do(lambda driver: driver.start())

    @precondition(lambda self: self.driver and self.driver.running)
    @rule(which=st.integers(0, 1))
    def step(self, which: int) -> None:
        self._do(lambda driver: driver.running[which % len(driver.running)].step())

    @precondition(lambda self: self.driver)
    @rule(left=st.integers(0, 6), which=st.integers(0, 1))
    def lose_the_storage(self, left: int, which: int) -> None:
        self.storage.left = left
        if self.driver and self.driver.running:
            self.step(which)
        else:
            self.start()
        self.storage.left = 1_000_000

    @precondition(lambda self: self.driver)
    @rule()
    def kill(self) -> None:
        self.old, self.driver = self.driver, None

    @precondition(lambda self: self.driver is None)
    @rule(machine=st.sampled_from(MACHINES))
    def resume(self, machine: str) -> None:
        self.machine = machine
        self.driver = Driver(begin(self.folder / machine, self.storage))
        check(self.folder / machine / "a")

    @precondition(lambda self: self.driver and self.old and self.old.running)
    @rule()
    def thaw(self) -> None:
        """The driver before this one was frozen, and no longer is."""
        old, self.old = self.old, None
        assert old
        before = _content(self.folder / "storage")
        if self.driver and self.driver.search.folder == old.search.folder:
            return  # one machine runs a search once: its folder has a lock
        with suppress(StorageError):  # it may have nothing to send
            old.running[0].step()
        assert _content(self.folder / "storage") == before

    @precondition(lambda self: self.driver and self.driver.running)
    @rule(which=st.integers(0, 1))
    def freeze_a_node(self, which: int) -> None:
        def freeze(driver: Driver) -> None:
            self.frozen = driver.running[which % len(driver.running)].run_again()

        self._do(freeze)

    @precondition(lambda self: self.frozen)
    @rule()
    def thaw_a_node(self) -> None:
        """The trial on it goes on, whatever has become of the one that was run in its place."""
        frozen, self.frozen = self.frozen, None
        assert frozen
        if frozen.epochs == EPOCHS:
            return
        before = _content(self.folder)
        with suppress(StorageError):
            frozen.epoch()
        assert _content(self.folder) == before

    @precondition(lambda self: self.driver is None)
    @rule(machine=st.sampled_from(MACHINES))
    def lose_a_machine(self, machine: str) -> None:
        shutil.rmtree(self.folder / machine, ignore_errors=True)

    @precondition(lambda self: self.driver is None)
    @rule(data=st.data(), how=st.sampled_from(sorted(DAMAGE)))
    def damage(self, data: st.DataObject, how: str) -> None:
        trials = self.folder / self.machine / "a"
        files = [*sorted(trials.glob("trials/*/trial.json")), trials / JOURNAL]
        files += sorted(trials.glob("trials/*/checkpoint/*"))
        files = [file for file in files if file.exists()]
        if files:
            DAMAGE[how](data.draw(st.sampled_from(files)))

    def _do(self, action: Callable[[Driver], object]) -> None:
        assert self.driver
        try:
            action(self.driver)
        except StorageError:
            self.old, self.driver = None, None  # it ends

    @invariant()
    def what_was_sent_is_there(self) -> None:
        bucket = self.folder / "storage/a/trials"
        now = {path.parent.name for path in bucket.glob("*/trial.json")}
        assert self.sent <= now
        self.sent = now

    def teardown(self) -> None:
        """In the end all is the same everywhere."""
        self.storage.left = 1_000_000
        try:
            search = begin(self.folder / "one", self.storage)
            count = max(3, len(self.sent) + 1)
            run(search, count)
            for place in (search.folder, self.folder / "storage/a"):
                names = sorted(record.trial for record in check(place))
                assert len(names) >= count
                assert names == ended_for_optuna(place) == on_leaderboard(place)
            assert self.sent <= set(names)
        finally:
            shutil.rmtree(self.folder)


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
