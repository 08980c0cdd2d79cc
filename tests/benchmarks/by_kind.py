"""The figures of a comparison on some of its tracks alone: whole songs, excerpts, all.

    python -m mgc_ray.compare results/enc* results/base* --out comparison
    PYTHONPATH=. python tests/benchmarks/by_kind.py comparison --ending .excerpt

Of each model: accuracy, balanced accuracy and macro-F1, mean over the seeds with the 95 % interval
over artists and seeds (the same resamples for all three), and the difference in accuracy from the
first model, paired. `--ending` marks the excerpts: it ends their track ids.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from mgc_ray.evaluation.intervals import Evaluated, paired_difference
from mgc_ray.evaluation.metrics import confusion_matrix, precision_recall_f1
from mgc_ray.evaluation.rows import Row, rows_of
from mgc_ray.evaluation.runs import read_runs

RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", type=Path, nargs="+")
    parser.add_argument("--ending", default=".excerpt")
    args = parser.parse_args()
    genres, models = read_runs(args.comparison)
    rows = rows_of(models, len(genres))
    for kind in ("all", "whole", "excerpts"):
        kept = [[_only(one, kind, args.ending) for one in row.evaluated] for row in rows]
        if not all(len(one.true) for runs in kept for one in runs):
            continue
        print(f"\n{kind}: {len(kept[0][0].true)} tracks")
        print("| model | seeds | accuracy | balanced accuracy | macro-F1 | minus the first |")
        print("|---|---|---|---|---|---|")
        for row, runs in zip(rows, kept, strict=True):
            found = paired_difference(runs, kept[0], row.has_runs_of(rows[0]))
            difference = (
                f"{100 * found.value:+.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"
            )
            figures = " | ".join(_figures(runs, len(genres)))
            print(f"| {_name(row)} | {len(runs)} | {figures} | {difference} |")


def _name(row: Row) -> str:
    features = dict(row.key.settings).get("dataset.features", "")
    return f"{row.key.model} of {', '.join(row.key.families)}; {features}"


def _only(one: Evaluated, kind: str, ending: str) -> Evaluated:
    excerpt = np.array([str(name).endswith(ending) for name in one.track_id])
    kept = np.ones(len(excerpt), bool) if kind == "all" else excerpt == (kind == "excerpts")
    names = ("track_id", "group", "true", "predicted")
    return replace(one, **{name: getattr(one, name)[kept] for name in names})


def _figures(runs: list[Evaluated], genres: int) -> list[str]:
    random = np.random.default_rng(0)
    names = np.unique(np.concatenate([run.group for run in runs]))
    matrices = [
        np.stack(
            [
                confusion_matrix(run.predicted[run.group == n], run.true[run.group == n], genres)
                for n in names
            ]
        )
        for run in runs
    ]  # [groups, genres, genres] of each seed
    drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    seeds = random.integers(len(runs), size=(RESAMPLES, len(runs)))
    resampled = np.array(
        [
            np.mean([_scores(np.tensordot(counts, matrices[s], 1)) for s in chosen], 0)
            for counts, chosen in zip(drawn, seeds, strict=True)
        ]
    )
    found = np.array([_scores(matrix.sum(0)) for matrix in matrices])
    low, high = np.percentile(resampled, (2.5, 97.5), axis=0)
    deviation = found.std(0, ddof=1) if len(runs) > 1 else np.zeros(3)
    texts = []
    for i, (scale, digits) in enumerate(((100, 1), (100, 1), (1, 3))):
        mean, spread, ends = found[:, i].mean(), deviation[i], (low[i], high[i])
        texts.append(
            f"{scale * mean:.{digits}f} ± {scale * spread:.{digits}f} "
            f"({scale * ends[0]:.{digits}f} to {scale * ends[1]:.{digits}f})"
        )
    return texts


def _scores(matrix: np.ndarray) -> tuple[float, float, float]:
    """Accuracy, balanced accuracy (over genres that there are) and macro-F1."""
    there = matrix.sum(1) > 0
    _, recall, f1 = precision_recall_f1(matrix)
    accuracy = np.trace(matrix) / matrix.sum()
    return float(accuracy), float(recall[there].mean()), float(np.nanmean(f1))


if __name__ == "__main__":
    main()
