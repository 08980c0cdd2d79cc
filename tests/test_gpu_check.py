"""The check that runs on a GPU, rehearsed: its parts are apart from one another."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def _rehearse(out: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "tests/benchmarks/gpu.py", "--rehearse", "--out", out, *options],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (out / "gpu.txt").read_text() in done.stdout
    return done.returncode, done.stdout, json.loads((out / "gpu.json").read_text())


def test_a_part_that_hangs_takes_no_other(tmp_path: Path) -> None:
    options = ("--parts", "sharing", "machine", "--limit", "0.2")
    status, printed, found = _rehearse(tmp_path, *options)
    assert status == 1
    for name in ("sharing", "machine"):
        assert not found[name]["ok"]
        assert found[name]["why"] == "it took longer than its limit of 0.2 s"
    assert "2 parts, not ok: sharing, machine" in printed


def test_a_part_gives_figures(tmp_path: Path) -> None:
    status, printed, found = _rehearse(tmp_path, "--parts", "machine")
    assert status == 0
    assert found["machine"]["ok"]
    assert found["machine"]["python"] == sys.version.split()[0]
    assert "1 parts, not ok: none" in printed
