"""How a command ends: its exit status, and one line for what went wrong."""

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.terminal.command import console, count_of, print_json, print_line, status_of, typed
from mgc_ray.terminal.main import commands

NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "results/a")


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (RequestError("--x must be 1"), 2, "mgc-ray x: error: --x must be 1\n"),
        (NO_SPACE, 1, "mgc-ray x: error: results/a: No space left on device\n"),
        (KeyboardInterrupt(), 130, "mgc-ray x: stopped by Ctrl-C\n"),
    ],
)
def test_what_a_command_raises_decides_its_exit_status(
    error: BaseException, status: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: Sequence[str] | None) -> int:
        raise error

    assert status_of("mgc-ray x", main, []) == status
    assert capsys.readouterr().err == printed


def test_a_fault_of_the_program_is_not_hidden() -> None:
    def main(argv: Sequence[str] | None) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        status_of("mgc-ray x", main, [])


def test_the_commands_are_the_files_of_the_package_that_are_no_library() -> None:
    assert commands() == [
        *("compare", "ensemble", "evaluate", "export", "predict", "preprocess"),
        *("pretrain", "report", "search", "serve", "show", "similar", "synth", "train"),
    ]


def test_json_is_one_line_without_nan_and_with_paths_as_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json({"a": [1.5, float("nan"), float("inf")], "b": Path("x/y"), "c": "日本"})
    assert capsys.readouterr().out == '{"a": [1.5, null, null], "b": "x/y", "c": "日本"}\n'
    print_json({"a": "\x1b[2J\x9b2J\x7f\u202e"})  # a terminal would obey
    assert capsys.readouterr().out == '{"a": "\\u001b[2J\\u009b2J\\u007f\\u202e"}\n'


# names as files and genres have them, and how a line of text shows each
NAMES = {
    "[red]a[/red] :fire: [link=x]": "[red]a[/red] :fire: [link=x]",
    "a\nb": "a\\nb",
    "\x1b[2Jgone\x1b]0;title\x07": "\\x1b[2Jgone\\x1b]0;title\\x07",
    b"caf\xe9".decode("utf-8", "surrogateescape"): "caf\\xe9",
    "日本": "日本",
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items(), ids=ascii)
def test_names_are_shown_as_they_are_and_control_no_terminal(
    name: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.table import Table

    table = Table("genre", box=None)
    table.add_row(name)
    print_line(name)
    console.print(name.replace("\n", "\\n"))
    console.print(table)
    printed = capsys.readouterr()
    assert printed.out == f"{shown}\n"
    first, _, *cells = printed.err.splitlines()
    assert first == shown
    assert "\\n".join(cell.strip() for cell in cells) == shown


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_results_are_printed_whatever_the_encoding_of_the_terminal(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    for name in NAMES:
        print_line(name)
        print_json({"file": name, name: 1.0})
    lines = raw.getvalue().decode(encoding).splitlines()
    for number, (name, shown) in enumerate(NAMES.items()):
        assert lines[2 * number] == shown.encode(encoding, "backslashreplace").decode(encoding)
        stored = "caf\\xe9" if "caf" in name else name
        assert json.loads(lines[2 * number + 1]) == {"file": stored, stored: 1.0}
    assert len(lines) == 2 * len(NAMES)


def test_an_error_is_one_line_whatever_is_in_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: Sequence[str] | None) -> int:
        raise RequestError("\n".join(NAMES))

    assert status_of("mgc-ray x", main, []) == 2
    assert capsys.readouterr().err == "mgc-ray x: error: " + "\\n".join(NAMES.values()) + "\n"


def test_counts_have_their_plural() -> None:
    assert [count_of(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]


def test_a_reader_that_ends_early_is_no_error(tmp_path: Path) -> None:
    """As `python -m mgc_ray.synth --help | head -1`."""
    code = (
        "import sys\n"
        "from mgc_ray.terminal.command import run\n"
        "def main(argv):\n"
        "    for line in range(100_000): print(line)\n"
        "    return 0\n"
        "run('mgc_ray.x', main)"
    )
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    os.read(read, 10)
    os.close(read)
    _, printed = process.communicate(timeout=60)
    assert (process.returncode, printed) == (1, "")


def test_a_command_is_typed_as_it_works_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = tmp_path / ".venv/bin"
    environment.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(environment / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert typed("show") == "python -m mgc_ray.show"
    script = environment / "mgc-ray"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert typed("show") == ".venv/bin/mgc-ray show"
    monkeypatch.setenv("PATH", str(environment))
    assert typed("show") == "mgc-ray show"
    monkeypatch.setattr(sys, "executable", "/elsewhere/bin/python")  # another one is active
    assert typed("show") == "python -m mgc_ray.show"
