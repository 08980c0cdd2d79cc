"""The songs of a library that are most like one song.

    mgc-ray predict MUSIC --out songs.parquet --embeddings
    mgc-ray similar rock/song.mp3 --in songs.parquet
    mgc-ray similar ~/Downloads/new.mp3 --in songs.parquet --playlist like_new.m3u8

A song that the table lists is found at once, by its path in the table or as a file. Any other file
is read and embedded by the ensemble that made the table; it must be the same, as embeddings of
different ensembles are not comparable. What a similarity means: see `predict`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mgc_ray.config import SimilarConfig
from mgc_ray.models import family_names
from mgc_ray.settings import as_json, configured_by
from mgc_ray.terminal.command import console, print_json, print_line, run
from mgc_ray.terminal.options import parse

if TYPE_CHECKING:
    from mgc_ray.pipeline.similar import SimilarSongs


@configured_by(SimilarConfig)
def similar(config: SimilarConfig) -> "SimilarSongs":
    """The songs of a library's table that are most like one song, the most similar one first.

    Raises RequestError for a table without embeddings, for a song that is neither a file nor in the
    table, and for another model than that of the table.
    """
    from mgc_ray.pipeline.similar import find_similar

    family_names(config.family)
    return find_similar(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, list similar songs."""
    parsed = parse(
        SimilarConfig,
        argv,
        "similar",
        "List the songs of a library that are most like one song, with their similarity (1: the "
        "same), path, genre and artist.",
        json_help="Print one line: {song, songs: [{rank, similarity, path, genre, artist}]}.",
    )
    config = parsed.config
    family_names(config.family)
    from mgc_ray.pipeline.similar import find_similar

    found = find_similar(config)
    if parsed.as_json:
        print_json(as_json(found))
    else:
        for one in found.songs:
            known = ", ".join(filter(None, (one.genre, one.artist)))
            print_line(f"{one.rank:3} {one.similarity:6.3f} {one.path} ({known})")
    if config.playlist:
        console.print(f"saved in {config.playlist}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run("mgc-ray similar", main)
