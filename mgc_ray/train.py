"""Train one configuration, without Ray.

python -m mgc_ray.train --family gru --dataset DIR --out CHECKPOINT --set lr=0.0003
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mgc_ray import RequestError
from mgc_ray.data.chunks import StreamedChunks, open_chunks
from mgc_ray.models import families, family_module
from mgc_ray.models._classifier import count_parameters
from mgc_ray.terminal.command import Parser, console, gibibytes, print_json, run, seed
from mgc_ray.terminal.progress import progress
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.config import configure, parse_setting
from mgc_ray.training.initial import check_features, initial_params
from mgc_ray.training.loop import METRIC, Epoch, NonFiniteLossError, best_device, train


def keep_best(
    what: str,
    epochs: Iterator[Epoch],
    max_epochs: int,
    metric: str,
    keep: Callable[[Epoch], None],
    about: str,
) -> dict[str, Any]:
    """Run a training with a progress bar and `keep` each best epoch; the best one's metrics.

    {} where training diverged before the first epoch had ended. `about`: what is told once.
    """
    best: dict[str, Any] = {}
    with progress(what, max_epochs, "epochs") as advance:
        try:
            for epoch in epochs:
                if epoch.number == 1:
                    parameters = count_parameters(epoch.classifier)
                    console.print(f"{what}, {parameters:,} parameters, {about}", markup=False)
                if epoch.best:
                    best = {"epoch": epoch.number, **epoch.metrics}
                    keep(epoch)
                advance(epoch.number, f"best {metric} {best[metric]:.3f}")
        except NonFiniteLossError as error:
            console.print(f"training has diverged: {error}", style="red", markup=False)
    return best


def main() -> int:
    """Parse the command line, train, keep the best epoch."""
    parser = Parser(
        prog="python -m mgc_ray.train",
        description="Train one configuration, without Ray, and keep its best epoch.",
    )
    parser.add_argument("--family", required=True, help=f"one of {', '.join(families())}")
    parser.add_argument("--dataset", required=True, metavar="DIR", help="what preprocess made")
    parser.add_argument("--out", metavar="DIR", help="where to write the checkpoint")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting; repeatable"
    )
    parser.add_argument(
        "--init-from", metavar="DIR", help="weights that the family transfer starts from"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of weights and batches")
    parser.add_argument(
        "--memory",
        type=gibibytes,
        metavar="GIB",
        help="spectrograms that take more are streamed from disk (default: a quarter of memory)",
    )
    parser.add_argument("--json", action="store_true", help="print the best epoch's metrics")
    args = parser.parse_args()

    family_module(args.family)
    if args.init_from and args.family != "transfer":
        raise RequestError(f"--init-from needs --family transfer, not {args.family}")
    params = {"seed": args.seed} | (initial_params(args.init_from) if args.init_from else {})
    params |= dict(parse_setting(args.family, s) for s in args.set)
    settings = configure(args.family, params)[1]
    if args.out and (Path(args.out) / "config.json").exists():
        raise RequestError(f"--out {args.out} holds a checkpoint already: name another folder")
    if args.out:
        Path(args.out).mkdir(parents=True, exist_ok=True)  # refused now, not after an epoch
    chunks = open_chunks(args.dataset, ("train", "valid"), args.memory)
    check_features(params, chunks.info.features)
    if isinstance(chunks, StreamedChunks):
        console.print(f"{chunks.nbytes / 2**30:.1f} GiB of spectrograms are streamed from disk")
    device = best_device()
    info = chunks.info
    started = time.perf_counter()

    def keep(epoch: Epoch) -> None:
        if args.out:
            save_checkpoint(Path(args.out), epoch, args.family, params, info)

    best = keep_best(
        args.family,
        train(args.family, params, chunks, device),
        settings.max_epochs,
        METRIC,
        keep,
        f"on {device}, protocol {info.protocol}{' (leaky)' if info.leaky else ''}",
    )
    if not best:
        return 1
    console.print(
        f"best epoch {best['epoch']}: track accuracy {best[METRIC]:.3f}, chunk accuracy "
        f"{best['val_chunk_accuracy']:.3f}, macro-F1 {best['val_macro_f1']:.3f} on validation "
        f"tracks; {time.perf_counter() - started:.0f} s"
        + (f"; checkpoint in {args.out}" if args.out else "")
    )
    if args.json:
        print_json(best)
    return 0


if __name__ == "__main__":
    run("mgc_ray.train", main)
