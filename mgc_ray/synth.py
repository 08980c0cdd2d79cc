"""Write the built-in corpus: ten genres of synthesised music, with a track table.

    mgc-ray synth --out DIR --tracks-per-genre 30

About 0.15 s of one core per track of 30 s; an interrupted run continues where it stopped.
"""

from collections.abc import Sequence

from mgc_ray.config import SynthConfig
from mgc_ray.data.files import check_output_folder
from mgc_ray.terminal.command import console, run
from mgc_ray.terminal.options import parse
from mgc_ray.terminal.progress import progress
from mgc_ray.terminal.stopping import on_stop


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, write the corpus, print where it is."""
    config = parse(
        SynthConfig,
        argv,
        "synth",
        "Write the built-in corpus: OUT/GENRE/GENRE.00000.wav and OUT/tracks.csv. The same seed "
        "gives the same samples.",
    ).config
    check_output_folder("--out", config.out)
    on_stop(lambda: ": the same command again continues")
    from mgc_ray.corpus.composer import GENRES
    from mgc_ray.corpus.files import write_corpus

    total = len(GENRES) * config.tracks_per_genre
    with progress("writing", total, "tracks") as advance:
        table = write_corpus(
            config.out,
            config.tracks_per_genre,
            config.seed,
            config.seconds,
            config.workers,
            lambda done, _: advance(done),
        )
    console.print(f"{total} tracks of {config.seconds:g} s in {len(GENRES)} genres: {table}")
    return 0


if __name__ == "__main__":
    run("mgc-ray synth", main)
