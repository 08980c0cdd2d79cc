"""What is on a disk at each moment: before each change of files, or after a loss of power."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link"}
_watcher: Callable[[], None] | None = None
_watches = False


def _notice(event: str, arguments: tuple[object, ...]) -> None:
    global _watcher
    if _watcher is None:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
    if event in _CHANGES or writes:
        watcher, _watcher = _watcher, None  # what it does itself is not noticed
        try:
            watcher()
        finally:
            _watcher = watcher


@contextmanager
def before_each_change(call: Callable[[], None]) -> Iterator[None]:
    """Call a function before each change of files that this process makes in the block."""
    global _watcher, _watches
    if not _watches:
        sys.addaudithook(_notice)  # for good
        _watches = True
    _watcher = call
    try:
        yield
    finally:
        _watcher = None


class Disk:
    """An ext4 file system in a file, of which crash images can be taken."""

    def __init__(self, folder: Path) -> None:
        self._image, self._folder = folder / "disk.img", folder
        self.place = folder / "disk"
        self.place.mkdir()
        with self._image.open("wb") as file:
            file.truncate(24 << 20)
        tool = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if not tool:
            pytest.skip("needs mkfs.ext4")
        subprocess.run([tool, "-q", "-F", self._image], check=True)
        # the journal is written every ten minutes, and what is synced at once
        done = subprocess.run(
            ["mount", "-o", "loop,commit=600", self._image, self.place],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"may not mount a file system: {done.stderr.strip()}")

    @contextmanager
    def after_power_loss(self) -> Iterator[Path]:
        """The file system as it would be if the power were lost now."""
        crashed, place = self._folder / "crashed.img", self._folder / "crashed"
        subprocess.run(["cp", "--sparse=always", self._image, crashed], check=True)
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", "loop", crashed, place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.place], check=True)
