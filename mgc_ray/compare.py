"""Finished searches side by side: figures over seeds and folds, and which differences are real.

    python -m mgc_ray.compare results/gru-0 results/gru-1 results/all-0 --out comparison

    DIR/comparison.md     the tables, the differences of all pairs, and how both were computed
    DIR/comparison.csv    a line a row of the tables
    DIR/comparison.json   all of it, with the figures of each seed

A row is one model - the ensemble, or the best of one family alone - under one protocol, over all
searches that differ in nothing but seeds and folds. Shares are 0..1 in JSON and CSV, % in tables.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from mgc_ray import RequestError
from mgc_ray.data.files import write_csv, write_json, written_whole
from mgc_ray.ensembling.outcomes import ENSEMBLE, outcomes_of
from mgc_ray.ensembling.statistics import (
    DIFFERENCE_METHOD,
    ENOUGH_SEEDS,
    INTERVAL_METHOD,
    Kind,
    Row,
    interval_over_runs,
    paired_difference,
    rows_of,
)
from mgc_ray.terminal.command import Parser, console, print_json, run

_WIDTH_OF_TABLE = 80  # columns of a terminal, below which a table has no room for the model
NOT_ASKED = "not asked for"  # a setting of other rows
# share of chunks; its protocol was what `random-chunks` does again
PUBLISHED_BASELINE = {"CNN": 0.7988, "CNN+LSTM": 0.8763, "CNN+GRU": 0.9129}
_BASELINE_TITLE = (
    "Published baseline on GTZAN, LEAKY, not comparable: chunks of one song on both sides, chosen "
    "on the part it was tested on"
)


def compare(searches: Sequence[Path]) -> dict[str, Any]:
    """The content of comparison.json; rows by protocol, leaky ones last, then by accuracy.

    Raises RequestError for what is no finished search, for searches over different genres, and for
    what `rows_of` refuses.
    """
    found = [(search, *outcomes_of(search)) for search in searches]
    first, genres, _ = found[0]
    for search, others, _ in found:
        if others != genres:
            raise RequestError(
                f"searches must be over the same genres, but {first} has {', '.join(genres)} and "
                f"{search} has {', '.join(others)}: compare them in two calls"
            )
    rows = rows_of((outcome for *_, own in found for outcome in own), len(genres))
    rows.sort(key=_order)
    return {
        "searches": [str(search) for search in searches],
        "genres": genres,
        "rows": [_row(number, row, rows) for number, row in enumerate(rows, 1)],
        "differences": [
            difference
            for (i, a), (j, b) in combinations(enumerate(rows, 1), 2)
            for difference in _difference(i, a, j, b)
        ],
        "methods": [INTERVAL_METHOD, DIFFERENCE_METHOD],
        "published_baseline": {"what": _BASELINE_TITLE, "chunk_accuracy": PUBLISHED_BASELINE},
    }


def _order(row: Row) -> tuple[Any, ...]:
    figure, _ = row.chunk_accuracy if row.kind.leaky else row.track_accuracy
    return row.kind.leaky, row.kind.protocol, row.kind.part != "test", -figure


def _row(number: int, row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    kind = row.kind
    accuracy, deviation = row.track_accuracy
    chunk_accuracy, chunk_deviation = row.chunk_accuracy
    return {
        "row": number,
        "model": kind.model,
        "families": list(kind.families),
        "protocol": kind.protocol,
        "leaky": kind.leaky,
        "tracks_table": kind.tracks,
        "trained_on": list(kind.trained_on),
        "folds": kind.folds,
        "refitted": kind.refitted,
        "settings": _telling_settings(row, rows),
        "judged_on": kind.part,
        "chosen_on": kind.part != "test",
        "seeds": len(row.seeds),
        "runs": [
            {
                "seed": one.seed,
                "split_seed": one.split_seed,
                "folds": [outcome.fold for outcome in one.outcomes if outcome.fold],
                "searches": [outcome.search for outcome in one.outcomes],
                "tracks": len(one.judged.true),
                "track_accuracy": one.judged.accuracy,
                "chunk_accuracy": one.judged.chunk_accuracy,
            }
            for one in row.runs
        ],
        "tracks": len(frozenset[Any]().union(*(judged.tracks for judged in row.judged))),
        "groups": len(np.unique(np.concatenate([judged.group for judged in row.judged]))),
        "track_accuracy": accuracy,
        "deviation": deviation,
        "interval_95": vars(interval_over_runs(row.judged)),
        "chunk_accuracy": chunk_accuracy,
        "chunk_deviation": chunk_deviation,
        "macro_f1": row.macro_f1,
        "parameters": row.parameters,
        "seconds": row.seconds,
        "notes": list(_notes(row)),
    }


def _telling_settings(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    """Settings of a row that tell it from others of the same model and protocol."""

    def all_of(kind: Kind) -> dict[str, str]:
        return {
            **dict(kind.settings),
            "tracks": kind.tracks,
            "families": ", ".join(kind.families),
        }

    own = all_of(row.kind)
    alike = [
        all_of(other.kind)
        for other in rows
        if (other.kind.model, other.kind.protocol) == (row.kind.model, row.kind.protocol)
    ]
    names = sorted({name for settings in alike for name in settings})
    return {
        name: own.get(name, NOT_ASKED)
        for name in names
        if len({settings.get(name) for settings in alike}) > 1
    }


def _notes(row: Row) -> Iterator[str]:
    kind = row.kind
    if len(row.seeds) < ENOUGH_SEEDS:
        yield (
            f"{len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''}, fewer than "
            f"{ENOUGH_SEEDS}: another seed may give another figure"
        )
    if kind.leaky:
        yield "LEAKY: chunks of one song on both sides"
    if kind.part != "test":
        yield "chosen on the tracks that it is judged on, so too high"
    for one in row.runs:
        if kind.folds and len(one.outcomes) < kind.folds:
            yield f"seed {one.seed}: {len(one.outcomes)} of {kind.folds} folds"


def _difference(i: int, a: Row, j: int, b: Row) -> Iterator[dict[str, Any]]:
    """Nothing where the two rows cannot be paired."""
    found = paired_difference(a, b)
    if found:
        interval = {"low": found.low, "high": found.high}
        yield {"row": i, "less": j, "value": found.value, "interval_95": interval, "p": found.p}


def _headings(leaky: bool) -> list[str]:
    """Columns of a protocol's table; a leaky one is by chunk first, as the published baseline."""
    by_track, by_chunk = ["track acc.", "95 %"], ["chunk acc."]
    figures = by_chunk + by_track if leaky else by_track + by_chunk
    return ["", "model", "seeds", "judged on", *figures, "F1", "param.", "train s"]


def _cells(row: dict[str, Any]) -> list[str]:
    """A row in words, under `_headings`."""
    interval = row["interval_95"]
    by_track = [
        _percent(row["track_accuracy"], row["deviation"]),
        f"{100 * interval['low']:.1f}–{100 * interval['high']:.1f}",
    ]
    by_chunk = [_percent(row["chunk_accuracy"], row["chunk_deviation"] if row["leaky"] else None)]
    return [
        str(row["row"]),
        _model_in_words(row),
        f"{row['seeds']}{'' if row['seeds'] >= ENOUGH_SEEDS else '†'}",
        row["judged_on"].replace("_", " ") + ("!" if row["chosen_on"] else ""),
        *(by_chunk + by_track if row["leaky"] else by_track + by_chunk),
        f"{row['macro_f1']:.3f}",
        _count(row["parameters"]),
        f"{row['seconds']:.0f}",
    ]


def _model_in_words(row: dict[str, Any]) -> str:
    """E.g. `ensemble of cnn, gru; refitted; 3 of 5 folds (seed 1); trials 24`."""
    is_ensemble = row["model"] == ENSEMBLE
    words = [f"{ENSEMBLE} of {', '.join(row['families'])}" if is_ensemble else row["model"]]
    if row["refitted"]:
        words.append("refitted")
    if row["folds"]:
        words.append(_folds_in_words(row))
    if row["trained_on"]:
        words.append(f"trained also on {', '.join(row['trained_on'])}")
    words += [
        f"without {name}" if value == NOT_ASKED else f"{name} {value}"
        for name, value in row["settings"].items()
        if not (is_ensemble and name == "families")
    ]
    return "; ".join(words)


def _folds_in_words(row: dict[str, Any]) -> str:
    return (
        ", ".join(
            f"{len(one['folds'])} of {row['folds']} folds (seed {one['seed']})"
            for one in row["runs"]
            if len(one["folds"]) < row["folds"]
        )
        or f"{row['folds']} folds"
    )


def _percent(mean: float, deviation: float | None) -> str:
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _count(number: int) -> str:
    """123 k, 1.23 M."""
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def _difference_in_words(difference: dict[str, Any]) -> str:
    interval, p = difference["interval_95"], difference["p"]
    return (
        f"{difference['row']} less {difference['less']}: {100 * difference['value']:+.1f} points "
        f"of tracks (95 % {100 * interval['low']:+.1f} to {100 * interval['high']:+.1f}), "
        f"p {'< 0.001' if p < 0.001 else f'{p:.3f}'}"
    )


def _neighbours_in_words(
    rows: Sequence[dict[str, Any]], differences: Iterable[dict[str, Any]]
) -> Iterator[str]:
    """The differences between rows that follow each other."""
    paired = {(one["row"], one["less"]): one for one in differences}
    for a, b in pairwise(row["row"] for row in rows):
        if (a, b) in paired:
            yield _difference_in_words(paired[a, b])
        else:
            yield f"{a} and {b} are not on the same tracks: no difference is given"


def _sections(content: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each protocol, leaky ones marked, with its rows."""
    for protocol, rows in groupby(content["rows"], key=lambda row: row["protocol"]):
        of_protocol = list(rows)
        leaky = ", LEAKY: chunks of one song on both sides" if of_protocol[0]["leaky"] else ""
        yield f"Protocol {protocol}{leaky}", of_protocol


def _legend(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    rows = list(rows)
    yield "accuracies in %, mean ± standard deviation over seeds; F1: macro-F1 of tracks"
    yield "95 %: interval of the track accuracy over artists and seeds"
    yield "param., train s: parameters and seconds of training, mean over searches"
    if any(row["seeds"] < ENOUGH_SEEDS for row in rows):
        yield f"† fewer than {ENOUGH_SEEDS} seeds: another seed may give another figure"
    if any(row["chosen_on"] for row in rows):
        yield "! chosen on the tracks that it is judged on, so too high"


def _baseline_cells() -> list[tuple[str, str]]:
    return [(name, f"{100 * share:.2f}") for name, share in PUBLISHED_BASELINE.items()]


def print_comparison(content: dict[str, Any]) -> None:
    """The tables, with the differences of rows that follow each other, on standard error."""
    for title, rows in _sections(content):
        leaky = rows[0]["leaky"]
        console.print(title, style="bold yellow" if leaky else "bold", markup=False)
        if console.width < _WIDTH_OF_TABLE:
            _print_narrow(_headings(leaky), map(_cells, rows))
        else:
            console.print(_table(_headings(leaky), map(_cells, rows)))
        for words in _neighbours_in_words(rows, content["differences"]):
            console.print(f"  {words}", markup=False)
        console.print()
    for line in _legend(content["rows"]):
        console.print(line, markup=False, style="dim")
    console.print(f"\n{_BASELINE_TITLE}", style="yellow", markup=False)
    console.print(_table(["model", "chunk acc."], _baseline_cells()))


def _print_narrow(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """For a narrow terminal: each row's number and model, its figures below."""
    for number, model, *figures in rows:
        console.print(Text(f"{number}  {model}"))
        words = ", ".join(f"{h} {f}" for h, f in zip(headings[2:], figures, strict=True))
        console.print(f"   {words}", markup=False)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Headings on two lines; the column `model` takes what width the others leave."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(
            heading if heading == "95 %" else heading.replace(" ", "\n"),
            justify="left" if heading in ("model", "judged on") else "right",
            no_wrap=heading != "model",
        )
    for cells in rows:
        table.add_row(*map(Text, cells))
    return table


def save_comparison(content: dict[str, Any], out: Path) -> None:
    """Write comparison.md, .csv and .json into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "comparison.json", content)
    rows = [_flat(row) for row in content["rows"]]
    write_csv(out / "comparison.csv", list(rows[0]), [list(row.values()) for row in rows])
    with written_whole(out / "comparison.md") as temporary:
        temporary.write_text("\n".join(_markdown(content)) + "\n", "utf-8")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row for CSV: the interval in three columns, of the runs the searches, lists in words."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "interval_95":
            flat |= {"low_95": value["low"], "high_95": value["high"], "method": value["method"]}
        elif name == "settings":
            flat[name] = "; ".join(f"{key} {setting}" for key, setting in value.items())
        elif name == "runs":
            flat["searches"] = "; ".join(search for one in value for search in one["searches"])
        elif isinstance(value, list):
            flat[name] = "; ".join(value)
        else:
            flat[name] = value
    return flat


def _markdown(content: dict[str, Any]) -> Iterator[str]:
    command = shlex.join(["python", "-m", "mgc_ray.compare", *content["searches"]])
    yield from ("# Searches compared", "", "```", command, "```")
    for title, rows in _sections(content):
        yield from ("", f"## {title}", "")
        yield from _markdown_table(_headings(rows[0]["leaky"]), map(_cells, rows))
    yield from ("", *_list(_legend(content["rows"])))
    yield from _list(_notes_in_words(content["rows"]))
    yield from ("", f"## {_BASELINE_TITLE}", "")
    yield from _markdown_table(["model", "chunk acc."], _baseline_cells())
    yield from ("", "## Differences", "", *_list(map(_difference_in_words, content["differences"])))
    yield from ("", "## Methods", "", *_list(content["methods"]))


def _notes_in_words(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Each note once, with the rows that it is of."""
    of_note: dict[str, list[str]] = {}
    for row in rows:
        for note in row["notes"]:
            of_note.setdefault(note, []).append(str(row["row"]))
    for note, numbers in of_note.items():
        yield f"row{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}: {note}"


def _markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (headings, ["---"] * len(headings), *rows):
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _list(lines: Iterable[str]) -> Iterator[str]:
    return (f"- {line}" for line in lines)


def main() -> int:
    """Parse the command line, compare, print and save."""
    parser = Parser(
        prog="python -m mgc_ray.compare",
        description="A table of the models of finished searches, over seeds and folds, with "
        "intervals and paired differences.",
    )
    parser.add_argument("searches", nargs="+", type=Path, metavar="RESULTS", help="results/NAME")
    parser.add_argument("--out", type=Path, metavar="DIR", help="save Markdown, CSV and JSON there")
    parser.add_argument("--json", action="store_true", help="print comparison.json's content")
    args = parser.parse_args()
    content = compare(args.searches)
    print_comparison(content)
    if args.out:
        save_comparison(content, args.out)
        console.print(f"\nsaved in {args.out}", soft_wrap=True, markup=False)
    if args.json:
        print_json(content)
    return 0


if __name__ == "__main__":
    run("mgc_ray.compare", main)
