"""The documentation says what the program does: commands, messages, links, the library example."""

import ast
import re
import sys
from pathlib import Path

import pytest

from mgc_ray.terminal.main import commands
from tests.commands import command
from tests.make_docs import PAGES, page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "mgc_ray" / "docs"


def test_every_command_has_a_page_and_no_page_is_left_over() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md")) == commands()
    listed = re.findall(r"commands/(\w+)\.md", (DOCS / "README.md").read_text("utf-8"))
    assert sorted(listed) == commands()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse writes its help differently")
@pytest.mark.parametrize("name", commands())
def test_a_page_has_what_the_command_says_of_itself(name: str) -> None:
    assert (PAGES / f"{name}.md").read_text("utf-8") == page(name), (
        "the command has changed: PYTHONPATH=. python tests/make_docs.py"
    )


def _texts() -> str:
    """All text constants of the program, of each expression in one piece."""
    parts = []
    for path in (ROOT / "mgc_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts.append(
                    "".join(n.value if isinstance(n, ast.Constant) else "\0" for n in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts.append(node.value)
    return "\n".join(parts)


def test_messages_in_the_troubleshooting_are_what_the_program_can_say() -> None:
    said = _texts()
    rows = re.findall(r"^\| `([^`]+)` \|", (DOCS / "troubleshooting.md").read_text("utf-8"), re.M)
    assert len(rows) >= 20
    assert [text for text in rows if text not in said] == []


@pytest.mark.parametrize("path", [*DOCS.rglob("*.md"), ROOT / "README.md"], ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        if "://" not in link:
            assert (path.parent / link).exists(), link


def test_options_in_the_documentation_exist() -> None:
    known = set(re.findall(r"--[a-z][a-z-]+", "".join(p.read_text() for p in PAGES.glob("*.md"))))
    for path in (DOCS / "own_music.md", DOCS / "troubleshooting.md"):
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text("utf-8")))
        assert used <= known, used - known


def test_the_library_example_of_the_readme_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(example.strip().splitlines()) <= 10
    command("synth", "--out", "music", "--tracks-per-genre", 9, "--seconds", 3, cwd=tmp_path)
    program = example.replace("trials=20", "trials=2, max_epochs=2")
    (tmp_path / "example.py").write_text(program)
    import subprocess

    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "TEST" not in done.stdout  # the example prints its own words
    assert "rock" in done.stdout
    assert (tmp_path / "results/mine/report.html").exists()
