"""The notebook of the documentation: ten cells, which run from top to bottom."""

import ast
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def _cells() -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return cells


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _run(source: str, names: dict[str, Any]) -> Any:
    """The value of a cell's last line, as a notebook shows it."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body.append(last)
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return None


def test_it_has_ten_cells_and_shows_no_folder_of_the_machine_it_ran_on() -> None:
    cells = _cells()
    assert len(cells) == 10
    shown = json.dumps([cell.get("outputs") for cell in cells])
    assert "/tmp" not in shown
    assert "/home" not in shown
    assert "Traceback" not in shown


def test_links_lead_to_pages() -> None:
    links = [link for cell in _cells() for link in _links(_source(cell))]
    assert len(links) >= 5
    assert [link for link in links if not (NOTEBOOK.parent / link).exists()] == []


def _links(text: str) -> list[str]:
    return [part.partition(")")[0] for part in text.split("](")[1:]]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow  # a whole search
def test_its_cells_run_from_top_to_bottom(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(printed):
        values = [_run(_source(cell), names) for cell in _cells() if cell["cell_type"] == "code"]
    table, search, leaderboard, _, confusion, mistakes, song = values
    assert list(table.columns) == ["path", "genre", "track_id", "artist"]
    assert search is None
    assert len(leaderboard) == 4
    assert f"{names['result'].test.track_accuracy:.1%} of 30 tracks" in printed.getvalue()
    assert confusion.shape == (10, 10)
    assert confusion.sum().sum() == 30
    assert list(mistakes.columns) == ["song", "genre", "predicted", "probability"]
    assert song.index[0] in names["genres"]
    assert (tmp_path / "results/notebook/report.html").exists()
