"""Real searches whose storage fails: now and then in all ways, and for good."""

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mgc_ray.data.storage import Storage
from mgc_ray.results import COMPLETED, STOPPED_EARLY, load_search, read_records
from tests.pipeline.making import without_other_clusters
from tests.s3 import KEYS, FaultyS3, s3_server

PORT = 5093
SMALL = "--smoke --family gru --trials 4 --max-epochs 3 --refit-folds 2 --top-k 1 --name a"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with s3_server("127.0.0.1", PORT):
        server = FaultyS3(PORT)
        yield server
        server.close()


def _start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mgc_ray.search", *options],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=without_other_clusters() | KEYS,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _ended(process: subprocess.Popen[str], status: int, seconds: float) -> str:
    try:
        _, printed = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        pytest.fail(f"still running after {seconds} s: {process.communicate(timeout=60)[1]}")
    assert "Traceback" not in printed
    assert process.returncode == status, printed
    return printed


def _check(search: Path, storage: Storage) -> None:
    """Each trial is there once, and has not failed; what is in the storage is the same."""
    assert load_search(search).finished
    records = read_records(search / "trials")
    assert {record.status for record in records} <= {COMPLETED, STOPPED_EARLY}
    with (search / "leaderboard.csv").open(newline="") as file:
        assert len([row["trial"] for row in csv.DictReader(file)]) == len(records) == 4
    assert len(list(search.glob("refit/*/fold-*/held.npz"))) == 2
    here = {path.relative_to(search).as_posix() for path in search.rglob("*") if path.is_file()}
    sizes = {key.removeprefix("a/"): size for key, size in storage.sizes("a").items()}
    kept = {name for name in here if name.startswith(("trials/", "refit/", "ensemble/"))}
    assert {name: (search / name).stat().st_size for name in kept} == {
        name: sizes.get(name) for name in kept
    }


@pytest.mark.parametrize("seed", [0])
def test_a_storage_that_fails_in_all_ways_at_random_fails_no_trial(
    faulty: FaultyS3, tmp_path: Path, seed: int
) -> None:
    uri = faulty.uri(f"random-{seed}")
    faulty.fail_at_random(seed, 0.04)
    process = _start(tmp_path, *SMALL.split(), "--storage", uri)
    _ended(process, 0, 800)
    assert len(faulty.failed) >= 5, faulty.failed
    faulty.fail_at_random(seed, 0)
    _check(tmp_path / "results/a", Storage(uri))


@pytest.mark.parametrize("fault", ["silence"])
def test_a_storage_that_fails_for_good_ends_the_search_in_one_line_and_it_continues(
    faulty: FaultyS3, tmp_path: Path, fault: int | str
) -> None:
    uri = faulty.uri(f"dead-{fault}")
    process = _start(tmp_path, *SMALL.split(), "--storage", uri)
    search = tmp_path / "results/a"
    _when(lambda: list(search.glob("trials/*/trial.json")), process)
    died = time.monotonic()
    faulty.fail(fault)
    printed = _ended(process, 1, 200)
    assert time.monotonic() - died < 90  # 60, and a machine that is busy
    last = printed.splitlines()[-1]
    assert "the storage cannot be used (" in last
    assert "also when tried again for 40 s" in last
    assert " failed after" not in printed
    faulty.fail("", 0)
    _ended(_start(tmp_path, "--resume", "a"), 0, 400)
    _check(search, Storage(uri))


def _when(holds: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 400
    while not holds():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
