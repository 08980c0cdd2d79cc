"""One HTML page of all that is told of some searches; it needs no network and no other file."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mgc_ray import RequestError, __version__
from mgc_ray.data.files import written_whole
from mgc_ray.ensembling.comparison import (
    BASELINE_TITLE,
    baseline_cells,
    cells,
    compare,
    headings,
    legend,
    neighbours_in_words,
    read_outcomes,
    sections,
)
from mgc_ray.ensembling.figures import also_trained_on, in_words
from mgc_ray.reporting import plots
from mgc_ray.reporting.content import Judged, Search
from mgc_ray.reporting.songs import excerpt

_MOST_WRONG = 10
_BEST_TRIALS = 10
_SKIPPED_SHOWN = 50


@dataclass(frozen=True)
class Table:
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Wrong:
    """A track that the ensemble got wrong, surest first."""

    track_id: str
    artist: str
    true: str
    predicted: str
    given: str
    true_given: str
    song: Markup | None


def write_report(searches: Sequence[Path], out: Path) -> list[str]:
    """Write the page of these searches into the file `out`; what it could not show, in words.

    Raises RequestError for what is no search, and for an `out` that cannot be written, or whose
    name is no page's: a search's own files have other endings, and are not written over.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"--out must end in .html, but it is {out}: name such a file")
    told = [Search(folder) for folder in searches]
    content, notes = _compared(told)
    page = _template().render(
        title=", ".join(search.name for search in told),
        searches=[_of_search(search) for search in told],
        comparison=content,
        baseline=Table(BASELINE_TITLE, ("model", "chunk acc. %"), baseline_cells()),
        notes=notes,
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        plotly=Markup(get_plotlyjs()),
    )
    try:
        with written_whole(out) as temporary:
            temporary.write_text(page, "utf-8")
    except OSError as error:
        raise RequestError(
            f"--out {out} cannot be written ({error.strerror}): name another file"
        ) from None
    return notes


def _compared(searches: Sequence[Search]) -> tuple[list[dict[str, Any]], list[str]]:
    """The tables of families, a protocol each, and why one is not there."""
    finished = [search for search in searches if search.finished]
    notes = [
        f"{search.name} has not come to its end: it is in no table of families"
        for search in searches
        if not search.finished
    ]
    if not finished:
        return [], notes
    try:
        content = compare(*read_outcomes([search.folder for search in finished]))
    except RequestError as error:
        return [], [*notes, f"no table of families: {error}"]
    found = []
    for title, rows in sections(content):
        found.append(
            {
                "table": Table(title, headings(rows[0]["leaky"]), [cells(row) for row in rows]),
                "leaky": rows[0]["leaky"],
                "differences": list(neighbours_in_words(rows, content["differences"])),
                "legend": list(legend(rows)),
            }
        )
    return found, [*notes, *content["notes"]]


def _of_search(search: Search) -> dict[str, Any]:
    """What the template shows of one search."""
    judged, ensemble = search.judged, search.ensemble
    genres = list(ensemble["validation"]["genres"]) if ensemble else []
    drawn = [plots.learning_curves(search), plots.best_so_far(search), plots.importance(search)]
    families = sorted({record.family for record in search.records})
    drawn += [plots.parallel_coordinates(search, family) for family in families]
    if judged:
        drawn += [plots.confusion(judged, genres), plots.calibration(judged)]
    return {
        "name": search.name,
        "finished": search.finished,
        "failure": (search.content.get("failure") or [""])[0],
        "protocol": search.protocol,
        "leaky": bool(search.content.get("leaky")),
        "made_up": search.made_up,
        "smoke": bool(search.content["request"].get("smoke")),
        "headline": _headline(search),
        "also": also_trained_on(ensemble) if ensemble else "",
        "members": [(m["name"], f"{m['weight']:.2f}") for m in ensemble["members"]]
        if ensemble
        else [],
        "best": _best_trials(search),
        "plots": [(plot, _json(plot.figure)) for plot in drawn if plot],
        "genres": _by_genre(judged, genres) if judged else None,
        "wrong": list(_wrong(search, judged, genres)) if judged else [],
        "part": judged.part.replace("_", " ") if judged else "",
        "skipped": _skipped(search),
        "failed": [(r.trial, r.reason) for r in search.records if r.status == "failed"],
        "cost": search.cost,
        "command": search.content.get("command", ""),
        "request": json.dumps(search.content["request"], indent=2, ensure_ascii=False),
        "versions": ", ".join(f"{k} {v}" for k, v in search.content.get("versions", {}).items()),
        "commit": search.content.get("commit") or "",
        "tracks": str(search.content.get("tracks", "")),
    }


def _headline(search: Search) -> dict[str, str] | None:
    """The figure that everything else stands below."""
    figures, ensemble = search.figures, search.ensemble
    if not figures or not ensemble:
        return None
    interval, tested = figures["interval_95"], bool(ensemble["test"])
    return {
        "what": "test track accuracy" if tested else "validation track accuracy, no test figure",
        "figure": f"{figures['track_accuracy']:.1%}",
        "interval": f"{interval['low']:.1%} to {interval['high']:.1%}",
        "method": interval["method"],
        "words": in_words(figures),
        "warning": ""
        if tested
        else "The ensemble was selected on these tracks, so the figure is too high.",
        "validation": in_words(ensemble["validation"]) if tested else "",
    }


def _best_trials(search: Search) -> Table | None:
    best = [record for record in search.records if record.best][:_BEST_TRIALS]
    if not best:
        return None
    return Table(
        "By validation track accuracy, which they were chosen by, so too high",
        ("trial", "accuracy", "epochs", "status", "what differs from the defaults"),
        [
            (
                record.trial,
                f"{record.accuracy:.1%}",
                str(record.epochs),
                record.status.replace("_", " "),
                search.settings(record),
            )
            for record in best
        ],
    )


def _by_genre(judged: Judged, genres: Sequence[str]) -> Table:
    rows = []
    for number, genre in enumerate(genres):
        true, predicted = judged.true == number, judged.predicted == number
        both = int((true & predicted).sum())
        precision = both / predicted.sum() if predicted.any() else float("nan")
        recall = both / true.sum() if true.any() else float("nan")
        f1 = 2 * both / (true.sum() + predicted.sum()) if (true | predicted).any() else float("nan")
        words = [f"{share:.1%}" if np.isfinite(share) else "–" for share in (precision, recall)]
        rows.append((genre, str(int(true.sum())), *words, f"{f1:.3f}" if np.isfinite(f1) else "–"))
    return Table("Scores of each genre", ("genre", "tracks", "precision", "recall", "F1"), rows)


def _wrong(search: Search, judged: Judged, genres: Sequence[str]) -> Iterator[Wrong]:
    sure = judged.probs.max(1)
    order = [i for i in np.argsort(-sure) if judged.predicted[i] != judged.true[i]]
    for i in order[:_MOST_WRONG]:
        path = search.paths.get(judged.track_id[i])
        song = excerpt(path) if path and path.suffix.lower() != ".npy" and path.exists() else None
        yield Wrong(
            judged.track_id[i],
            judged.group[i],
            genres[judged.true[i]],
            genres[judged.predicted[i]],
            f"{sure[i]:.0%}",
            f"{judged.probs[i, judged.true[i]]:.0%}",
            Markup(song) if song else None,
        )


def _skipped(search: Search) -> dict[str, Any] | None:
    """How many files were left out, for which reasons."""
    if not search.skipped:
        return None
    reasons = Counter(reason for _, reason in search.skipped)
    return {
        "count": len(search.skipped),
        "reasons": Table(
            "Why files were left out",
            ("reason", "files"),
            [(reason, str(count)) for reason, count in reasons.most_common(20)],
        ),
        "files": Table("Files left out", ("file", "reason"), search.skipped[:_SKIPPED_SHOWN]),
    }


def _json(content: Any) -> Markup:
    """For a script element: nothing in it can end that."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    escaped = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(escaped)


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    return environment.get_template("page.html")
