"""A Ray cluster of several machines on one machine: each node in its own network namespace.

Each node also has its own mount namespace, in which the same path HOME is another folder, so that
the nodes share no folder. Needs root and iproute2; see `why_not`.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.s3 import KEYS

PREFIX = "mgc"  # of namespaces, veth pairs and the bridge
HOST = "10.77.0.254"  # this machine, as the nodes see it
PORT = 6379
RAY = str(Path(sys.executable).with_name("ray"))


def why_not() -> str:
    """Why no such cluster can be started here; "" where it can."""
    if not all(shutil.which(tool) for tool in ("ip", "unshare", "nsenter", "mount")):
        return "needs iproute2 and util-linux"
    done = subprocess.run(["ip", "netns", "add", f"{PREFIX}-try"], capture_output=True, text=True)
    if done.returncode:
        return f"may not make network namespaces: {done.stderr.strip()}"
    _run("ip", "netns", "del", f"{PREFIX}-try")
    return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@dataclass
class Node:
    """A machine: `holder` is the process that keeps its namespaces."""

    name: str
    address: str
    holder: subprocess.Popen[bytes]
    home: Path  # as the node itself sees it
    outside: Path  # the same folder, as this process sees it
    environment: dict[str, str]

    def start(self, *command: str, **options: object) -> subprocess.Popen[str]:
        """Start a command on the node, in its home."""
        enter = ["nsenter", "-t", str(self.holder.pid), "-m", "-n", f"--wdns={self.home}"]
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            [*enter, *command], env=self.environment, text=True, **options
        )

    def run(self, *command: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command on the node to its end; status and output."""
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, printed = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{command} hangs: {process.communicate()[1][-3000:]}") from None
        return subprocess.CompletedProcess(command, process.returncode, out, printed)

    def join(self, head: "Node", cpus: int) -> None:
        """Start Ray here, as the head itself or as a worker of it."""
        where = (
            ["--head", f"--port={PORT}"] if self is head else [f"--address={head.address}:{PORT}"]
        )
        done = self.run(
            *(RAY, "start", *where, f"--node-ip-address={self.address}", f"--num-cpus={cpus}"),
            *("--object-store-memory=300000000", "--disable-usage-stats"),
            *(["--include-dashboard=false", f"--temp-dir={self.home}/r"] if self is head else []),
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def processes(self) -> list[int]:
        done = subprocess.run(
            ["ip", "netns", "pids", f"{PREFIX}-{self.name}"], capture_output=True, text=True
        )
        return [int(pid) for pid in done.stdout.split() if int(pid) != self.holder.pid]

    def die(self) -> None:
        """As in a power failure: kill all processes of the node at once."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def machines(root: Path, names: list[str]) -> Iterator[list[Node]]:
    """Nodes without Ray, in a private network with this machine."""
    root.mkdir(parents=True)
    (root / "home").mkdir()
    _run("ip", "link", "add", f"{PREFIX}-br", "type", "bridge")
    nodes: list[Node] = []
    try:
        _run("ip", "addr", "add", f"{HOST}/24", "dev", f"{PREFIX}-br")
        _run("ip", "link", "set", f"{PREFIX}-br", "up")
        for number, name in enumerate(names, start=1):
            nodes.append(_machine(root, name, f"10.77.0.{number}"))
        yield nodes
    finally:
        for node in nodes:
            node.die()
            node.holder.kill()
            node.holder.wait()
            subprocess.run(["ip", "netns", "del", f"{PREFIX}-{node.name}"], check=False)
        subprocess.run(["ip", "link", "del", f"{PREFIX}-br"], check=False)


def _machine(root: Path, name: str, address: str) -> Node:
    space, inside, outside = f"{PREFIX}-{name}", f"{PREFIX}-{name}-i", f"{PREFIX}-{name}-o"
    _run("ip", "netns", "add", space)
    _run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside)
    _run("ip", "link", "set", inside, "netns", space)
    _run("ip", "link", "set", outside, "master", f"{PREFIX}-br", "up")
    for command in (
        f"addr add {address}/24 dev {inside}",
        f"link set {inside} up",
        "link set lo up",
    ):
        _run("ip", "-n", space, *command.split())
    folder = root / name
    (folder / "tmp").mkdir(parents=True)
    home = root / "home"
    hold = f"mount --bind {folder} {home} && echo ready && exec sleep infinity"
    holder = subprocess.Popen(
        [*("ip", "netns", "exec", space, "unshare", "-m", "sh", "-c"), hold],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout
    assert holder.stdout.readline() == b"ready\n"
    environment = {
        "HOME": str(home),
        "TMPDIR": f"{home}/tmp",
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
        "RAY_AUTH_MODE": "token",
        **KEYS,
    }
    return Node(name, address, holder, home, folder, environment)


def start_cluster(nodes: list[Node]) -> None:
    """Start Ray: the first node is the head, without a CPU for trials; the others have one each."""
    head, *workers = nodes
    done = head.run(RAY, "get-auth-token", "--generate", timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    for worker in workers:  # the token, as an administrator copies it
        (worker.outside / ".ray").mkdir()
        shutil.copy(head.outside / ".ray/auth_token", worker.outside / ".ray/auth_token")
    head.join(head, cpus=0)
    for worker in workers:
        worker.join(head, cpus=1)
