"""What searching is worth on new artists: the best of N trials of a family that is solved for.

    PYTHONPATH=. python tests/benchmarks/searching.py DATASET... --family linear --table TABLE.csv
    PYTHONPATH=. python tests/benchmarks/searching.py --table TABLE.csv

Each DATASET is one fold of a cross-validation by artist (`mgc_ray.preprocess --protocol
cross-validation --fold K/N`). Within it trials are scored by cross-validation over its training and
validation parts, as the program scores them but in all folds, and the best of the first N is solved
for on all of these and predicts the test part. Two ways, each from the family's defaults on:
Optuna's TPE with the program's settings, and random sampling. The second command makes the table
of what the first has written so far.
"""

import argparse
import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import torch

from mgc_ray.data.chunks import Chunks, load_chunks
from mgc_ray.evaluation.intervals import Evaluated, interval_over_runs, paired_difference, pooled
from mgc_ray.evaluation.metrics import track_probs
from mgc_ray.settings import Params
from mgc_ray.training.batches import batches
from mgc_ray.training.epoch import predict_probs
from mgc_ray.training.loop import train
from mgc_ray.tuning.space import default_params, load_space, with_features

BEST_OF = (1, 5, 10, 20, 50, 100, 200)
FIELDS = ("seed", "fold", "way", "trials", "score", "track_id", "group", "true", "predicted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", type=Path, nargs="*")
    parser.add_argument("--family", default="linear")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--table", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for dataset in args.datasets:
        for way in ("tpe", "random"):
            write(args.table, search(dataset, args.family, way, args.trials))
    show(args.table)


def search(dataset: Path, family: str, way: str, trials: int) -> list[dict[str, object]]:
    chunks = load_chunks(dataset, ["train", "valid", "test"])
    known = load_chunks(dataset, ["train", "valid"])
    suggest = with_features(load_space(family), chunks.info.features)
    seed = chunks.info.seed
    sampler = (
        optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        if way == "tpe"
        else optuna.samplers.RandomSampler(seed=seed)
    )
    study = optuna.create_study(sampler=sampler, direction="maximize")
    study.enqueue_trial(default_params(family, suggest))
    rows, best = [], -1.0
    predicted: list[dict[str, object]] = []
    for number in range(1, trials + 1):
        trial = study.ask()
        params = suggest(trial) | {"seed": seed}
        *_, last = train(family, params | {"folds": 5}, known)
        score = last.metrics["val_track_accuracy"]
        study.tell(trial, score)
        if score > best:
            best, predicted = score, predict(family, params, chunks)
            print(f"{dataset.name} {way} {number}: {score:.3f}, {params}", flush=True)
        if number in BEST_OF:
            rows += [{"way": way, "trials": number, "score": best} | one for one in predicted]
    return rows


def predict(family: str, params: Params, chunks: Chunks) -> list[dict[str, object]]:
    """The test part's tracks, predicted by a model of all others."""
    test = chunks.split == "test"
    parts = replace(chunks, split=np.where(test, "valid", "train"))
    *_, last = train(family, params | {"folds": 0}, parts)
    rows = np.flatnonzero(test)
    source = batches(parts, last.classifier.names, torch.device("cpu"))
    probs = predict_probs(last.classifier, source, rows)
    tracks, by_track = track_probs(probs, chunks.track[rows])
    info = chunks.info
    return [
        {
            "seed": info.seed,
            "fold": info.fold,
            "track_id": chunks.tracks[track].track_id,
            "group": chunks.tracks[track].group,
            "true": chunks.track_genre[track],
            "predicted": one.argmax(),
        }
        for track, one in zip(tracks, by_track, strict=True)
    ]


def write(path: Path, rows: list[dict[str, object]]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def show(path: Path) -> None:
    found: dict[tuple[str, int], dict[str, list[Evaluated]]] = defaultdict(
        lambda: defaultdict(list)
    )
    scores = defaultdict(list)
    parts = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            parts[row["way"], int(row["trials"]), row["seed"], row["fold"]].append(row)
    for (way, trials, seed, _), rows in parts.items():
        scores[way, trials].append(float(rows[0]["score"]))
        one = Evaluated(
            track_id=np.array([row["track_id"] for row in rows]),
            group=np.array([row["group"] for row in rows]),
            true=np.array([int(row["true"]) for row in rows]),
            predicted=np.array([int(row["predicted"]) for row in rows]),
            chunk_accuracy=0,
            chunks=len(rows),
        )
        found[way, trials][seed].append(one)
    runs = {key: [pooled(some) for some in seeds.values()] for key, seeds in found.items()}
    print("| best of | way | score that it was chosen by | test accuracy | minus the defaults |")
    print("|---|---|---|---|---|")
    for (way, trials), some in sorted(runs.items(), key=lambda item: (item[0][1], item[0][0])):
        interval = interval_over_runs(some)
        mean = np.mean([one.accuracy for one in some])
        gain = paired_difference(some, runs[way, 1], same_runs=True)
        print(
            f"| {trials} | {way} | {np.mean(scores[way, trials]):.1%} | {mean:.1%} "
            f"({interval.low:.1%} to {interval.high:.1%}) of {len(some[0].true)} | "
            f"{100 * gain.value:+.1f} ({100 * gain.low:.1f} to {100 * gain.high:.1f}) |"
        )


if __name__ == "__main__":
    main()
