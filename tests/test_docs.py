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
TEXTS = sorted(
    path
    for folder in (ROOT, DOCS, ROOT / "cluster", ROOT / "results", ROOT / "results" / "gtzan")
    for path in folder.glob("*.md")
)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_page_of_a_command_is_listed() -> None:
    # not every command there is, so that a new one needs no documentation to be tried
    listed = re.findall(r"^\| \[`(\w+)`\]\(commands/(\w+)\.md\) \|", _read("commands.md"), re.M)
    assert [name for name, page in listed if name != page] == []
    assert sorted(name for name, _ in listed) == WRITTEN
    assert len(WRITTEN) >= 12


def _read(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = re.findall(r"\]\((\w+\.md)\)", _read("README.md"))
    assert sorted(listed) == sorted(p.name for p in DOCS.glob("*.md") if p.name != "README.md")


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
    quoted = re.findall(r"^\| `([^`]+)` \|", _read("troubleshooting.md"), re.M)
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
    known = {"--version"}.union(
        *(re.findall(_OPTION, p.read_text("utf-8")) for p in PAGES.iterdir())
    )
    for path in DOCS.glob("*.md"):
        # those of this program: other commands have their own
        lines = [line for line in path.read_text("utf-8").splitlines() if not _OTHERS.search(line)]
        used = set(re.findall(_OPTION, "\n".join(lines)))
        assert used <= known, (path.name, used - known)


_OPTION = r"(?<![\w-])--[a-z][a-z-]+"
_OTHERS = re.compile(
    r"\b(pip|ray start|tensorboard|docker|make|python tests/\S+) |--no-deps|--num-gpus=0"
)


def _command_lines(path: Path) -> list[str]:
    """`NAME ARGS` of each command of this program in code; shell variables are replaced.

    Written as `mgc-ray NAME ARGS` or `python -m mgc_ray.NAME ARGS`.
    """
    text = path.read_text("utf-8").replace("\\\n", " ")
    code = re.findall(r"```\n(.*?)```", text, re.S)
    code += re.findall(r"^    (mgc-ray .*)$", text, re.M)
    code += re.findall(r"`((?:python -m mgc_ray\.|mgc-ray )[^`…]+)`", text)
    code += [f"python -m {line}" for line in re.findall(r"^\| `(mgc_ray\.[^`]+)`", text, re.M)]
    variables = defaultdict(lambda: "1")
    lines = []
    for line in "\n".join(code).splitlines():
        variables |= dict(re.findall(r'^(\w+)="([^"]*)"$', line))
        command_line = re.split(r"  +#|; done", line)[0].strip(" '")
        found = re.search(r"(?:python -m mgc_ray\.|mgc-ray )(\w+ .*)", command_line)
        if found and not found[1].endswith(" ...") and not command_line.startswith("usage: "):
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


WITH_COMMANDS = [path for path in (*TEXTS, *sorted(PAGES.glob("*.md"))) if _command_lines(path)]


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=_name)
def test_command_lines_in_the_documentation_are_accepted(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("NAME", "gru-001", "gru-200", "first"):  # of searches that can be resumed
        (tmp_path / "results" / name).mkdir(parents=True)
        SearchResult(name, SearchConfig(family=("gru",), name=name), "", "music", {}).write()
    for line in _command_lines(path):
        name, *args = shlex.split(line)
        module = importlib.import_module(f"mgc_ray.{name}")
        monkeypatch.setattr(module, "parse", _only_parse)
        with pytest.raises(AcceptedError):
            module.main(args)


def test_command_lines_are_found_in_the_pages() -> None:
    found = {path.name: len(_command_lines(path)) for path in WITH_COMMANDS}
    assert min(found[n] for n in ("own_music.md", "searching.md", "library.md", "families.md")) >= 4
    assert len(set(WRITTEN) & {path.stem for path in WITH_COMMANDS}) == len(WRITTEN)


def test_the_settings_in_the_documentation_exist() -> None:
    texts = "".join(path.read_text("utf-8") for path in (*DOCS.glob("*.md"), ROOT / "README.md"))
    given = set(re.findall(r"--set\s+([a-z_.]+=[\w.+\[\],-]*\w)", texts))
    assert "dataset.synthetic=20" in given
    for assignment in given - {"section.name=value", "hosts=NAME"}:  # the latter is of `serve`
        options.parse(SearchConfig, ["--family", "gru", "--set", assignment], "search", "")
    with pytest.raises(RequestError, match=r"dataset\.synthetic"):
        options.parse(SearchConfig, ["--set", "dataset.synthetik=20"], "search", "")


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow  # a whole search, as others have
def test_the_example_in_python_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", _read("python.md"), re.S)
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
