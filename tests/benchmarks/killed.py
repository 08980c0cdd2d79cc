"""A search whose driver is killed at random moments, and resumed until it finishes.

    python tests/benchmarks/killed.py --kills 20 --repeat 3

Prints when the kills came, and how many states of running trials each left.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.killing import KilledSearch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=1, help="seeds of the moments")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--longest", type=float, default=25.0, help="seconds to a kill at most")
    args = parser.parse_args()
    options = ["--smoke", "--family", "gru", "statistics", "--refit-folds", "2"]
    options += ["--trials", str(args.trials), "--max-epochs", "15"]
    for seed in range(args.repeat):
        draw = random.Random(seed)
        moments = [draw.uniform(3, args.longest) for _ in range(args.kills)]
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            killed = KilledSearch(Path(folder), options)
            killed.run(moments)
            killed.check(args.trials)
        times = ", ".join(f"{seconds:.0f}" for seconds in killed.kills)
        running = ", ".join(str(count) for count in killed.running)
        print(
            f"seed {seed}: {len(killed.kills)} kills after {times} s, states left {running}; "
            f"{args.trials} trials, each once, in {time.monotonic() - started:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
