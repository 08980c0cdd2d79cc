"""One configuration in repeated cross-validation, for comparing configurations with one another.

    python tests/benchmarks/cross_validate.py DATASET --family discriminant --set shrinkage=0.2 \\
        --folds 5 --seeds 0 1 2 3

The tracks of the training and validation parts are parted into folds by group (artist); each fold
is predicted by a model that was trained on the others and on what was added to the training part.
Nothing is chosen on the way: no early stopping, the last epoch counts. Printed: track accuracy over
all folds of each seed, their mean and deviation.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mgc_ray.data.chunks import open_chunks
from mgc_ray.data.split import draw_folds
from mgc_ray.training.batches import batches
from mgc_ray.training.config import parse_setting
from mgc_ray.training.initial import initial_params
from mgc_ray.training.loop import predict_probs, train
from mgc_ray.training.metrics import accuracy, track_probs


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
    params = initial_params(args.init_from) if args.init_from else {}
    params |= dict(parse_setting(args.family, text) for text in args.set)
    chunks = open_chunks(args.dataset, ("train", "valid"))
    figures, started = [], time.perf_counter()
    for seed in args.seeds:
        fold_of = np.asarray(draw_folds(chunks.tracks, args.folds, seed))[chunks.track]
        probs = np.zeros((len(fold_of), len(chunks.info.genres)))
        for fold in range(args.folds):
            parts = replace(chunks, split=np.where(fold_of == fold, "valid", "train"))
            settings = params | {"seed": seed, "patience": 10_000}
            *_, last = train(args.family, settings, parts)
            rows = np.flatnonzero(fold_of == fold)
            probs[rows] = predict_probs(last.classifier, batches(parts, torch.device("cpu")), rows)
        held = np.flatnonzero(fold_of >= 0)
        tracks, by_track = track_probs(probs[held], chunks.track[held])
        figures.append(accuracy(by_track.argmax(1), chunks.track_genre[tracks]))
    settings = " ".join(args.set) or "the defaults"
    if args.init_from:
        settings += f", from {args.init_from}"
    shown = ", ".join(f"{figure:.1%}" for figure in figures)
    spread = f", deviation {100 * np.std(figures, ddof=1):.1f}" if len(figures) > 1 else ""
    print(
        f"{args.family}, {settings}: {np.mean(figures):.1%} of {len(tracks)} tracks ({shown}"
        f"{spread}), {time.perf_counter() - started:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
