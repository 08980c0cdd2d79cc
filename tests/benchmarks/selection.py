"""What other ways of putting members together would have given, from finished searches alone.

    python tests/benchmarks/selection.py results/all0-*

Of each search with --refit-folds, the out-of-fold predictions of its families are parted by group
into five; members are chosen on four parts and judged on the fifth (nested), so that ways can be
compared without the test part. What each would have on the test part stands beside it, for the
record: it must not be chosen by. A way's difference to the first is paired, with a 95 % bootstrap
over groups.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mgc_ray.ensembling.calibration import fit_temperature, log_loss, temper
from mgc_ray.ensembling.selection import select

ROUNDS = 25


def best_one(probs: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.eye(len(probs))[np.argmax([np.mean(p.argmax(1) == true) for p in probs])]


def all_of_them(probs: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.full(len(probs), 1 / len(probs))


def by_log_loss(probs: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Greedy with replacement as `select`, by the log-loss of the mean instead of its accuracy."""
    counts, best = np.zeros(len(probs)), (np.inf, np.zeros(len(probs)))
    for size in range(1, ROUNDS + 1):
        steps = counts + np.eye(len(probs))
        losses = [log_loss(np.tensordot(step / size, probs, 1), true) for step in steps]
        counts = steps[int(np.argmin(losses))]
        if min(losses) < best[0]:
            best = (min(losses), counts)
    return best[1] / best[1].sum()


WAYS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], bool]] = {
    "greedy by accuracy (the program's)": (select, False),
    "greedy by accuracy, calibrated members": (select, True),
    "greedy by log-loss": (by_log_loss, False),
    "greedy by log-loss, calibrated members": (by_log_loss, True),
    "the one that looks best": (best_one, False),
    "the mean of all": (all_of_them, False),
}


def read(search: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each part: probs [families, tracks, genres], true [tracks], group [tracks]."""
    found: dict[str, dict[str, list[list[str]]]] = {"out_of_fold": {}, "test": {}}
    with (search / "ensemble" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        genres = next(reader)[5:]
        for model, part, *row in reader:
            if model != "ensemble":
                found[part].setdefault(model, []).append(row)
    parts = {}
    for part, models in found.items():
        rows = [sorted(models[name]) for name in sorted(models)]
        probs = np.array([[row[3:] for row in model] for model in rows], float)
        true = np.array([genres.index(row[2]) for row in rows[0]])
        parts[part] = probs, true, np.array([row[1] for row in rows[0]])
    return parts


def right(
    way: str,
    chosen_on: tuple[np.ndarray, np.ndarray],
    judged_on: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Which tracks are right, where members are chosen on others; each (probs, true)."""
    choose, calibrated = WAYS[way]
    probs, judged = chosen_on[0], judged_on[0]
    if calibrated:
        temperatures = [fit_temperature(p, chosen_on[1]) for p in probs]
        probs, judged = (
            np.array([temper(p, t) for p, t in zip(of, temperatures, strict=True)])
            for of in (probs, judged)
        )
    mean = np.tensordot(choose(probs, chosen_on[1]), judged, 1)
    return mean.argmax(1) == judged_on[1]


def interval(difference: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """95 %, in points, of the mean difference, over groups."""
    _, index = np.unique(group, return_inverse=True)
    sums, sizes = np.bincount(index, difference), np.bincount(index)
    draws = np.random.default_rng(0).integers(len(sizes), size=(2000, len(sizes)))
    low, high = np.percentile(sums[draws].sum(1) / sizes[draws].sum(1), [2.5, 97.5])
    return 100 * float(low), 100 * float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("searches", nargs="+", type=Path)
    searches = [read(path) for path in parser.parse_args().searches]
    first = np.zeros(0)
    for way in WAYS:
        nested, groups, test = [], [], []
        for number, parts in enumerate(searches):
            probs, true, group = parts["out_of_fold"]
            order = np.random.default_rng(number).permutation(np.unique(group))
            for part in range(5):
                out = np.isin(group, order[part::5])
                kept, left = (probs[:, ~out], true[~out]), (probs[:, out], true[out])
                nested.append(right(way, kept, left))
                groups.append(group[out])
            test.append(right(way, (probs, true), parts["test"][:2]))
        all_nested = np.concatenate(nested).astype(float)
        first = first if len(first) else all_nested
        low, high = interval(all_nested - first, np.concatenate(groups))
        print(
            f"{way:40s} nested {100 * all_nested.mean():.1f} % of {len(all_nested)} "
            f"({100 * (all_nested - first).mean():+.1f}, 95 % {low:+.1f} to {high:+.1f}), "
            f"test {100 * np.concatenate(test).mean():.1f} %"
        )


if __name__ == "__main__":
    main()
