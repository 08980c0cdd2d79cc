"""Random sequences of what can happen to a search on two machines with a storage.

    PYTHONPATH=. python tests/benchmarks/sequences.py --count 10000

After each, Optuna's study, the leaderboard and the storage must have the same trials, and none that
had reached the storage may be lost; see tests/tuning/sequences.py. Prints how many there were.
"""

import argparse
import time

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.tuning.sequences import Search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started, ended = time.monotonic(), 0

    @seed(args.seed)
    class Counted(Search):
        def teardown(self) -> None:
            nonlocal ended
            super().teardown()
            ended += 1

    run_state_machine_as_test(
        Counted,
        settings=settings(
            max_examples=args.count,
            stateful_step_count=args.steps,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{ended} sequences, seed {args.seed}: all held, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
