"""The live display of a search on standard error; plain lines where that is no terminal."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from rich.console import Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mgc_ray.config import Metric, TuneConfig
from mgc_ray.results import (
    COMPLETED,
    FAILED,
    OUT_OF_TIME,
    RUNNING,
    STOPPED_EARLY,
    SearchResult,
    TrialRecord,
    in_words,
    ranked,
)
from mgc_ray.settings import Params
from mgc_ray.task import score_cell, score_heading, score_in_words
from mgc_ray.terminal.command import console, count_of
from mgc_ray.tuning.tracking import Callback

_SHOWN = 5
_SETTINGS_SHOWN = 3  # of each trial; `show` has all
_SECONDS_BETWEEN_LINES = 30.0  # in a log
_WIDTH_OF_TABLE = 70  # columns of a terminal, below which a table has no room for settings


class Display(Callback):
    """Shows counts, the best five and the time left, as a Callback of the trial log.

    `defaults` of each family, so that only differences from them are shown.
    """

    def __init__(
        self,
        config: TuneConfig,
        metric: Metric,
        earlier: Iterable[TrialRecord],
        defaults: dict[str, Params],
    ) -> None:
        self._planned, self._time_limit = config.trials, config.time_limit
        self._max_epochs = config.max_epochs
        self._metric = metric
        self._defaults = defaults
        self._records = {record.trial: record for record in earlier}
        self._earlier = len(self._records)
        self._started = self._printed = time.monotonic()
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

    def on_trial_start(self, record: TrialRecord) -> None:
        self._records[record.trial] = record

    def on_epoch(self, record: TrialRecord) -> None:
        """A line now and then, so that a log shows that the search is alive."""
        if self._live or time.monotonic() - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = time.monotonic()
        console.print(f"{self._counts()[1]}; {self._running()}", markup=False)

    def _running(self) -> str:
        running = [r for r in list(self._records.values()) if r.status == RUNNING]
        last = self._max_epochs  # after which the best epoch is saved
        return "running: " + ", ".join(
            f"{r.trial} epoch {min(r.epochs + 1, last)}" for r in running
        )

    def on_trial_end(self, record: TrialRecord) -> None:
        if self._live:
            return
        self._printed = time.monotonic()
        how = f": {record.reason}" if record.status == FAILED else f", {best_epoch(record)}"
        console.print(
            f"[{self._counts()[0]}/{self._planned}] {record.trial} "
            f"{in_words(record.status)} after {count_of(record.epochs, 'epoch')}{how}, "
            f"{self.settings(record)}",
            markup=False,
        )

    def settings(self, record: TrialRecord) -> str:
        return main_settings(record.params, self._defaults[record.family])

    def _counts(self) -> tuple[int, str]:
        """Trials that have ended, and all counts in words."""
        number = Counter(record.status for record in list(self._records.values()))
        ended = sum(number.values()) - number[RUNNING]
        late = f"{number[OUT_OF_TIME]} out of time, " if number[OUT_OF_TIME] else ""
        return ended, (
            f"{ended} of {self._planned} trials done ({number[COMPLETED]} completed, "
            f"{number[STOPPED_EARLY]} stopped early, {late}{number[FAILED]} failed), "
            f"{number[RUNNING]} running"
        )

    def _time_left(self, ended: int) -> str:
        elapsed = time.monotonic() - self._started
        here = ended - self._earlier
        left = math.inf if here <= 0 else elapsed / here * (self._planned - ended)
        if self._time_limit is not None:
            left = min(left, max(self._time_limit - elapsed, 0))
        return f"{clock(elapsed)} elapsed, " + (
            f"about {clock(left)} left" if math.isfinite(left) else "time left unknown"
        )

    def _render(self) -> RenderableType:
        ended, counts = self._counts()
        records = list(self._records.values())
        lines = [Text(f"{counts}; {self._time_left(ended)}")]
        if any(r.status == RUNNING for r in records):
            lines.append(Text(self._running(), style="dim"))
        best = [r for r in ranked(records) if r.best][:_SHOWN]
        table = [best_table(best, self._metric, self.settings)] if best else []
        return Group(*lines, *table)


def best_table(
    records: Sequence[TrialRecord], metric: Metric, settings: Callable[[TrialRecord], str]
) -> RenderableType:
    """The best trials as a table; the settings' column takes the remaining width.

    On a narrow terminal a trial's settings are below its score.
    """
    if console.width < _WIDTH_OF_TABLE:
        return Group(
            *(
                Group(
                    Text(
                        f"{record.trial}  {score_in_words(record.best, metric)}, "
                        f"{count_of(record.epochs, 'epoch')}, {in_words(record.status)}"
                    ),
                    Text(f"  {settings(record)}", style="dim"),
                )
                for record in records
            )
        )
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    sides: list[JustifyMethod] = ["left", "right", "right", "left", "left"]
    for heading, side in zip(trial_headings(metric), sides, strict=True):
        no_wrap = heading != "changed settings"
        table.add_column(heading, justify=side, no_wrap=no_wrap, overflow="fold")
    for record in records:
        table.add_row(*trial_cells(record, metric, settings(record)))
    return table


def trial_headings(metric: Metric) -> tuple[str, ...]:
    """Above `trial_cells`."""
    return ("trial", score_heading(metric), "epochs", "status", "changed settings")


def trial_cells(record: TrialRecord, metric: Metric, settings: str) -> tuple[str, ...]:
    """A trial that has a score, as a row of a table."""
    return (
        record.trial,
        score_cell(record.best, metric),
        str(record.epochs),
        in_words(record.status),
        settings,
    )


def best_epoch(record: TrialRecord) -> str:
    """The best epoch in words."""
    if not record.best:
        return "before the end of an epoch"
    return f"{score_in_words(record.best, record.metric)} (epoch {record.best_epoch})"


def main_settings(params: Params, defaults: Params, first: Sequence[str] = ("lr",)) -> str:
    """Three of the changed settings and how many others there are; those in `first` come first."""
    changed = [name for name, value in params.items() if value != defaults.get(name)]
    names = sorted(changed, key=lambda name: first.index(name) if name in first else len(first))
    shown = changed_settings({name: params[name] for name in names[:_SETTINGS_SHOWN]}, defaults)
    others = len(names) - _SETTINGS_SHOWN
    return f"{shown}, {others} more" if others > 0 else shown


def changed_settings(params: Params, defaults: Params) -> str:
    """Settings that are not at the family's defaults, e.g. `lr 0.00042, not bidirectional`."""
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


def time_limit_in_words(result: SearchResult) -> str:
    """How many trials the time limit ended or kept from starting; "" where it did neither."""
    tuning, records = result.config.tuning, result.records
    ended = sum(record.status == OUT_OF_TIME for record in records)
    unstarted = tuning.trials - len(records) if result.finished and tuning.time_limit else 0
    if not ended and unstarted <= 0:
        return ""
    limit = f" of {tuning.time_limit:g} s" if tuning.time_limit else ""  # resumed without one
    words = f"the time limit{limit} ended {ended} of {tuning.trials} trials"
    return words + (f" and left {unstarted} unstarted" if unstarted > 0 else "")


def clock(seconds: float) -> str:
    """75 -> 1:15."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
