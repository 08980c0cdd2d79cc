"""One configuration in repeated cross-validation, for comparing configurations with one another.

    python tests/benchmarks/cross_validate.py DATASET --family discriminant --set shrinkage=0.2 \\
        --folds 5 --seeds 0 1 2 3

The tracks of the training and validation parts are split into folds by group (artist); each fold is
predicted by a model that was trained on the others and on what was added to the training part.
Nothing is chosen during this: no early stopping, the last epoch counts. Printed: track accuracy
over all folds of each seed, their mean and deviation.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mgc_ray.data.chunks import open_chunks
from mgc_ray.data.split.folds import draw_folds
from mgc_ray.evaluation.metrics import accuracy, track_probs
from mgc_ray.models import checked_params, family_names
from mgc_ray.training.batches import batches
from mgc_ray.training.epoch import predict_probs
from mgc_ray.training.initial import initial_params
from mgc_ray.training.loop import train


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--family", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--init-from", metavar="DIR", help="weights of the family transfer")
    args = parser.parse_args()
    (family,) = family_names([args.family])
    params = initial_params(args.init_from) if args.init_from else {}
    params |= checked_params(family, dict(text.split("=", 1) for text in args.set))
    chunks = open_chunks(args.dataset, ("train", "valid"))
    accuracies, started = [], time.perf_counter()
    for seed in args.seeds:
        fold_of = np.asarray(draw_folds(chunks.tracks, args.folds, seed))[chunks.track]
        probs = np.zeros((len(fold_of), len(chunks.info.genres)))
        for fold in range(args.folds):
            parts = replace(chunks, split=np.where(fold_of == fold, "valid", "train"))
            settings = params | {"seed": seed, "patience": 10_000}
            *_, last = train(family, settings, parts)
            rows = np.flatnonzero(fold_of == fold)
            source = batches(parts, last.classifier.names, torch.device("cpu"))
            probs[rows] = predict_probs(last.classifier, source, rows)
        held = np.flatnonzero(fold_of >= 0)
        tracks, by_track = track_probs(probs[held], chunks.track[held])
        accuracies.append(accuracy(by_track.argmax(1), chunks.track_genre[tracks]))
    settings = " ".join(args.set) or "the defaults"
    if args.init_from:
        settings += f", from {args.init_from}"
    shown = ", ".join(f"{one:.1%}" for one in accuracies)
    spread = f", deviation {100 * np.std(accuracies, ddof=1):.1f}" if len(accuracies) > 1 else ""
    print(
        f"{family}, {settings}: {np.mean(accuracies):.1%} of {len(tracks)} tracks ({shown}"
        f"{spread}), {time.perf_counter() - started:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
