"""The live display of a search on standard error; plain lines where that is no terminal."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mgc_ray.terminal.command import console, count_of
from mgc_ray.tuning.records import (
    COMPLETED,
    FAILED,
    RUNNING,
    STOPPED_EARLY,
    TrialRecord,
    ranked,
)

_SHOWN = 5
_SECONDS_BETWEEN_LINES = 30.0  # in a log
_WIDTH_OF_TABLE = 70  # columns of a terminal, below which a table has no room for settings


class Display:
    """Shows counts, the best five and the time left, as a Listener of the trial log.

    `planned` trials in all, `defaults` of each family (so that only what differs is shown),
    `time_limit` seconds or None.
    """

    def __init__(
        self,
        planned: int,
        earlier: Iterable[TrialRecord],
        defaults: dict[str, dict[str, Any]],
        time_limit: float | None,
    ) -> None:
        self._planned = planned
        self._defaults = defaults
        self._time_limit = time_limit
        self._records = {record.trial: record for record in earlier}
        self._earlier = len(self._records)
        self._started = self._told = time.monotonic()
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(
                console=console,
                get_renderable=self._render,
                refresh_per_second=2,
                transient=True,
                vertical_overflow="crop",
            )

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def on_start(self, record: TrialRecord) -> None:
        self._records[record.trial] = record

    def on_epoch(self, record: TrialRecord) -> None:
        """A line now and then, so that a log shows that the search lives."""
        if self._live or time.monotonic() - self._told < _SECONDS_BETWEEN_LINES:
            return
        self._told = time.monotonic()
        console.print(f"{self._counts()[1]}; {self._running()}", markup=False)

    def _running(self) -> str:
        running = [r for r in list(self._records.values()) if r.status == RUNNING]
        return "running: " + ", ".join(f"{r.trial} epoch {r.epochs + 1}" for r in running)

    def on_end(self, record: TrialRecord) -> None:
        if self._live:
            return
        self._told = time.monotonic()
        how = f": {record.reason}" if record.status == FAILED else f", {figures(record)}"
        console.print(
            f"[{self._counts()[0]}/{self._planned}] {record.trial} "
            f"{record.status.replace('_', ' ')} after {count_of(record.epochs, 'epoch')}{how}, "
            f"{self.settings(record)}",
            markup=False,
        )

    def settings(self, record: TrialRecord) -> str:
        return settings_in_words(record.params, self._defaults[record.family])

    def _counts(self) -> tuple[int, str]:
        """Trials that have ended, and all counts in words."""
        number = Counter(record.status for record in list(self._records.values()))
        ended = sum(number.values()) - number[RUNNING]
        return ended, (
            f"{ended} of {self._planned} trials done ({number[COMPLETED]} completed, "
            f"{number[STOPPED_EARLY]} stopped early, {number[FAILED]} failed), "
            f"{number[RUNNING]} running"
        )

    def _time_left(self, ended: int) -> str:
        elapsed = time.monotonic() - self._started
        here = ended - self._earlier
        left = math.inf if here <= 0 else elapsed / here * (self._planned - ended)
        if self._time_limit is not None:
            left = min(left, max(self._time_limit - elapsed, 0))
        return f"{clock(elapsed)} gone, " + (
            f"about {clock(left)} left" if math.isfinite(left) else "time left not known yet"
        )

    def _render(self) -> RenderableType:
        ended, counts = self._counts()
        records = list(self._records.values())
        lines = [Text(f"{counts}; {self._time_left(ended)}")]
        if any(r.status == RUNNING for r in records):
            lines.append(Text(self._running(), style="dim"))
        best = [r for r in ranked(records) if r.best][:_SHOWN]
        return Group(*lines, *([best_table(best, self.settings)] if best else []))


def best_table(
    records: Sequence[TrialRecord], settings: Callable[[TrialRecord], str]
) -> RenderableType:
    """The best trials as a table; the settings' column takes what width is left.

    On a narrow terminal a trial's settings stand below its figures.
    """
    if console.width < _WIDTH_OF_TABLE:
        return Group(
            *(
                Group(
                    Text(
                        f"{record.trial}  {record.accuracy:.3f} of tracks, "
                        f"{count_of(record.epochs, 'epoch')}, {record.status.replace('_', ' ')}"
                    ),
                    Text(f"  {settings(record)}", style="dim"),
                )
                for record in records
            )
        )
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("trial", no_wrap=True)
    table.add_column("track acc.", justify="right", no_wrap=True)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("what differs from the defaults", overflow="fold")
    for record in records:
        table.add_row(
            record.trial,
            f"{record.accuracy:.3f}",
            str(record.epochs),
            record.status.replace("_", " "),
            settings(record),
        )
    return table


def figures(record: TrialRecord) -> str:
    """The best epoch in words."""
    if not record.best:
        return "before any figure"
    return f"track accuracy {record.accuracy:.3f} (epoch {record.best_epoch})"


def settings_in_words(params: dict[str, Any], defaults: dict[str, Any]) -> str:
    """What differs from the family's defaults, e.g. `lr 0.00042, not bidirectional`."""
    words = []
    for name, value in params.items():
        if value == defaults.get(name):
            continue
        spoken = name.replace("_", " ")
        if isinstance(value, bool):
            words.append(spoken if value else f"not {spoken}")
        elif isinstance(value, float):
            words.append(f"{spoken} {value:.2g}")
        else:
            words.append(f"{spoken} {value}")
    return ", ".join(words) or "the defaults"


def clock(seconds: float) -> str:
    """75 -> 1:15."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
