"""`ray job submit`: a search as a job of a cluster, with the code that is sent with it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

RAY = str(Path(sys.executable).with_name("ray"))
ROOT = Path(__file__).parents[2]
PORT, DASHBOARD = 26379, 28265

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A cluster of one node, started by hand; the environment in which it may be used."""
    # its own folder, with a short path for Ray's sockets: else other Rays here would join this one
    place = Path("/tmp/mgc-job")
    environment = os.environ | {
        "HOME": str(tmp_path),
        "RAY_AUTH_MODE": "token",
        "RAY_TMPDIR": str(place),
    }
    subprocess.run([RAY, "get-auth-token", "--generate"], check=True, env=environment)
    started = subprocess.Popen(
        [
            *(RAY, "start", "--head", f"--port={PORT}", f"--dashboard-port={DASHBOARD}"),
            *("--num-cpus=2", "--disable-usage-stats", "--dashboard-host=127.0.0.1", "--block"),
            # else the port that all Rays of a machine use, which may be taken
            f"--dashboard-agent-listen-port={DASHBOARD + 1}",
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    for port in (PORT, DASHBOARD):
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            assert started.poll() is None
            time.sleep(0.2)
    yield environment
    started.terminate()
    started.wait(60)
    shutil.rmtree(place, ignore_errors=True)


def _code_with(place: Path, family: str) -> Path:
    """The program with another family, which is not installed anywhere."""
    for name in ("mgc_ray", "search_spaces"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("mgc_ray/models", "search_spaces"):
        shutil.copy(place / folder / "gru.py", place / folder / f"{family}.py")
    return place


def test_a_search_is_submitted_with_its_code(head: dict[str, str], tmp_path: Path) -> None:
    """The family is only in the folder that is sent: it is installed nowhere."""
    code = _code_with(tmp_path / "code", "own")
    done = subprocess.run(
        [
            *(RAY, "job", "submit", "--address", f"http://127.0.0.1:{DASHBOARD}"),
            *("--working-dir", str(code), "--", sys.executable, "-m", "mgc_ray.search", "--smoke"),
            *("--family", "own", "--results", str(tmp_path / "results"), "--name", "job"),
        ],
        env=head,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    content = json.loads((tmp_path / "results/job/search.json").read_text())
    assert content["finished"]
    assert content["best_trial"]["trial"].startswith("own-")


def test_ray_address_and_a_family_that_workers_lack(head: dict[str, str], tmp_path: Path) -> None:
    code = _code_with(tmp_path / "code", "mine")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mgc_ray.search", "--smoke", "--family", "mine"),
            *("--results", str(tmp_path / "results"), "--name", "a"),
        ],
        cwd=code,
        env=head | {"RAY_ADDRESS": f"127.0.0.1:{PORT}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "results/a/search.json").read_text())["finished"]
