"""What other ways of selecting members would have given, from finished searches alone.

    PYTHONPATH=. python tests/benchmarks/selection.py results/all0-*

Of each search with --refit-folds, the out-of-fold predictions of its families are split by group
into five; members are selected on four parts and evaluated on the fifth (nested), so that ways can
be compared without the test part. What each would have on the test part is printed as well, for the
record: it must not be chosen by. The difference of a way to the first is paired, with a 95 %
bootstrap over groups.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mgc_ray.ensembling.calibrate import fit_temperature
from mgc_ray.ensembling.select import select
from mgc_ray.evaluation.metrics import accuracy, apply_temperature, log_loss
from mgc_ray.results import ENSEMBLE, OUT_OF_FOLD, TEST, load_search

ROUNDS = 25
Part = tuple[np.ndarray, np.ndarray, np.ndarray]  # probs [families, tracks, genres], true, group


def best_one(probs: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.eye(len(probs))[np.argmax([accuracy(p.argmax(1), true) for p in probs])]


def all_of_them(probs: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.full(len(probs), 1 / len(probs))


def by_accuracy(probs: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Greedy with replacement as `select`, by the accuracy of the mean, ties by its log-loss."""
    counts, best = np.zeros(len(probs)), ((-1.0, -np.inf), np.zeros(len(probs)))
    for size in range(1, ROUNDS + 1):
        steps = counts + np.eye(len(probs))
        means = [np.tensordot(step / size, probs, 1) for step in steps]
        scores = [
            (accuracy(mean.argmax(1), true), -round(log_loss(mean, true), 9)) for mean in means
        ]
        chosen = max(range(len(probs)), key=lambda member: (*scores[member], -member))
        counts = steps[chosen]
        if scores[chosen] > best[0]:
            best = (scores[chosen], counts)
    return best[1] / best[1].sum()


# how members are selected, and whether they are calibrated before
WAYS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], bool]] = {
    "greedy by log-loss, calibrated (the program's)": (select, True),
    "greedy by log-loss": (select, False),
    "greedy by accuracy, calibrated": (by_accuracy, True),
    "greedy by accuracy": (by_accuracy, False),
    "the one with the best accuracy": (best_one, False),
    "the mean of all": (all_of_them, False),
}


def read(search: Path) -> dict[str, Part]:
    """The families' predictions for the tracks of each part."""
    parts = {}
    for part in (OUT_OF_FOLD, TEST):
        families = [
            one
            for one in load_search(search).predictions.predictions
            if one.part == part and one.model != ENSEMBLE
        ]
        if not families:
            raise SystemExit(f"{search} must have been refitted and tested: no {part} predictions")
        first = families[0]
        parts[part] = np.stack([one.probs for one in families]), first.true, first.group
    return parts


def right(
    way: str,
    selected_on: tuple[np.ndarray, np.ndarray],
    evaluated_on: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Which tracks are right, where members are selected on others; each (probs, true)."""
    choose, calibrated = WAYS[way]
    probs, other = selected_on[0], evaluated_on[0]
    if calibrated:
        temperatures = [fit_temperature(p, selected_on[1]) for p in probs]
        probs, other = (
            np.array([apply_temperature(p, t) for p, t in zip(of, temperatures, strict=True)])
            for of in (probs, other)
        )
    mean = np.tensordot(choose(probs, selected_on[1]), other, 1)
    return mean.argmax(1) == evaluated_on[1]


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
            probs, true, group = parts[OUT_OF_FOLD]
            order = np.random.default_rng(number).permutation(np.unique(group))
            for part in range(5):
                out = np.isin(group, order[part::5])
                kept, left = (probs[:, ~out], true[~out]), (probs[:, out], true[out])
                nested.append(right(way, kept, left))
                groups.append(group[out])
            test.append(right(way, (probs, true), parts[TEST][:2]))
        all_nested = np.concatenate(nested).astype(float)
        first = first if len(first) else all_nested
        low, high = interval(all_nested - first, np.concatenate(groups))
        print(
            f"{way:48s} nested {100 * all_nested.mean():.1f} % of {len(all_nested)} "
            f"({100 * (all_nested - first).mean():+.1f}, 95 % {low:+.1f} to {high:+.1f}), "
            f"test {100 * np.concatenate(test).mean():.1f} %"
        )


if __name__ == "__main__":
    main()
