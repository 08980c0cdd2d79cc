"""Write the built-in corpus: python -m mgc_ray.synth --out DIR --tracks-per-genre N --seed S.

Ten genres of synthesised music as OUT/GENRE/GENRE.00000.wav with a track table OUT/tracks.csv, for
when GTZAN cannot be had. About 0.15 s of one core a track of 30 s; an interrupted run goes on where
it stopped when the same command is given again.
"""

import argparse
import sys
from pathlib import Path

from mgc_ray.data.synth import GENRES, write_corpus


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 2 (a bad request) or 130 (Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="mgc_ray.synth", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the corpus to")
    parser.add_argument("--tracks-per-genre", type=int, required=True, help=f"{len(GENRES)} genres")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another corpus")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a track")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    options = parser.parse_args(argv)
    try:
        table = write_corpus(
            options.out,
            options.tracks_per_genre,
            options.seed,
            options.seconds,
            options.workers,
            _show_progress,
        )
    except ValueError as error:
        print(f"mgc_ray.synth: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mgc_ray.synth: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    tracks = len(GENRES) * options.tracks_per_genre
    print(f"{tracks} tracks of {options.seconds:g} s in {len(GENRES)} genres: {table}")
    return 0


def _show_progress(done: int, total: int) -> None:
    """A line that rewrites itself on a terminal; in a log, one line every tenth of the way."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} tracks", end="\n" if done == total else "", file=sys.stderr)
    elif done == total or done % max(1, total // 10) == 0:
        print(f"{done}/{total} tracks", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
