"""A progress bar on standard error; plain lines where that is no terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from mgc_ray.terminal.command import console

_SECONDS_BETWEEN_LINES = 10.0


class Advance(Protocol):
    """Called with how many are done and, where it changes, a note to show behind the bar."""

    def __call__(self, done: int, note: str = "") -> None: ...


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Advance]:
    """Show `what done/total unit`, e.g. `spectrograms 120/1000 tracks`."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, note="")

            def show(done: int, note: str = "") -> None:
                bar.update(task, completed=done)
                if note:
                    bar.update(task, note=note)

            yield show
        return

    last = time.monotonic()

    def write_line(done: int, note: str = "") -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            console.print(f"{what} {done}/{total} {unit}{'  ' + note if note else ''}")

    yield write_line
