"""Commands as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path


def command(
    name: str, *args: object, cwd: Path, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run `python -m mgc_ray.NAME ARGS` and see that it ends with `status`."""
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
