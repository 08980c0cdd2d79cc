"""An ensemble as an ONNX file, checked against PyTorch.

    mgc-ray export --model results/gru-001/ensemble --onnx genres.onnx song.mp3

The file takes features; its metadata say how these are made from a song, and docs/onnx.md has a
program that does it without this one. It is checked on the songs that are given, else on one
generated song of each built-in genre.
"""

from collections.abc import Sequence

from mgc_ray.config import ExportConfig
from mgc_ray.pipeline.checks import check_export, register_files
from mgc_ray.terminal.command import console, print_json, run
from mgc_ray.terminal.options import parse
from mgc_ray.terminal.stopping import on_stop, start_again


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, export, check; status 1 where the file predicts differently."""
    parsed = parse(
        ExportConfig,
        argv,
        "export",
        "Write an ensemble as one ONNX file, and check it with onnxruntime.",
        json_help="Print the figures as one line.",
    )
    config = parsed.config
    register_files(config.family, config.feature_files)
    check_export(config.model, config.onnx, config.songs)
    on_stop(start_again)
    from mgc_ray.pipeline.export import LARGEST_DIFFERENCE, export

    exported = export(config)
    console.print(str(exported))
    if parsed.as_json:
        print_json(
            {
                "onnx": str(exported.path),
                "bytes": exported.size,
                "difference": exported.difference,
                "other_genre": exported.other_genre,
                "tracks": exported.songs,
            }
        )
    if not exported.agrees:
        console.print(
            f"the file must agree with PyTorch on all genres, and on probabilities within "
            f"{LARGEST_DIFFERENCE:g}, but it does not: do not use it",
            style="red",
        )
        return 1
    return 0


if __name__ == "__main__":
    run("mgc-ray export", main)
