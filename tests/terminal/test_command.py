"""How a command ends: its exit status, and one line for what went wrong."""

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.terminal.command import count_of, print_json, status_of
from mgc_ray.terminal.main import commands

NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "results/a")


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (RequestError("--x must be 1"), 2, "mgc_ray.x: error: --x must be 1\n"),
        (NO_SPACE, 1, "mgc_ray.x: error: results/a: No space left on device\n"),
        (KeyboardInterrupt(), 130, "mgc_ray.x: stopped by Ctrl-C\n"),
    ],
)
def test_what_a_command_raises_decides_its_exit_status(
    error: BaseException, status: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: Sequence[str] | None) -> int:
        raise error

    assert status_of("mgc_ray.x", main, []) == status
    assert capsys.readouterr().err == printed


def test_a_fault_of_the_program_is_not_hidden() -> None:
    def main(argv: Sequence[str] | None) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        status_of("mgc_ray.x", main, [])


def test_the_commands_are_the_files_of_the_package_that_are_no_library() -> None:
    assert commands() == [
        *("compare", "ensemble", "evaluate", "export", "predict", "preprocess"),
        *("pretrain", "report", "search", "serve", "synth", "train"),
    ]


def test_json_is_one_line_without_nan_and_with_paths_as_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json({"a": [1.5, float("nan"), float("inf")], "b": Path("x/y"), "c": "日本"})
    assert capsys.readouterr().out == '{"a": [1.5, null, null], "b": "x/y", "c": "日本"}\n'


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
