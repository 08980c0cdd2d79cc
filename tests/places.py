"""Places that cannot be written, made for real, also for root, whom permissions do not stop."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory at `place`, with options of `mount`; skips where it may not be."""
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"may not mount a file system: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _replace(content: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content(path.read_bytes()))


DAMAGE: dict[str, Callable[[Path], object]] = {  # what a loss of power makes of a file
    "empty": _replace(lambda whole: b""),
    "half": _replace(lambda whole: whole[: len(whole) // 2]),
    "zeros": _replace(lambda whole: bytes(len(whole))),
    "zeros behind a half": _replace(lambda w: w[: len(w) // 2] + bytes(len(w) - len(w) // 2)),
    "other bytes": _replace(lambda whole: b"\xa5" * len(whole)),
}


def without_rights(*command: str) -> Sequence[str]:
    """A command as a user who may not do everything: root without its right to every file."""
    if os.geteuid():
        return command
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv, as root may write everywhere")
    rights = "-dac_override,-dac_read_search,-fowner"
    return ("setpriv", "--bounding-set", rights, "--inh-caps", "-all", *command)
