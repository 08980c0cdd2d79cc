"""Write the built-in corpus: ten genres of synthesised music, with a track table.

    python -m mgc_ray.synth --out DIR --tracks-per-genre 30

About 0.15 s of one core a track of 30 s; an interrupted run goes on where it stopped.
"""

from pathlib import Path

from mgc_ray.data.corpus import write_corpus
from mgc_ray.data.synth import GENRES
from mgc_ray.terminal.command import Parser, console, positive_int, run, seed
from mgc_ray.terminal.progress import progress


def main() -> int:
    """Parse the command line, write the corpus, say where it is."""
    parser = Parser(
        prog="python -m mgc_ray.synth",
        description="Write the built-in corpus: OUT/GENRE/GENRE.00000.wav and OUT/tracks.csv. Same "
        "seed, same samples.",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where to write it")
    add("--tracks-per-genre", type=positive_int, required=True, metavar="N", help="of ten genres")
    add("--seed", type=seed, default=0, help="another seed is another corpus")
    add("--seconds", type=float, default=30.0, help="length of a track")
    add("--workers", type=positive_int, help="processes (default: one a core)")
    args = parser.parse_args()
    total = len(GENRES) * args.tracks_per_genre
    with progress("writing", total, "tracks") as advance:
        table = write_corpus(
            args.out,
            args.tracks_per_genre,
            args.seed,
            args.seconds,
            args.workers,
            lambda done, _: advance(done),
        )
    console.print(f"{total} tracks of {args.seconds:g} s in {len(GENRES)} genres: {table}")
    return 0


if __name__ == "__main__":
    run("mgc_ray.synth", main)
