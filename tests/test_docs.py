"""The documentation matches the program: commands, options, messages, links, the example."""

import ast
import contextlib
import importlib
import io
import re
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from string import Template
from typing import Any

import pytest

from mgc_ray import RequestError, models
from mgc_ray.config import SearchConfig
from mgc_ray.results import SearchResult
from mgc_ray.terminal import options
from mgc_ray.terminal.main import commands
from tests.commands import command
from tests.make_docs import PAGES, page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WRITTEN = sorted(path.stem for path in PAGES.glob("*.md"))
GUIDES = [  # with commands to copy
    ROOT / "README.md",
    DOCS / "own_music.md",
    DOCS / "encoders.md",
    ROOT / "cluster" / "README.md",
    ROOT / "results" / "README.md",
    ROOT / "results" / "benchmarks.md",
]
TEXTS = sorted(
    {
        *DOCS.glob("*.md"),
        *GUIDES,
        *(ROOT / "cluster").glob("*.md"),
        *(ROOT / "results").glob("*.md"),
    }
    | {ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"}
)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_command_of_the_readme_has_a_page_that_the_documentation_lists() -> None:
    # not every command there is, so that a new one needs no documentation to be tried
    text = (ROOT / "README.md").read_text("utf-8")
    documented = {name for name in commands() if f"`mgc_ray.{name}" in text}
    assert len(documented) >= 12
    assert documented <= set(WRITTEN)
    listed = re.findall(r"commands/(\w+)\.md", (DOCS / "README.md").read_text("utf-8"))
    assert documented <= set(listed) <= set(WRITTEN)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse writes its help differently")
@pytest.mark.parametrize("name", WRITTEN)
def test_a_page_is_the_help_of_its_command(name: str) -> None:
    assert name in commands(), "the command is gone: make docs"
    assert (PAGES / f"{name}.md").read_text("utf-8") == page(name), "it has changed: make docs"


def test_pages_do_not_depend_on_which_families_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_own", {})
    before = {name: page(name) for name in WRITTEN}
    source = (ROOT / "mgc_ray" / "models" / "cnn.py").read_text("utf-8")
    (tmp_path / "another.py").write_text(source)
    models.register_family(tmp_path / "another.py")
    assert "another" in models.families()
    assert {name: page(name) for name in WRITTEN} == before


def _texts() -> str:
    """All text constants of the program, each f-string in one piece."""
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


def test_messages_in_the_troubleshooting_page_are_those_of_the_program() -> None:
    program = _texts()
    quoted = re.findall(r"^\| `([^`]+)` \|", (DOCS / "troubleshooting.md").read_text("utf-8"), re.M)
    assert len(quoted) >= 20
    assert [text for text in quoted if text not in program] == []


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_links_lead_to_files(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        if "://" not in link:
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_files_named_in_the_documentation_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    for name in re.findall(r"\b((?:tests|mgc_ray|search_spaces|cluster)/[\w/.]+\.\w+)\b", text):
        assert "NAME" in name or (ROOT / name).exists(), name


def test_options_in_the_documentation_exist() -> None:
    known = set(re.findall(r"--[a-z][a-z-]+", "".join(p.read_text() for p in PAGES.glob("*.md"))))
    for path in (DOCS / "own_music.md", DOCS / "troubleshooting.md"):
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text("utf-8")))
        assert used <= known, used - known


def _command_lines(path: Path) -> list[str]:
    """`mgc_ray.NAME ARGS` of each `python -m ...` in code; shell variables are replaced."""
    text = path.read_text("utf-8").replace("\\\n", " ")
    code = re.findall(r"```\n(.*?)```", text, re.S)
    code += re.findall(r"`(python -m [^`…]+)`", text)
    code += [f"python -m {line}" for line in re.findall(r"^\| `(mgc_ray\.[^`]+)`", text, re.M)]
    variables = defaultdict(lambda: "1")
    lines = []
    for line in "\n".join(code).splitlines():
        variables |= dict(re.findall(r'^(\w+)="([^"]*)"$', line))
        found = re.search(r"python -m (mgc_ray\.\w+ .*)", line.partition("  #")[0].strip(" '"))
        if found:
            lines.append(Template(found[1]).substitute(variables))
    return lines


class AcceptedError(Exception):
    """The command line was read without a complaint."""


def _only_parse(*args: Any, **kwargs: Any) -> None:
    """What the commands call to parse, with the check of a family's settings; nothing after it."""
    config = options.parse(*args, **kwargs).config
    if getattr(config, "train", None):
        names = [config.family] if isinstance(config.family, str) else config.family
        models.shared_params(models.family_names(names), config.train)
    raise AcceptedError


@pytest.mark.parametrize("path", GUIDES, ids=_name)
def test_command_lines_in_the_documentation_are_accepted(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("NAME", "gru-001", "first"):  # of searches that can be resumed
        (tmp_path / "results" / name).mkdir(parents=True)
        SearchResult(name, SearchConfig(family=("gru",), name=name), "", "music", {}).write()
    lines = _command_lines(path)
    assert lines
    for line in lines:
        name, *args = shlex.split(line)
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "parse", _only_parse)
        with pytest.raises(AcceptedError):
            module.main(args)


def test_the_settings_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    given = set(re.findall(r"--set\s+([a-z_.]+=[\w.]+)", text)) - {"section.name=value"}
    assert "dataset.synthetic=20" in given
    for assignment in given:
        options.parse(SearchConfig, ["--family", "gru", "--set", assignment], "search", "")
    with pytest.raises(RequestError, match=r"dataset\.synthetic"):
        options.parse(SearchConfig, ["--set", "dataset.synthetik=20"], "search", "")


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow  # a whole search, as others have
def test_the_library_example_of_the_readme_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(example.strip().splitlines()) <= 10
    command("synth", "--out", "music", "--tracks-per-genre", 9, "--seconds", 3, cwd=tmp_path)
    assert '"trials": 20' in example
    program = example.replace('"trials": 20', '"trials": 2, "max_epochs": 2')
    printed = io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(printed):
        exec(compile(program, "example.py", "exec"), {})
    stdout = printed.getvalue()
    assert re.search(r"^test: [\d.]+% of 30 tracks, best trial gru-000\d$", stdout, re.M)
    assert re.search(r"^1 +gru-000\d +gru ", stdout, re.M)  # the second row of the table of trials
    assert "'rock': 0." in stdout
    assert (tmp_path / "results/mine/report.html").exists()
