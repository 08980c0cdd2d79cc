"""What commands refuse at once: paths that are not there, places that cannot be written.

Imports neither PyTorch nor Ray, which take seconds; what they read themselves is checked again.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.config import SearchConfig
from mgc_ray.data.files import MissingFileError, check_output_file, check_output_folder
from mgc_ray.models import family_names
from mgc_ray.pipeline.library_table import check_keeps_embeddings
from mgc_ray.results import check_ensemble_folder, check_model, load_search
from mgc_ray.tuning.address import check_address


def register_files(families: Sequence[str], features: Sequence[str]) -> None:
    """Make known what `--family` and `--features` give as files; RequestError for what is none."""
    family_names(families)
    if features:
        from mgc_ray.data.features import named_features  # imports SciPy

        named_features(features)


def check_checkpoint_folder(out: Path | None) -> None:
    """Refuse a folder for a checkpoint that cannot be written, or that has one."""
    if out is None:
        return
    check_output_folder("--out", out)
    if (out / "config.json").exists():
        raise RequestError(f"--out {out} holds a checkpoint already: give another folder")


def check_dataset_folder(folder: Path) -> None:
    """Refuse a place where no dataset can be written, unless it has a finished one."""
    from mgc_ray.data.dataset import has_info, read_info  # imports SciPy

    with suppress(MissingFileError):  # of a feature that will be known when --features is read
        if not (has_info(folder) and read_info(folder).finished):
            check_output_folder("--dataset", folder)


def check_ensemble(searches: Sequence[Path], out: Path) -> None:
    """Refuse what `ensemble` cannot read or write."""
    check_output_folder("--out", out)
    check_output_folder("--out", out.absolute().parent)  # it is written there, then renamed
    check_ensemble_folder(out)
    for search in searches:
        load_search(search)


def check_export(model: str, onnx: Path, songs: Sequence[str]) -> None:
    """Refuse what `export` cannot read or write."""
    check_output_file("--onnx", onnx, ".onnx")
    check_given_model(model)
    for song in songs:
        if not os.path.exists(song):
            raise RequestError(f"{song}: no such file: give another song to check on")


def check_library(
    folder: Path,
    out: Path,
    playlists: Path | None,
    address: str = "",
    embeddings: bool = False,
) -> None:
    """Refuse what `predict --out` cannot read, write or reach, or what would be lost."""
    check_output_file("--out", out, ".parquet", ".csv")
    if embeddings and out.suffix.lower() == ".csv":
        raise RequestError(
            f"--embeddings needs a table in Parquet, but --out is {out}: give one that ends in "
            ".parquet"
        )
    if playlists:
        check_output_folder("--playlists", playlists)
    if not folder.is_dir():
        raise RequestError(
            f"{folder} is not a folder: with --out, give one folder with music in it"
        )
    if not any(folder.iterdir()):
        raise RequestError(f"{folder} has no file that may be a song (it is empty): give another")
    if not embeddings:
        check_keeps_embeddings(out)
    check_address(address)


def check_given_model(model: str) -> None:
    """Refuse `--model` where that is no model; without one it is that of the program."""
    if model:
        check_model(model)


def check_gpus(config: SearchConfig) -> None:
    """Refuse a search with GPUs on this machine where that certainly has none; Ray takes long."""
    wanted = config.tuning.gpus_per_trial
    elsewhere = config.cluster.address or "RAY_ADDRESS" in os.environ
    runs_already = "ray" in sys.modules  # in a library's process, and may be connected anywhere
    if wanted and not elsewhere and not runs_already and _has_no_gpu():
        raise RequestError(
            f"--gpus-per-trial must be at most the cluster's GPUs (0 on this machine), but it is "
            f"{wanted:g}: leave it out, or give a cluster that has them with --address"
        )


def _has_no_gpu() -> bool:
    """Whether Ray will find no GPU here: there is no device that could be one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return True
    devices = ("nvidia[0-9]*", "dxg", "kfd", "dri/render*", "mxcd")  # of all makers that Ray knows
    return sys.platform == "linux" and not any(
        device for pattern in devices for device in Path("/dev").glob(pattern)
    )
