"""One HTML page about one or several searches; it needs no network and no other file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mgc_ray import RequestError, __version__
from mgc_ray.data.files import atomic_write, check_output_file
from mgc_ray.evaluation.compare import (
    BASELINE_TITLE,
    Comparison,
    cells,
    compare_searches,
    headings,
    legend,
)
from mgc_ray.reporting import content, dataset, history, parallel, plots
from mgc_ray.reporting.table import Table
from mgc_ray.results import JOURNAL, SearchResult, load_search
from mgc_ray.terminal.options import as_toml

_NAMED = 3  # searches in the title


@dataclass(frozen=True)
class ProtocolSection:
    """The models that were evaluated under one protocol."""

    table: Table
    leaky: bool
    differences: list[str]
    legend: list[str]


def write_report(searches: Sequence[Path | SearchResult], out: Path) -> list[str]:
    """Write the page of searches, or of their folders, into the file `out`; what is not shown.

    Raises RequestError for what is no search, and for an `out` that cannot be written or does not
    end in .html: so none of a search's other files can be overwritten.
    """
    check_output_file("--out", out, ".html")
    results = [one if isinstance(one, SearchResult) else load_search(one) for one in searches]
    comparison, notes = _compare(results)
    page = _template().render(
        title=_title(results),
        searches=results,
        comparison=comparison,
        protocols=list(_protocols(comparison)) if comparison else [],
        baseline=_baseline(comparison) if comparison else None,
        notes=notes if len(results) > 1 else [],  # an unfinished search says so itself
        content=content,
        dataset=dataset,
        calibration=_calibration,
        trial_plots=_trial_plots,
        as_toml=as_toml,
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        plotly=Markup(get_plotlyjs()),
    )
    try:
        with atomic_write(out) as temporary:
            temporary.write_text(page, "utf-8")
    except OSError as error:
        raise RequestError(
            f"--out {out} cannot be written ({error.strerror}): give another file"
        ) from None
    return [*notes, *(comparison.notes if comparison else ())]


def _title(results: Sequence[SearchResult]) -> str:
    names = [content.name_of(result) for result in results]
    return ", ".join(names) if len(names) <= _NAMED else f"{len(names)} searches"


def _compare(results: Sequence[SearchResult]) -> tuple[Comparison | None, list[str]]:
    """The finished searches side by side, and which searches are not there and why."""
    notes = [
        f"{content.name_of(result)} is unfinished: it is in no table of families"
        for result in results
        if not result.finished
    ]
    finished = [result.folder for result in results if result.finished]
    if not finished:
        return None, notes
    try:
        comparison, _ = compare_searches(finished)
    except RequestError as error:
        return None, [*notes, f"no table of families: {error}"]
    return comparison, notes


def _protocols(comparison: Comparison) -> Iterator[ProtocolSection]:
    for title, rows in comparison.sections():
        leaky = rows[0].leaky
        yield ProtocolSection(
            Table(title, headings(leaky), [cells(row) for row in rows]),
            leaky,
            list(comparison.neighbours(rows)),
            list(legend(rows)),
        )


def _baseline(comparison: Comparison) -> Table | None:
    """The published baseline, where the tracks are GTZAN's."""
    rows = comparison.baseline()
    return Table(BASELINE_TITLE, ("model", "chunk acc. %"), rows) if rows else None


def _calibration(result: SearchResult) -> plots.Plot | None:
    metrics, predictions = content.metrics(result), content.predictions(result)
    return plots.calibration(metrics, predictions) if metrics and predictions else None


def _trial_plots(result: SearchResult) -> list[plots.Plot]:
    trials = history.read_journal(result.folder / JOURNAL)
    drawn = [
        plots.learning_curves(result.records),
        plots.best_so_far(result.records, history.end_times(chain(*trials.values()))),
        *(
            parallel.settings(family, of_family, result.records, history.importances(of_family))
            for family, of_family in sorted(trials.items())
        ),
    ]
    return [plot for plot in drawn if plot]


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html")
