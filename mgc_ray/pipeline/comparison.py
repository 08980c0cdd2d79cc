"""A comparison on the terminal and on disk."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from mgc_ray.data.files import atomic_write, write_csv, write_json
from mgc_ray.evaluation.compare import (
    BASELINE_TITLE,
    ComparedModel,
    Comparison,
    cells,
    headings,
    legend,
    notes_in_words,
)
from mgc_ray.evaluation.rows import ModelRun
from mgc_ray.evaluation.runs import SAVED, write_saved
from mgc_ray.settings import as_json
from mgc_ray.terminal.command import console

_WIDTH_OF_TABLE = 80  # columns of a terminal, below which a table has no room for the model


def print_comparison(comparison: Comparison) -> None:
    """The tables, with the differences of rows that follow each other, on standard error."""
    for title, rows in comparison.sections():
        leaky = rows[0].leaky
        console.print(title, style="bold yellow" if leaky else "bold")
        if console.width < _WIDTH_OF_TABLE:
            _print_narrow(headings(leaky), map(cells, rows))
        else:
            console.print(_table(headings(leaky), map(cells, rows)))
        for words in comparison.neighbours(rows):
            console.print(f"  {words}")
        console.print()
    for line in comparison.notes:
        console.print(line)
    for line in legend(comparison.rows):
        console.print(line, style="dim")
    if baseline := comparison.baseline():
        console.print(f"\n{BASELINE_TITLE}", style="yellow")
        console.print(_table(["model", "chunk acc."], baseline))


def _print_narrow(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """For a narrow terminal: each row's number and model, its figures below."""
    for number, model, *figures in rows:
        console.print(Text(f"{number}  {model}"))
        words = ", ".join(f"{h} {f}" for h, f in zip(titles[2:], figures, strict=True))
        console.print(f"   {words}")


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Headings on two lines; the column `model` takes the width that the others leave."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in titles:
        table.add_column(
            heading if heading == "95 %" else heading.replace(" ", "\n"),
            justify="left" if heading in ("model", "evaluated on") else "right",
            no_wrap=heading != "model",
            overflow="fold" if heading == "model" else "ellipsis",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def save_comparison(comparison: Comparison, models: Sequence[ModelRun], out: Path) -> None:
    """Write comparison.md, .csv, .json and .parquet into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "comparison.json", as_json(comparison))
    rows = [dict(_flat(row)) for row in comparison.rows]
    write_csv(out / "comparison.csv", list(rows[0]), [list(row.values()) for row in rows])
    write_saved(out / SAVED, comparison.genres, models)
    with atomic_write(out / "comparison.md") as temporary:
        temporary.write_text("\n".join(_markdown(comparison)) + "\n", "utf-8")


def _flat(row: ComparedModel) -> Iterator[tuple[str, Any]]:
    """A row for CSV: the interval in three columns, of the runs the searches, lists in words."""
    for name, value in as_json(row).items():
        if name == "interval_95":
            yield "low_95", value["low"]
            yield "high_95", value["high"]
            yield "method", value["method"]
        elif name == "settings":
            yield name, "; ".join(f"{key} {setting}" for key, setting in value.items())
        elif name == "runs":
            yield "searches", "; ".join(search for one in value for search in one["searches"])
        else:
            yield name, "; ".join(value) if isinstance(value, list) else value


def _markdown(comparison: Comparison) -> Iterator[str]:
    command = shlex.join(["python", "-m", "mgc_ray.compare", *comparison.searches])
    yield from ("# Searches compared", "", "```", command, "```")
    yield from ("", f"`mgc_ray.compare` with this folder makes it again from {SAVED}.")
    for title, rows in comparison.sections():
        yield from ("", f"## {title}", "")
        yield from _markdown_table(headings(rows[0].leaky), map(cells, rows))
    yield from ("", *_list(legend(comparison.rows)))
    yield from _list(notes_in_words(comparison.rows))
    yield from _list(comparison.notes)
    if baseline := comparison.baseline():
        yield from ("", f"## {BASELINE_TITLE}", "")
        yield from _markdown_table(["model", "chunk acc."], baseline)
    yield from ("", "## Differences", "", *_list(map(str, comparison.differences)))
    yield from ("", "## Methods", "", *_list(comparison.methods))


def _markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (titles, ["---"] * len(titles), *rows):
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def _list(lines: Iterable[str]) -> Iterator[str]:
    return (f"- {line}" for line in lines)
