"""An ensemble as an ONNX file, checked against PyTorch.

    python -m mgc_ray.export --model results/gru-001/ensemble --onnx genres.onnx song.mp3

The file takes spectrograms; what makes these of a song is written into its metadata. With songs the
check is made on them, else on one generated song of each built-in genre.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mgc_ray.terminal.command import Parser, console, count_of, print_json, run

_FURTHEST = 1e-4  # of a probability


def main() -> int:
    """Parse the command line, export, check; status 1 where the file does not say the same."""
    parser = Parser(
        prog="python -m mgc_ray.export",
        description="Write an ensemble as one ONNX file, and check it with onnxruntime.",
    )
    add = parser.add_argument
    add(
        "--model",
        metavar="DIR",
        help="an ensemble or a checkpoint (default: the ensemble that comes with the program)",
    )
    add("--onnx", type=Path, required=True, metavar="FILE", help="where to write it")
    add("songs", nargs="*", metavar="SONG", help="what to check it on")
    add("--json", action="store_true", help="print the figures as one line")
    args = parser.parse_args()
    from mgc_ray.ensembling.artefact import load_ensemble, shipped_model
    from mgc_ray.ensembling.onnx import check_onnx, export_onnx, largest_difference

    check_onnx(args.onnx)
    ensemble = load_ensemble(args.model or shipped_model())
    tracks = list(_tracks(ensemble, args.songs))
    console.print(f"exporting {count_of(len(ensemble.members), 'member')}", markup=False)
    started = time.monotonic()
    export_onnx(ensemble, args.onnx)
    seconds = time.monotonic() - started
    difference, other = largest_difference(ensemble, args.onnx, tracks)
    size, kind = args.onnx.stat().st_size, "song" if args.songs else "generated song"
    console.print(
        f"{args.onnx}: {size / 1e6:.1f} MB in {seconds:.0f} s; checked on "
        f"{count_of(len(tracks), kind)}: probabilities differ from PyTorch's by at "
        f"most {difference:.1e}, "
        + (f"the genre in {other}" if other else "the genre is always the same"),
        markup=False,
    )
    if args.json:
        figures = {"difference": difference, "other_genre": other, "tracks": len(tracks)}
        print_json({"onnx": str(args.onnx), "bytes": size, **figures})
    if difference > _FURTHEST or other:
        console.print(f"that is more than {_FURTHEST:g}: do not use it", style="red")
        return 1
    return 0


def _tracks(ensemble: Any, songs: list[str]) -> Iterator[Any]:
    """Spectrograms of each song, or of generated ones where none is named."""
    from mgc_ray import RequestError
    from mgc_ray.data.audio import UnusableTrackError

    if songs:
        for song in songs:
            try:
                yield ensemble.features.chunks(song)
            except UnusableTrackError as error:
                raise RequestError(f"{song}: {error}: name another to check on") from None
        return
    from mgc_ray.data.corpus import write_track
    from mgc_ray.data.synth import GENRES

    with tempfile.TemporaryDirectory() as folder:
        for genre in GENRES:
            path = Path(folder) / f"{genre}.wav"
            write_track(path, genre, 0, 0, 30.0)
            try:
                yield ensemble.features.chunks(path)
            except UnusableTrackError as error:
                raise RequestError(
                    f"the check needs tracks, as this model takes no audio ({error}): name .npy "
                    "files of its kind"
                ) from None


if __name__ == "__main__":
    run("mgc_ray.export", main)
