"""All processes that a command has started, by a mark in their environment."""

import os
import signal
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_NAME = "MGC_RAY_TEST"


class Marked:
    """Processes whose environment has a mark; `environment` gives it to the first of them."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex

    @property
    def environment(self) -> dict[str, str]:
        return {_NAME: self._mark}

    def pids(self) -> list[int]:
        """Those that run now."""
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it has ended since
                if f"{_NAME}={self._mark}".encode() in file.read_bytes().split(b"\0"):
                    found.append(int(file.parent.name))
        return found

    def left(self) -> list[int]:
        """Those that still run after three seconds: helpers of Python's end by themselves."""
        deadline = time.monotonic() + 3
        while (pids := self.pids()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return pids

    def commands(self, pids: Iterable[int]) -> list[str]:
        """What these are, those that have ended since left out."""
        files = [Path(f"/proc/{pid}/cmdline") for pid in pids]
        return [file.read_text().replace("\0", " ") for file in files if file.exists()]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to each, as systemd and Slurm do."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
