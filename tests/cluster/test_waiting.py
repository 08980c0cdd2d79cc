"""A cluster whose head has no CPUs, as on Kubernetes: workers join, leave and come back."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mgc_ray.results import load_search
from tests.pipeline.making import music, without_other_clusters
from tests.processes import Marked

RAY = str(Path(sys.executable).with_name("ray"))
PORT = 26479
ADDRESS = f"127.0.0.1:{PORT}"
WAITING = f"to join the cluster at {ADDRESS}; Ctrl-C ends this"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Cluster:
    """A head, and workers on the same machine."""

    def __init__(self, home: Path, place: Path) -> None:
        self.environment = without_other_clusters() | {
            "HOME": str(home),
            "RAY_AUTH_MODE": "token",
            "RAY_TMPDIR": str(place),  # of its own: else other Rays here would join this cluster
        }
        subprocess.run([RAY, "get-auth-token", "--generate"], check=True, env=self.environment)

    def start(self, *options: str, marked: Marked) -> None:
        """Start a node and wait until it has."""
        process = subprocess.Popen(
            [RAY, "start", *options, "--disable-usage-stats", "--block", *_SMALL],
            env=self.environment | marked.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        for line in process.stdout:
            if "Ray runtime started" in line:
                return
        raise AssertionError(f"no node: {process.wait()}")

    def add_worker(self, gpus: int = 0) -> Marked:
        """A worker of two CPUs; it leaves when it is killed."""
        marked = Marked()
        self.start(f"--address={ADDRESS}", "--num-cpus=2", f"--num-gpus={gpus}", marked=marked)
        return marked

    def run(self, command: str, folder: Path) -> subprocess.Popen[bytes]:
        """Start a command on the cluster; what it prints is in FOLDER/printed."""
        name, *options = command.split()
        with (folder / "printed").open("w") as file:
            return subprocess.Popen(
                [sys.executable, "-m", f"mgc_ray.{name}", *options, "--address", ADDRESS],
                cwd=folder,
                stdout=file,
                stderr=file,
                env=self.environment,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )


_SMALL = ("--object-store-memory=100000000",)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A head without CPUs."""
    place, marked = Path("/tmp/mgc-waiting"), Marked()
    (tmp_path / "home").mkdir()
    cluster = Cluster(tmp_path / "home", place)
    cluster.start("--head", f"--port={PORT}", "--num-cpus=0", "--num-gpus=0", marked=marked)
    try:
        yield cluster
    finally:
        marked.send(signal.SIGKILL)
        shutil.rmtree(place, ignore_errors=True)


def _until(
    process: subprocess.Popen[bytes], folder: Path, holds: Callable[[str], object], what: str
) -> str:
    """Wait until what it has printed shows something; what it has printed."""
    deadline = time.monotonic() + 200
    while not holds(printed := (folder / "printed").read_text()):
        assert process.poll() is None, printed
        assert time.monotonic() < deadline, f"no {what}: {printed}"
        time.sleep(0.1)
    return printed


def test_commands_wait_for_a_first_worker_and_can_be_stopped(
    cluster: Cluster, tmp_path: Path
) -> None:
    tracks = music(tmp_path / "music", 3)
    process = cluster.run(f"preprocess --tracks {tracks} --dataset d", tmp_path)
    _until(
        process, tmp_path, lambda text: f"waiting for a node with CPUs {WAITING}" in text, "wait"
    )
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    printed = (tmp_path / "printed").read_text()
    assert printed.splitlines()[-1].startswith("stopped by Ctrl-C: the same command again")

    process = cluster.run(f"preprocess --tracks {tracks} --dataset d", tmp_path)
    _until(process, tmp_path, lambda text: WAITING in text, "wait")
    worker = cluster.add_worker()
    try:
        assert process.wait(100) == 0
        printed = (tmp_path / "printed").read_text()
        assert printed.count(WAITING) == 1
        assert "the cluster has 2 CPUs now: continuing" in printed

        options = "--smoke --family gru --gpus-per-trial 1 --name s"
        process = cluster.run(f"search {options}", tmp_path)
        _until(process, tmp_path, lambda text: "with GPUs (--gpus-per-trial 1) to" in text, "wait")
        other = cluster.add_worker(gpus=1)
        try:
            # it went on, until PyTorch did not find the GPU that the node has in name alone
            assert process.wait(200) == 1
        finally:
            other.send(signal.SIGKILL)
        printed = (tmp_path / "printed").read_text()
        assert "the cluster has 4 CPUs and 1 GPU now: continuing" in printed
        assert "must be able to use it, but PyTorch sees none" in printed.splitlines()[-1]
    finally:
        worker.send(signal.SIGKILL)


def test_the_only_worker_leaves_and_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    worker = cluster.add_worker()
    options = "--smoke --family gru --trials 3 --max-epochs 40 --set patience=40 --name s"
    process = cluster.run(f"search {options}", tmp_path)
    trials = tmp_path / "results/s/trials"
    _until(process, tmp_path, lambda _: list(trials.rglob("state.safetensors")), "trial")
    worker.send(signal.SIGKILL)
    _until(process, tmp_path, lambda text: f"a node with CPUs {WAITING}" in text, "wait")
    worker = cluster.add_worker()
    try:
        assert process.wait(300) == 0, (tmp_path / "printed").read_text()
    finally:
        worker.send(signal.SIGKILL)
    assert "the cluster has 2 CPUs now: continuing" in (tmp_path / "printed").read_text()
    result = load_search(tmp_path / "results/s")
    assert result.finished
    assert {record.status for record in result.records} <= {"completed", "stopped_early"}


def test_a_token_that_is_not_the_heads_is_refused_with_that_reason(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "other/.ray").mkdir(parents=True)
    (tmp_path / "other/.ray/auth_token").write_text("0" * 64)
    cluster.environment["HOME"] = str(tmp_path / "other")
    process = cluster.run(
        f"preprocess --tracks {music(tmp_path / 'music', 3)} --dataset d", tmp_path
    )
    assert process.wait(100) == 2
    genres, line = (tmp_path / "printed").read_text().splitlines()
    assert genres.startswith("genres: ")
    assert f"the Ray cluster at '{ADDRESS}' takes only those who have its token" in line
