"""What librosa compiles is compiled once, however many processes begin at the same time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import numpy as np
from mgc_ray.data.features._librosa import import_librosa
librosa = import_librosa()
print(librosa.estimate_tuning(S=np.ones((513, 9), "float32"), sr=22050))
"""


@pytest.mark.slow  # it compiles for half a minute
def test_processes_that_begin_together_compile_once_and_none_crashes(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment["TMPDIR"] = str(tmp_path)
    command = [sys.executable, "-c", PROGRAM]
    started = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait(200) for process in started] == [0, 0, 0]
    (place,) = tmp_path.glob("mgc_ray-numba-*")
    folders = [path for path in place.iterdir() if path.is_dir()]
    assert len(folders) == 1
    before = {path: path.stat().st_mtime_ns for path in folders[0].rglob("*.nb*")}
    assert before
    subprocess.run(command, env=environment, check=True)
    assert {path: path.stat().st_mtime_ns for path in folders[0].rglob("*.nb*")} == before
