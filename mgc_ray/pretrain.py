"""Weights to start from, learnt from recordings without genres; without Ray.

mgc-ray preprocess --tracks FOLDER --protocol unlabelled --chunk-seconds 30 --dataset DATA
mgc-ray pretrain --family gru --dataset DATA --out DIR
mgc-ray search --family transfer --init-from DIR --tracks YOUR_FOLDER

The recordings need no labels (training/pretraining.py says what is learnt from them). To start from
labelled music instead, train on it (mgc_ray.train, mgc_ray.search) and give that checkpoint or
ensemble as --init-from.
"""

import time
from collections.abc import Sequence

from mgc_ray.config import PretrainConfig, memory_bytes
from mgc_ray.models import checked_params, one_family
from mgc_ray.pipeline.checks import check_checkpoint_folder, register_files
from mgc_ray.terminal.command import console, print_json, run, typed
from mgc_ray.terminal.options import parse
from mgc_ray.terminal.stopping import on_stop

TASK = "crops of one recording"  # as recorded in `trained_on`


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, pre-train, keep the best epoch."""
    parsed = parse(
        PretrainConfig,
        argv,
        "pretrain",
        "Learn weights from recordings without genres, for --init-from.",
        json_help="Print the best epoch's metrics.",
    )
    config = parsed.config
    family = one_family(config.family)
    register_files((), config.feature_files)
    given = checked_params(family, config.train)
    from mgc_ray.data.dataset import read_finished_info

    check_checkpoint_folder(config.out)
    read_finished_info(config.dataset)
    # imports PyTorch, which takes seconds: a wrong setting or path should not
    from mgc_ray.data.chunks import open_chunks
    from mgc_ray.data.device import best_device
    from mgc_ray.pipeline.train import best_so_far, keep_best
    from mgc_ray.training.checkpoint import save_checkpoint
    from mgc_ray.training.pretraining import DEFAULTS, RETRIEVAL, check_pretraining, pretrain

    on_stop(lambda: best_so_far(config.out))
    check_pretraining(family, given)
    params = DEFAULTS | {"seed": config.seed} | given
    chunks = open_chunks(config.dataset, ("train", "valid"), memory_bytes(config.memory))
    device, started = best_device(), time.perf_counter()
    best = keep_best(
        family,
        params,
        pretrain(family, params, chunks, device),
        lambda epoch: save_checkpoint(config.out, epoch, family, params, chunks.info, TASK),
        f"on {device}, {len(chunks.tracks)} recordings",
    )
    if best is None:
        return 1
    console.print(
        f"best epoch {best.number}: for {best.metrics[RETRIEVAL]:.1%} of the validation crops the "
        f"nearest other crop is of the same recording; {time.perf_counter() - started:.0f} s\n"
        f"start from it: {typed('search')} --family transfer --init-from {config.out}"
    )
    if parsed.as_json:
        print_json({"epoch": best.number, **best.metrics})
    return 0


if __name__ == "__main__":
    run("mgc-ray pretrain", main)
