"""Convert audio to arrays like GTZAN's published ones, so that models of those can learn from it.

    python -m mgc_ray.synth --out corpus --tracks-per-genre 100
    python tests/benchmarks/as_arrays.py corpus/tracks.csv corpus-arrays
    python -m mgc_ray.search --tracks corpus-arrays/tracks.csv --chunks-per-track 1 ...

The first 30 s of each track become OUT/PATH.npy; OUT/tracks.csv is the table with these paths.
"""

import argparse
import csv
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from mgc_ray.data.audio import read_waveform
from mgc_ray.data.features._array_recipe import GTZAN_ARRAYS


def convert(source: Path, out: Path, path: str) -> None:
    target = (out / path).with_suffix(".npy")
    target.parent.mkdir(parents=True, exist_ok=True)
    np.save(target, GTZAN_ARRAYS.arrays(read_waveform(source / path))[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    with args.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(convert, args.table.parent, args.out), [r["path"] for r in rows]))
    with (args.out / "tracks.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"path": str(Path(row["path"]).with_suffix(".npy"))} for row in rows)
    print(f"{len(rows)} arrays in {args.out}")


if __name__ == "__main__":
    main()
