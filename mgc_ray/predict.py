"""Genres of any audio files, with probabilities, from a saved ensemble.

    python -m mgc_ray.predict song.mp3
    python -m mgc_ray.predict --model results/gru-001/ensemble song.mp3
    python -m mgc_ray.predict MUSIC --out genres.parquet --playlists playlists

Without --model: by the ensemble that comes with the program, of GTZAN's ten genres. Files are
predicted in this process, without Ray; a folder with --out on all cores, or on a cluster. The table
has a row a file: path (below the folder; bytes that are no UTF-8 as \\xNN), genre, probability,
prob_GENRE of each genre, and the reason where a file could not be read. Run again, it does what is
new or has changed, and tries again what could not be read; exit status 1 while there is any.
"""

import time
from pathlib import Path
from typing import Any

from mgc_ray.terminal.command import Parser, console, count_of, print_json, run, stopped_by

_SHOWN = 3
_REASONS_SHOWN = 5


def main() -> int:
    """Parse the command line, predict; status 1 where a file could not be read."""
    parser = Parser(
        prog="python -m mgc_ray.predict",
        description="Genres of audio files (WAV, AU, FLAC, MP3, OGG, of any length), or of .npy "
        "spectrograms where the model was trained on such; or, with --out, of a whole library.",
    )
    add = parser.add_argument
    add(
        "--model",
        metavar="DIR",
        help="an ensemble or a checkpoint (default: the ensemble that comes with the program)",
    )
    add("files", nargs="+", metavar="FILE_OR_FOLDER", help="files; with --out one folder")
    add(
        "--out",
        type=Path,
        metavar="TABLE",
        help="predict all that lies in a folder on all cores, a row a file, into this .parquet or "
        ".csv; again, it does what is new",
    )
    add("--playlists", type=Path, metavar="DIR", help="with --out: an M3U playlist a genre there")
    add("--address", help="with --out: a Ray cluster, e.g. ray-head:6379")
    add("--json", action="store_true", help="one line: a list of {file, genres} or {file, error}")
    args = parser.parse_args()
    if args.out:
        if len(args.files) != 1:
            parser.error(f"--out is for one folder, but {len(args.files)} are named")
        return _library(Path(args.files[0]), args)
    for name in ("playlists", "address"):
        if getattr(args, name):
            parser.error(f"--{name} is for a whole library: name one folder and --out TABLE")
    folders = [file for file in args.files if Path(file).is_dir()]
    if folders:
        parser.error(f"{folders[0]} is a folder: add --out genres.parquet to predict all in it")
    return _files(args.files, args.model, args.json)


def _files(files: list[str], model: str | None, as_json: bool) -> int:
    from mgc_ray.data.audio import UnusableTrackError
    from mgc_ray.ensembling.artefact import load_ensemble, shipped_model

    ensemble = load_ensemble(model or shipped_model())
    answers: list[dict[str, Any]] = []
    for file in files:
        try:
            genres = ensemble.predict(file)
        except UnusableTrackError as error:
            answers.append({"file": file, "error": str(error)})
            console.print(f"{file}: error: {error}", style="red", markup=False)
            continue
        answers.append({"file": file, "genres": genres})
        if not as_json:
            best = list(genres.items())[:_SHOWN]
            print(f"{file}: " + ", ".join(f"{name} {share:.1%}" for name, share in best))
    if as_json:
        print_json(answers)
    return 1 if any("error" in answer for answer in answers) else 0


def _library(folder: Path, args: Any) -> int:
    from mgc_ray.ensembling.artefact import shipped_model
    from mgc_ray.jobs.library import predict_library

    started = time.monotonic()
    try:
        found = predict_library(
            folder, args.out, args.model or shipped_model(), args.address, args.playlists
        )
    except KeyboardInterrupt:
        console.print(f"stopped by {stopped_by()}: the same command again goes on where it stopped")
        return 130
    for path, reason in found.unread[:_REASONS_SHOWN]:
        console.print(f"{path}: {reason}", style="red", markup=False)
    counts = ", ".join(f"{count} {genre}" for genre, count in found.genres.items())
    console.print(
        f"{count_of(found.files, 'file')} ({found.known} known before) in "
        f"{time.monotonic() - started:.0f} s: "
        f"{counts or 'no song'}; {len(found.unread)} could not be read"
        f"{f' (why: column reason of {args.out})' if found.unread else ''}",
        markup=False,
    )
    if args.json:
        print_json(
            {"files": found.files, "known": found.known, "genres": found.genres}
            | {"unread": len(found.unread), "out": str(args.out)}
        )
    return 1 if found.unread else 0


if __name__ == "__main__":
    run("mgc_ray.predict", main)
