"""Turn a folder or table of music into a dataset, in parallel.

mgc-ray preprocess --tracks FOLDER_OR_CSV --dataset DIR
"""

from collections import Counter
from collections.abc import Sequence

from mgc_ray import RequestError
from mgc_ray.config import PreprocessConfig
from mgc_ray.pipeline.checks import check_dataset_folder
from mgc_ray.pipeline.request import dataset_defaults
from mgc_ray.settings import as_json
from mgc_ray.terminal.command import console, count_of, print_json, print_warnings, run
from mgc_ray.terminal.options import parse
from mgc_ray.terminal.stopping import on_stop
from mgc_ray.tuning.address import check_address


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, preprocess, print what was made."""
    parsed = parse(
        PreprocessConfig,
        argv,
        "preprocess",
        "Turn a folder or table of music into a dataset, in parallel.",
        json_help="Print dataset.json on standard output.",
        complete=dataset_defaults,
    )
    config = parsed.config
    if not config.dataset.tracks:
        raise RequestError("--tracks is needed: a folder with one subfolder per genre, or a CSV")
    check_dataset_folder(config.folder)
    check_address(config.cluster.address)
    # imports SciPy, for features, which takes a while: a wrong option should not
    from mgc_ray.data.dataset import read_dataset_tracks
    from mgc_ray.pipeline.preprocess import preprocess
    from mgc_ray.pipeline.tables import read_tables

    on_stop(lambda: ": the same command again does only what is missing")
    tables = read_tables(config.dataset)
    info = preprocess(tables, config.folder, config.cluster, config.overwrite)
    tracks, places = read_dataset_tracks(config.folder)
    chunks = sum(place.chunks for place in places)
    parts = Counter(track.split or "split by chunk" for track in tracks)
    genres = f"of {len(info.genres)} genres" if info.genres else "without genres"
    added = sum(track.added for track in tracks)
    console.print(
        f"{count_of(info.tracks, 'track')} {genres}, {count_of(chunks, 'chunk')} "
        f"({info.features}) in {config.folder}\n"
        f"split {info.protocol_in_words}, seed {info.seed}: "
        + ", ".join(f"{count} {name}" for name, count in sorted(parts.items()))
        + (f" ({added} of train were added)" if added else "")
    )
    print_warnings(info.warnings)
    if parsed.as_json:
        print_json(as_json(info) | {"chunks": chunks})
    return 0


if __name__ == "__main__":
    run("mgc-ray preprocess", main)
