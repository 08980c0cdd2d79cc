"""Measure a model on labelled tracks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mgc_ray import RequestError
from mgc_ray.config import EvaluateConfig
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.copies import fingerprint, same_recordings
from mgc_ray.data.split.groups import assign_groups
from mgc_ray.data.tags import with_artists
from mgc_ray.data.tracks import Skipped, Track, read_tracks, with_one_spelling
from mgc_ray.pipeline.checks import check_given_model
from mgc_ray.pipeline.songs import load_model
from mgc_ray.pipeline.tables import column_names, print_notes
from mgc_ray.results import Metrics, short_hash
from mgc_ray.terminal.progress import progress

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on the tracks of a table, and what could not be read."""

    metrics: Metrics
    tracks_table: str
    split: str
    model_protocol: str
    model_leaky: bool
    skipped: tuple[Skipped, ...]
    short: int  # tracks shorter than half a chunk, which no model was trained on
    known: int  # tracks that the model was trained or selected on


def evaluate_model(config: EvaluateConfig) -> Evaluation:
    """Predict each track once; see `mgc_ray.evaluate`."""
    check_given_model(config.model)
    table = with_artists(read_tracks(config.tracks, names=column_names(config)))
    tracks = [t for t in table.tracks if config.split is None or t.split == config.split]
    if not tracks:
        raise RequestError(
            f"--split {config.split}: {config.tracks} has no row of that part (a CSV has a column "
            "split, a folder subfolders train, valid and test)"
        )
    # imports PyTorch, which takes seconds: a wrong path or table should not
    from mgc_ray.task import measure

    ensemble = load_model(config.model)
    table = with_one_spelling(replace(table, tracks=tracks), ensemble.genres)
    print_notes(table)
    tracks = table.tracks
    unknown = sorted({track.genre for track in tracks} - set(ensemble.genres))
    if unknown:
        raise RequestError(
            f"the model knows the genres {', '.join(ensemble.genres)}, but the table has "
            f"{', '.join(unknown)}: rename them, or leave their rows out"
        )
    skipped = list(table.skipped)
    usable: list[Track] = []
    probs: list[np.ndarray] = []
    content_hashes: dict[str, str] = {}
    fingerprints: dict[str, np.ndarray] = {}
    right = chunks = short = 0
    with progress("evaluating", len(tracks), "tracks") as advance:
        for done, track in enumerate(tracks, 1):
            try:
                decoded = ensemble.decode(track.path)
                song = ensemble.features_of(decoded)
            except UnusableTrackError as error:
                skipped.append(Skipped(track.path, str(error)))
                continue
            finally:
                advance(done)
            predicted = ensemble.predict_song(song)
            content_hashes[track.path] = song.shortest.content_hash
            fingerprints[track.path] = fingerprint(next(filter(None, decoded)))
            usable.append(track)
            probs.append(predicted.song)
            genre = ensemble.genres.index(track.genre)
            right += int((predicted.chunks.argmax(1) == genre).sum())
            chunks += song.shortest.chunks
            short += bool(song.too_short)
    if not usable:
        raise RequestError(
            f"none of the {len(tracks)} tracks can be used; the first: {skipped[-1].path}: "
            f"{skipped[-1].reason}"
        )
    true = np.array([ensemble.genres.index(track.genre) for track in usable])
    recordings = same_recordings(fingerprints, content_hashes)
    known = set(ensemble.info.known_tracks)
    groups = [track.group for track in assign_groups(usable, recordings)]
    return Evaluation(
        metrics=measure(np.stack(probs), true, groups, ensemble.genres, right, chunks),
        tracks_table=config.tracks,
        split=config.split or "all rows",
        model_protocol=ensemble.info.protocol,
        model_leaky=ensemble.info.leaky,
        skipped=tuple(skipped),
        short=short,
        known=sum(short_hash(content) in known for content in content_hashes.values()),
    )


def confusion_table(matrix: list[list[int]], genres: Sequence[str]) -> "Table":
    """Rows are true genres, columns what was predicted, by the first letters of the genre."""
    from rich.table import Table

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
