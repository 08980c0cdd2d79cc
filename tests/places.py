"""Places that cannot be written, made for real, also for root, whom permissions do not stop."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
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


def without_rights(*command: str) -> Sequence[str]:
    """A command as a user who may not do everything: root without its right to every file."""
    if os.geteuid():
        return command
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv, as root may write everywhere")
    rights = "-dac_override,-dac_read_search,-fowner"
    return ("setpriv", "--bounding-set", rights, "--inh-caps", "-all", *command)
