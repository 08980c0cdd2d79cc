"""Figures of an ensemble on any labelled tracks; without Ray.

python -m mgc_ray.evaluate --model results/gru-001/ensemble --tracks CSV --split test
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.split import assign_groups
from mgc_ray.data.tracks import SPLITS, Track, read_tracks
from mgc_ray.ensembling.artefact import Ensemble, load_ensemble
from mgc_ray.ensembling.figures import in_words, measure
from mgc_ray.terminal.command import Parser, console, print_json, run
from mgc_ray.terminal.progress import progress


def evaluate(ensemble: Ensemble, source: str | Path, split: str | None = None) -> dict[str, Any]:
    """Figures (see ensembling/figures.py) on a folder or CSV, or on the rows of one split.

    `skipped` lists what could not be read. Intervals draw whole artists where the table names them.
    Raises RequestError for a table without usable rows or with genres that the model does not know.
    """
    table = read_tracks(source)
    tracks = [track for track in table.tracks if split is None or track.split == split]
    if not tracks:
        raise RequestError(
            f"--split {split}: {source} has no row of that split (a CSV has a column split)"
        )
    unknown = sorted({track.genre for track in tracks} - set(ensemble.genres))
    if unknown:
        raise RequestError(
            f"the model knows the genres {', '.join(ensemble.genres)}, but the table has "
            f"{', '.join(unknown)}: rename them, or leave their rows out"
        )
    skipped = [{"path": item.path, "reason": item.reason} for item in table.skipped]
    probs: list[np.ndarray] = []
    owner: list[int] = []
    usable: list[Track] = []
    hashes: dict[str, str] = {}
    with progress("evaluating", len(tracks), "tracks") as advance:
        for done, track in enumerate(tracks, 1):
            try:
                hashes[track.path] = ensemble.features.inspect(track.path).content_hash
                chunks = ensemble.features.chunks(track.path)
            except UnusableTrackError as error:
                skipped.append({"path": track.path, "reason": str(error)})
                continue
            finally:
                advance(done)
            probs.append(ensemble.chunk_probs(chunks))
            owner += [len(usable)] * len(chunks)
            usable.append(track)
    if not usable:
        raise RequestError(
            f"none of the {len(tracks)} tracks can be used; the first: {skipped[-1]['path']}: "
            f"{skipped[-1]['reason']}"
        )
    figures = measure(
        np.concatenate(probs),
        np.array(owner),
        np.array([ensemble.genres.index(track.genre) for track in usable]),
        [track.group for track in assign_groups(usable, hashes)],
        ensemble.genres,
    )
    return figures | {
        "tracks_table": str(source),
        "split": split or "all rows",
        "model_protocol": ensemble.content.get("protocol"),
        "model_leaky": ensemble.content.get("leaky"),
        "skipped": skipped,
    }


def confusion_table(matrix: list[list[int]], genres: list[str]) -> Table:
    """Rows are true genres, columns what was predicted, by the first letters of the genre."""
    table = Table(
        box=None, pad_edge=False, title="rows: true, columns: predicted", title_justify="left"
    )
    table.add_column("")
    shortest = next((n for n in range(2, 12) if len({g[:n] for g in genres}) == len(genres)), 12)
    for genre in genres:
        table.add_column(genre[:shortest], justify="right")
    for genre, row in zip(genres, matrix, strict=True):
        table.add_row(genre, *(str(count) if count else "·" for count in row))
    return table


def main() -> int:
    """Parse the command line, evaluate, print the figures."""
    parser = Parser(
        prog="python -m mgc_ray.evaluate",
        description="Accuracy with interval, macro-F1 and confusion matrix on labelled tracks.",
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="an ensemble or a checkpoint")
    parser.add_argument("--tracks", required=True, help="labelled folder or CSV")
    parser.add_argument("--split", choices=SPLITS, help="only rows of this split")
    parser.add_argument("--json", action="store_true", help="print all figures on standard output")
    args = parser.parse_args()
    figures = evaluate(load_ensemble(args.model), args.tracks, args.split)
    console.print(in_words(figures), markup=False)
    console.print(confusion_table(figures["confusion_matrix"], figures["genres"]))
    for reason, count in Counter(item["reason"] for item in figures["skipped"]).most_common(5):
        console.print(f"skipped {count}: {reason}", markup=False)
    if figures["model_leaky"]:
        console.print(
            "the model was chosen under a leaky protocol (random-chunks); where these tracks were "
            "among its own, the figure says nothing",
            style="yellow",
            markup=False,
        )
    if args.json:
        print_json(figures)
    return 0


if __name__ == "__main__":
    run("mgc_ray.evaluate", main)
