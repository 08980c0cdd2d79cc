"""Damaged music and odd folders, and a third as many tables, spaces, models, strangers' results.

    python tests/benchmarks/bad_input.py --count 10000 --models MODEL ...

MODEL: checkpoints and ensembles to damage, besides results/gtzan/model. Prints how many had a
result, how many were refused, and each case that had neither, hung, needed more than 1 GiB of
address space, wrote to standard error or opened a file outside of its folder. What libraries open:

    strace -f -y -e trace=openat -o opened python tests/benchmarks/bad_input.py --kinds strangers
    grep "= [0-9]*<[^>]*/outside/" opened    # where a descriptor leads, also behind a link

What is left then are the folder's own files when they are made (O_CREAT, and a second damage behind
a first one), and songs.parquet, which is itself what the user names.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from tests import fuzzing, strangers

KINDS = ["music", "folders", "tables", "spaces", "models", "strangers"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, nargs="*", default=[])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    args = parser.parse_args()
    shipped = Path("results/gtzan/model")
    models = [shipped, *(shipped / "members").iterdir(), *args.models]
    count, seed = args.count, args.seed
    kinds: dict[str, Callable[[Path], Iterator[fuzzing.Case]]] = {
        "music": lambda folder: fuzzing.music_cases(folder, count, seed),
        "folders": lambda folder: fuzzing.folder_cases(folder, count, seed),
        "tables": lambda folder: fuzzing.table_cases(folder, count // 3, seed),
        "spaces": lambda folder: fuzzing.space_cases(folder, count // 3, seed),
        "models": lambda folder: fuzzing.model_cases(folder, models, count // 3, seed),
        "strangers": lambda folder: strangers.stranger_cases(folder, count // 3, seed),
    }
    for category in (RuntimeWarning, UserWarning):
        warnings.simplefilter("always", category)  # for each case, not only for the first
    failed = False
    for kind in args.kinds:
        cases = kinds[kind]
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            counts, wrong = fuzzing.run_cases(cases(Path(folder)))
        print(
            f"{kind}: {counts['result']} with a result, {counts['refused']} refused, "
            f"{len(wrong)} wrong, {time.monotonic() - started:.0f} s",
            *wrong,
            sep="\n  ",
            flush=True,
        )
        failed = failed or bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
