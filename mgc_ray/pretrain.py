"""Weights to start from, learnt from recordings without genres; without Ray.

python -m mgc_ray.preprocess --tracks FOLDER --protocol unlabelled --chunk-seconds 30 --dataset DATA
python -m mgc_ray.pretrain --family gru --dataset DATA --out DIR
python -m mgc_ray.search --family transfer --init-from DIR --tracks YOUR_FOLDER

The recordings need no labels (see training/pretraining.py for what is learnt from them). To start
from labelled music instead, train on it (mgc_ray.train, mgc_ray.search) and name that checkpoint or
ensemble by --init-from.
"""

import time
from pathlib import Path
from typing import Any

from mgc_ray import RequestError
from mgc_ray.data.chunks import open_chunks
from mgc_ray.models import families, family_module
from mgc_ray.terminal.command import Parser, console, gibibytes, print_json, run, seed
from mgc_ray.train import keep_best
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.config import configure, parse_setting
from mgc_ray.training.loop import best_device
from mgc_ray.training.pretraining import METRIC, pretrain

TASK = "crops of one recording"  # as it stands in `trained_on`
# Long training on small crops, strongly augmented: two crops are told apart too easily otherwise.
DEFAULTS: dict[str, Any] = {
    "max_epochs": 60,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "warmup_epochs": 2,
    "batch_size": 128,
    "crop": 0.25,
    "pitch_shift": 3.0,
    "time_stretch": 0.15,
    "gain": 0.3,
    "tilt": 0.3,
    "mixup": 0.0,
}


def main() -> int:
    """Parse the command line, pre-train, keep the best epoch."""
    parser = Parser(
        prog="python -m mgc_ray.pretrain",
        description="Learn weights from recordings without genres, for --init-from.",
    )
    add = parser.add_argument
    add("--family", default="gru", help=f"one of {', '.join(families())}")
    add(
        "--dataset", required=True, metavar="DIR", help="what preprocess --protocol unlabelled made"
    )
    add("--out", required=True, metavar="DIR", help="where to write the weights")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting; repeatable")
    add("--seed", type=seed, default=0, help="seed of weights and batches")
    add("--memory", type=gibibytes, metavar="GIB", help="spectrograms that take more are streamed")
    add("--json", action="store_true", help="print the best epoch's metrics")
    args = parser.parse_args()
    family_module(args.family)
    if args.family == "transfer":
        raise RequestError(
            "--family must be a network of its own, but it is transfer, which starts from one: "
            "name another"
        )
    params = DEFAULTS | {"seed": args.seed} | dict(parse_setting(args.family, s) for s in args.set)
    settings = configure(args.family, params)[1]
    out = Path(args.out)
    if (out / "config.json").exists():
        raise RequestError(f"--out {out} holds a checkpoint already: name another folder")
    out.mkdir(parents=True, exist_ok=True)  # refused now, not after an epoch
    chunks = open_chunks(args.dataset, ("train", "valid"), args.memory)
    device = best_device()
    started = time.perf_counter()
    best = keep_best(
        args.family,
        pretrain(args.family, params, chunks, device),
        settings.max_epochs,
        METRIC,
        lambda e: save_checkpoint(out, e, args.family, params, chunks.info, TASK),
        f"on {device}, {len(chunks.tracks)} recordings",
    )
    if not best:
        return 1
    console.print(
        f"best epoch {best['epoch']}: of a validation recording's two crops, the other is found "
        f"again among all in {best[METRIC]:.1%}; {time.perf_counter() - started:.0f} s\n"
        f"start from it: python -m mgc_ray.search --family transfer --init-from {out}",
        markup=False,
    )
    if args.json:
        print_json(best)
    return 0


if __name__ == "__main__":
    run("mgc_ray.pretrain", main)
