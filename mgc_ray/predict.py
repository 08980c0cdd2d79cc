"""Genres of any audio files, with probabilities, from a saved ensemble; without Ray.

    python -m mgc_ray.predict song.mp3
    python -m mgc_ray.predict --model results/gru-001/ensemble song.mp3

Without --model: by the ensemble that comes with the program, of GTZAN's ten genres.
"""

from typing import Any

from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.ensembling.artefact import load_ensemble, shipped_model
from mgc_ray.terminal.command import Parser, console, print_json, run

_SHOWN = 3


def main() -> int:
    """Parse the command line, predict each file; status 1 where one could not be read."""
    parser = Parser(
        prog="python -m mgc_ray.predict",
        description="Genres of audio files (WAV, AU, FLAC, MP3, OGG, of any length), or of .npy "
        "spectrograms where the model was trained on such.",
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        help="an ensemble or a checkpoint (default: the ensemble that comes with the program)",
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument(
        "--json", action="store_true", help="one line: a list of {file, genres} or {file, error}"
    )
    args = parser.parse_args()
    ensemble = load_ensemble(args.model or shipped_model())
    answers: list[dict[str, Any]] = []
    for file in args.files:
        try:
            genres = ensemble.predict(file)
        except UnusableTrackError as error:
            answers.append({"file": file, "error": str(error)})
            console.print(f"{file}: error: {error}", style="red", markup=False)
            continue
        answers.append({"file": file, "genres": genres})
        if not args.json:
            best = list(genres.items())[:_SHOWN]
            print(f"{file}: " + ", ".join(f"{name} {share:.1%}" for name, share in best))
    if args.json:
        print_json(answers)
    return 1 if any("error" in answer for answer in answers) else 0


if __name__ == "__main__":
    run("mgc_ray.predict", main)
