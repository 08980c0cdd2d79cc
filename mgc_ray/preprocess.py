"""Turn a folder or table of music into a dataset, in parallel.

python -m mgc_ray.preprocess --tracks FOLDER_OR_CSV --dataset DIR
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from mgc_ray.data.dataset import describe, read_track_rows
from mgc_ray.data.options import STORAGE_HELP, add_dataset_options, dataset_request
from mgc_ray.data.storage import Storage
from mgc_ray.jobs.preprocess import preprocess
from mgc_ray.terminal.command import Parser, console, count_of, print_json, run, stopped_by


def main() -> int:
    """Parse the command line, preprocess, print what was made."""
    parser = Parser(
        prog="python -m mgc_ray.preprocess",
        description="Turn a folder or table of music into a dataset, in parallel.",
    )
    add_dataset_options(parser, "--seed")
    parser.add_argument("--dataset", required=True, metavar="DIR", help="where to write it")
    parser.add_argument("--anew", action="store_true", help="delete what DIR holds and start anew")
    parser.add_argument("--address", help="a Ray cluster, e.g. ray-head:6379")
    parser.add_argument("--storage", metavar="URI", help=STORAGE_HELP)
    parser.add_argument(
        "--gpu", action="store_true", help="make the spectrograms on the cluster's GPUs"
    )
    parser.add_argument("--json", action="store_true", help="print dataset.json on standard output")
    args = parser.parse_args()
    if not args.tracks:
        parser.error("--tracks is needed: a folder with a subfolder a genre, or a CSV")
    try:
        info = preprocess(
            dataset_request(args),
            args.dataset,
            args.anew,
            args.address,
            args.gpu,
            Storage(args.storage) if args.storage else None,
        )
    except KeyboardInterrupt:
        console.print(
            f"stopped by {stopped_by()}: the same command again does only what is missing"
        )
        return 130
    tracks, found = read_track_rows(Path(args.dataset))
    chunks = sum(inspection.chunks for inspection in found)
    parts = Counter(track.split or "split by chunk" for track in tracks)
    genres = f"of {len(info.genres)} genres" if info.genres else "without genres"
    added = sum(track.is_added for track in tracks)
    console.print(
        f"{count_of(info.tracks, 'track')} {genres}, {count_of(chunks, 'chunk')} "
        f"({describe(info.features)}) in {args.dataset}\n"
        f"split {info.protocol_in_words}, seed {info.seed}: "
        + ", ".join(f"{count} {name}" for name, count in sorted(parts.items()))
        + (f" ({added} of train were added)" if added else ""),
        markup=False,
    )
    if args.json:
        print_json(replace(info, finished=True).settings | {"chunks": chunks})
    return 0


if __name__ == "__main__":
    run("mgc_ray.preprocess", main)
