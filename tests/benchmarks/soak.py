"""An hour of searches on a cluster whose nodes are killed and started again at random.

    python tests/benchmarks/soak.py --minutes 60

A head and three workers in their own network namespaces (root and iproute2 are needed). Searches
run one after the other; every 20 to 60 seconds a worker is killed with all its processes and
started again after 5 to 20, and some drivers are killed and their searches resumed. Prints one line
per search, and at the end how many searches, trials, kills and losses there were.
"""

import argparse
import csv
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from mgc_ray.results import load_search
from tests.cluster.nodes import PORT, Node, machines, start_cluster, why_not

TRIALS = 8


class Chaos(threading.Thread):
    """Kills workers and starts them again until it is stopped."""

    def __init__(self, head: Node, workers: list[Node], draw: random.Random) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self.over = threading.Event()
        self._head, self._workers, self._draw = head, workers, draw

    def run(self) -> None:
        while not self.over.wait(self._draw.uniform(20, 60)):
            victim = self._draw.choice(self._workers)
            victim.die()
            self.kills += 1
            self.over.wait(self._draw.uniform(5, 20))
            for attempt in range(3):
                try:
                    victim.join(self._head, cpus=1)
                    break
                except AssertionError:
                    if attempt == 2:
                        raise
                    victim.die()


def search(head: Node, name: str, storage: str, draw: random.Random) -> tuple[int, float]:
    """Run one search, of which a third are killed once; kills of the driver, and seconds."""
    started, kills = time.monotonic(), 0
    common = ["--address", f"{head.address}:{PORT}", "--storage", storage]
    options = ["--smoke", "--family", "gru", "statistics", "--trials", str(TRIALS)]
    options += ["--max-epochs", "6", "--refit-folds", "2", "--top-k", "2", "--name", name]
    while True:
        process = head.start(
            *(sys.executable, "-m", "mgc_ray.search", *options, *common),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            limit = draw.uniform(10, 60) if not kills and draw.random() < 1 / 3 else 900
            printed = process.communicate(timeout=limit)[1]
            if process.returncode:
                raise AssertionError(f"{name}: exit status {process.returncode}: {printed[-2000:]}")
            return kills, time.monotonic() - started
        except subprocess.TimeoutExpired:
            if kills:
                raise
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            if (head.outside / "results" / name / "search.json").exists():
                options = ["--resume", name]


def losses(folder: Path) -> list[str]:
    """What a finished search should not have, in words."""
    wrong = []
    with (folder / "leaderboard.csv").open() as file:
        rows = [(row["trial"], row["status"]) for row in csv.DictReader(file)]
    if len(rows) != TRIALS or len(dict(rows)) != TRIALS:
        wrong.append(f"{len(rows)} rows instead of {TRIALS}")
    wrong += [f"{trial} failed" for trial, status in rows if status == "failed"]
    if not load_search(folder).finished:
        wrong.append("unfinished")
    if list(folder.rglob("state.safetensors")) or list(folder.rglob(".*.tmp")):
        wrong.append("files of running trials")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if reason := why_not():
        sys.exit(f"a cluster of several machines {reason}")
    draw = random.Random(args.seed)
    root = Path(tempfile.mkdtemp(prefix="soak"))
    shutil.rmtree(root)
    total: Counter[str] = Counter()
    deadline = time.monotonic() + 60 * args.minutes
    with machines(root, ["head", "w1", "w2", "w3"]) as nodes:
        start_cluster(nodes)
        chaos = Chaos(nodes[0], nodes[1:], random.Random(args.seed + 1))
        chaos.start()
        while time.monotonic() < deadline:
            name = f"s{total['searches']:03d}"
            kills, seconds = search(nodes[0], name, str(root / "shared"), draw)
            lost = losses(nodes[0].outside / "results" / name)
            total.update(searches=1, trials=TRIALS, driver_kills=kills, losses=len(lost))
            print(f"{name}: {seconds:.0f} s, driver killed {kills} times", *lost, flush=True)
        chaos.over.set()
        chaos.join(60)
        total["node_kills"] = chaos.kills
    shutil.rmtree(root, ignore_errors=True)
    print(dict(total))
    return int(total["losses"] > 0)


if __name__ == "__main__":
    sys.exit(main())
