"""Finished searches side by side: figures over seeds and folds, and which differences are real.

    python -m mgc_ray.compare results/gru-0 results/gru-1 results/all-0 --out comparison

    DIR/comparison.md       the tables, the differences of all pairs, and how both were computed
    DIR/comparison.csv      a line a row of the tables
    DIR/comparison.json     all of it, with the figures of each seed
    DIR/comparison.parquet  what each model answered for each track

The last is enough to make all of it again without the searches (`mgc_ray.compare DIR`), and to go
on: `mgc_ray.compare DIR results/gru-2 --out DIR`.

A row is one model - the ensemble, or the best of one family alone - under one protocol, over all
searches that differ in nothing but seeds and folds. Shares are 0..1 in JSON and CSV, % in tables.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from mgc_ray.data.files import write_csv, write_json, written_whole
from mgc_ray.ensembling.answers import FILE, write_answers
from mgc_ray.ensembling.comparison import (
    BASELINE_TITLE,
    baseline_cells,
    cells,
    compare,
    difference_in_words,
    headings,
    legend,
    neighbours_in_words,
    notes_in_words,
    read_outcomes,
    sections,
)
from mgc_ray.ensembling.statistics import Outcome
from mgc_ray.terminal.command import Parser, console, print_json, run

_WIDTH_OF_TABLE = 80  # columns of a terminal, below which a table has no room for the model


def print_comparison(content: dict[str, Any]) -> None:
    """The tables, with the differences of rows that follow each other, on standard error."""
    for title, rows in sections(content):
        leaky = rows[0]["leaky"]
        console.print(title, style="bold yellow" if leaky else "bold", markup=False)
        if console.width < _WIDTH_OF_TABLE:
            _print_narrow(headings(leaky), map(cells, rows))
        else:
            console.print(_table(headings(leaky), map(cells, rows)))
        for words in neighbours_in_words(rows, content["differences"]):
            console.print(f"  {words}", markup=False)
        console.print()
    for line in content["notes"]:
        console.print(line, markup=False)
    for line in legend(content["rows"]):
        console.print(line, markup=False, style="dim")
    console.print(f"\n{BASELINE_TITLE}", style="yellow", markup=False)
    console.print(_table(["model", "chunk acc."], baseline_cells()))


def _print_narrow(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """For a narrow terminal: each row's number and model, its figures below."""
    for number, model, *figures in rows:
        console.print(Text(f"{number}  {model}"))
        words = ", ".join(f"{h} {f}" for h, f in zip(titles[2:], figures, strict=True))
        console.print(f"   {words}", markup=False)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Headings on two lines; the column `model` takes what width the others leave."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in titles:
        table.add_column(
            heading if heading == "95 %" else heading.replace(" ", "\n"),
            justify="left" if heading in ("model", "judged on") else "right",
            no_wrap=heading != "model",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def save_comparison(content: dict[str, Any], outcomes: Sequence[Outcome], out: Path) -> None:
    """Write comparison.md, .csv, .json and .parquet into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "comparison.json", content)
    rows = [_flat(row) for row in content["rows"]]
    write_csv(out / "comparison.csv", list(rows[0]), [list(row.values()) for row in rows])
    write_answers(out / FILE, content["genres"], outcomes)
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
    yield from ("", f"Made again from the answers in {FILE} by `mgc_ray.compare` with this folder.")
    for title, rows in sections(content):
        yield from ("", f"## {title}", "")
        yield from _markdown_table(headings(rows[0]["leaky"]), map(cells, rows))
    yield from ("", *_list(legend(content["rows"])))
    yield from _list(notes_in_words(content["rows"]))
    yield from _list(content["notes"])
    yield from ("", f"## {BASELINE_TITLE}", "")
    yield from _markdown_table(["model", "chunk acc."], baseline_cells())
    yield from ("", "## Differences", "", *_list(map(difference_in_words, content["differences"])))
    yield from ("", "## Methods", "", *_list(content["methods"]))


def _markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (titles, ["---"] * len(titles), *rows):
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def _list(lines: Iterable[str]) -> Iterator[str]:
    return (f"- {line}" for line in lines)


def main() -> int:
    """Parse the command line, compare, print and save."""
    parser = Parser(
        prog="python -m mgc_ray.compare",
        description="A table of the models of finished searches, over seeds and folds, with "
        "intervals and paired differences.",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="results/NAME of a finished search, or the --out folder of an earlier comparison",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="save tables, figures and all answers there"
    )
    parser.add_argument("--json", action="store_true", help="print comparison.json's content")
    args = parser.parse_args()
    genres, outcomes = read_outcomes(args.folders)
    content = compare(genres, outcomes)
    print_comparison(content)
    if args.out:
        save_comparison(content, outcomes, args.out)
        console.print(f"\nsaved in {args.out}", soft_wrap=True, markup=False)
    if args.json:
        print_json(content)
    return 0


if __name__ == "__main__":
    run("mgc_ray.compare", main)
