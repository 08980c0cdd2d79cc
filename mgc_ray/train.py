"""Train one configuration, without Ray.

mgc-ray train --family gru --dataset DIR --out CHECKPOINT --set lr=0.0003
"""

import time
from collections.abc import Sequence

from mgc_ray import RequestError
from mgc_ray.config import TrainCommandConfig, memory_bytes
from mgc_ray.models import checked_params, one_family
from mgc_ray.pipeline.checks import check_checkpoint_folder, register_files
from mgc_ray.terminal.command import console, print_json, run
from mgc_ray.terminal.options import parse
from mgc_ray.terminal.stopping import on_stop


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, train, keep the best epoch."""
    parsed = parse(
        TrainCommandConfig,
        argv,
        "train",
        "Train one configuration, without Ray, and keep its best epoch.",
        json_help="Print the best epoch's metrics.",
    )
    config = parsed.config
    family = one_family(config.family)
    register_files((), config.feature_files)
    if (family == "transfer") != bool(config.init_from):
        raise RequestError(
            "--init-from MODEL and --family transfer need one another, but the family is "
            f"{family} and the weights are {config.init_from or 'not given'}"
        )
    given = checked_params(family, config.train)
    from mgc_ray.data.dataset import read_finished_info
    from mgc_ray.training.initial import check_initial

    check_checkpoint_folder(config.out)
    read_finished_info(config.dataset)
    if config.init_from:
        check_initial(config.init_from)
    # imports PyTorch, which takes seconds: a wrong setting or path should not
    from mgc_ray.data.chunks import open_chunks
    from mgc_ray.data.device import best_device
    from mgc_ray.pipeline.train import best_so_far, keep_best
    from mgc_ray.training.checkpoint import save_checkpoint
    from mgc_ray.training.epoch import Epoch
    from mgc_ray.training.initial import check_features, initial_params
    from mgc_ray.training.loop import train

    on_stop(lambda: best_so_far(config.out))
    start = initial_params(config.init_from) if config.init_from else {}
    params = {"seed": config.seed} | start | given
    chunks = open_chunks(config.dataset, ("train", "valid"), memory_bytes(config.memory))
    check_features(params, chunks.info.features)
    info, device, started = chunks.info, best_device(), time.perf_counter()

    def keep(epoch: Epoch) -> None:
        if config.out:
            save_checkpoint(config.out, epoch, family, params, info)

    epochs = train(family, params, chunks, device, metric=config.metric)
    about = f"on {device}, protocol {info.protocol}{' (leaky)' if info.leaky else ''}"
    best = keep_best(family, params, epochs, keep, about)
    if best is None:
        return 1
    console.print(
        f"best epoch {best.number}: track accuracy {best.metrics['val_track_accuracy']:.3f}, chunk "
        f"accuracy {best.metrics['val_chunk_accuracy']:.3f}, macro-F1 "
        f"{best.metrics['val_macro_f1']:.3f} on validation tracks; "
        f"{time.perf_counter() - started:.0f} s"
        + (f"; checkpoint in {config.out}" if config.out else "")
    )
    if parsed.as_json:
        print_json({"epoch": best.number, **best.metrics})
    return 0


if __name__ == "__main__":
    run("mgc-ray train", main)
