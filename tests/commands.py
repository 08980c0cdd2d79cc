"""Commands as a user runs them: in this process, which is fast, or in one of their own."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mgc_ray.terminal.command import status_of, typed


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its exit status."""

    returncode: int
    stdout: str
    stderr: str


def command(name: str, *args: object, cwd: Path, status: int = 0) -> Ended:
    """Run `python -m mgc_ray.NAME ARGS` in this process, and check its exit status.

    Where a test's Ray cluster runs, the command uses it instead of starting its own.
    """
    main = importlib.import_module(f"mgc_ray.{name}").main
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        _columns(100),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            code = status_of(f"mgc-ray {name}", main, [str(arg) for arg in args])
        except SystemExit as ended:  # of --help
            code = int(ended.code or 0)
    assert code == status, stderr.getvalue()
    return Ended(code, stdout.getvalue(), stderr.getvalue())


def typed_in(folder: Path, name: str) -> str:
    """How a command is typed in a folder, as programs that run there print it."""
    with contextlib.chdir(folder):
        return typed(name)


def process(
    name: str, *args: object, cwd: Path, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run `python -m mgc_ray.NAME ARGS` in a process of its own, and check its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", f"mgc_ray.{name}", *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@contextlib.contextmanager
def _columns(width: int):  # type: ignore[no-untyped-def]
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
