"""What the page shows of one search in words and tables, from its SearchResult."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.dataset import read_dataset_tracks, read_skipped
from mgc_ray.evaluation.metrics import precision_recall_f1
from mgc_ray.models import known_defaults
from mgc_ray.reporting.songs import excerpt
from mgc_ray.results import (
    ENSEMBLE,
    FAILED,
    OUT_OF_FOLD,
    PREDICTIONS,
    TEST,
    Metrics,
    Predictions,
    SearchResult,
    TrialRecord,
    in_words,
)
from mgc_ray.task import LEAKY, score_heading
from mgc_ray.terminal.command import count_of
from mgc_ray.tuning.display import changed_settings, trial_cells, trial_headings

_BEST_TRIALS = 10
_MISTAKES = 10
_LISTED = 50  # failed trials, and files that were left out


@dataclass(frozen=True)
class Table:
    """Cells are text; the first of each row is its heading.

    `audio`: for each row a data URI, None where there is no audio.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    audio: Sequence[str | None] = ()


def name_of(result: SearchResult) -> str:
    """The name of its folder, which may have been renamed."""
    return result.folder.resolve().name


def protocol(result: SearchResult) -> str:
    """With fold and warning."""
    fold = f", fold {result.fold}" if result.fold else ""
    leaky = f", {LEAKY}" if result.leaky else ""
    return f"{result.protocol or 'not known yet'}{fold}{leaky}"


def evaluated_on(result: SearchResult) -> str:
    """The part that the ensemble's figures are of: test, or what it was selected on."""
    assert result.ensemble
    return TEST if result.test else result.ensemble.selected_on


def metrics(result: SearchResult) -> Metrics | None:
    """The ensemble's, on `evaluated_on`; None where there is no ensemble yet."""
    return result.test or (result.ensemble.held_out if result.ensemble else None)


def predictions(result: SearchResult) -> Predictions | None:
    """The ensemble's, on `evaluated_on`; None where there are none."""
    if not result.ensemble or not (result.folder / PREDICTIONS).exists():
        return None
    return result.predictions.of(ENSEMBLE, evaluated_on(result))


def best_trials(result: SearchResult) -> Table | None:
    """The best trials, with the settings that are not at their defaults."""
    caption = f"By validation {score_heading(result.config.metric)}, so too high"
    return trial_table(caption, result.records[:_BEST_TRIALS])


def trial_table(caption: str, records: Sequence[TrialRecord]) -> Table | None:
    """The trials that have a score; None where there are none."""
    records = [record for record in records if record.best]
    if not records:
        return None
    metric = records[0].metric
    defaults = {family: known_defaults(family) for family in {one.family for one in records}}
    rows = [
        trial_cells(record, metric, changed_settings(record.params, defaults[record.family]))
        for record in records
    ]
    return Table(caption, trial_headings(metric), rows)


def genre_scores(result: Metrics) -> Table:
    """Precision, recall and F1 of each genre."""
    matrix = np.array(result.confusion_matrix)
    scores = zip(result.genres, matrix.sum(1), *precision_recall_f1(matrix), strict=True)
    return Table(
        "Scores of each genre",
        ("genre", "tracks", "precision", "recall", "F1"),
        [
            (genre, str(tracks), _share(precision), _share(recall), _share(f1, ".3f"))
            for genre, tracks, precision, recall, f1 in scores
        ],
    )


def _share(value: float, form: str = ".1%") -> str:
    return f"{value:{form}}" if np.isfinite(value) else "–"


def mistakes(result: SearchResult) -> Table | None:
    """The tracks that the ensemble got wrong, those that it was most confident about first."""
    of_ensemble = predictions(result)
    if of_ensemble is None:
        return None
    genres, probs, true = result.predictions.genres, of_ensemble.probs, of_ensemble.true
    confidence, predicted = probs.max(1), of_ensemble.predicted
    order = [i for i in np.argsort(-confidence) if predicted[i] != true[i]][:_MISTAKES]
    if not order:
        return None
    recorded = _recorded(result)
    return Table(
        f"Tracks ({in_words(of_ensemble.part)}) that the ensemble got wrong, with the "
        "highest probability first",
        ("track", "group (artist)", "true", "predicted", "its probability", "of the true genre"),
        [
            (
                of_ensemble.track_id[i],
                of_ensemble.group[i],
                genres[true[i]],
                genres[predicted[i]],
                f"{confidence[i]:.0%}",
                f"{probs[i, true[i]]:.0%}",
            )
            for i in order
        ],
        [excerpt(*recorded.get(of_ensemble.track_id[i], (None, ""))) for i in order],
    )


def _dataset(result: SearchResult) -> Path:
    """The dataset beside the search; never the path that search.json names.

    A report may be of somebody else's search, and is passed on.
    """
    return result.folder.parent / "datasets" / Path(result.dataset).name


def _recorded(result: SearchResult) -> dict[str, tuple[Path, str]]:
    """Each track's file and content hash; {} where the dataset is not at hand."""
    try:
        tracks, places = read_dataset_tracks(_dataset(result))
    except RequestError:
        return {}
    return {
        track.track_id: (Path(track.path), place.content_hash)
        for track, place in zip(tracks, places, strict=True)
        if not track.is_array
    }


def failed_trials(result: SearchResult) -> Table | None:
    failed = [record for record in result.records if record.status == FAILED]
    if not failed:
        return None
    return Table(
        f"{count_of(len(failed), 'trial')}{_first(_LISTED, failed)}",
        ("trial", "reason"),
        [(record.trial, record.reason) for record in failed[:_LISTED]],
    )


def skipped_files(result: SearchResult) -> tuple[Table, Table] | None:
    """Why files were left out of the dataset, and which; None where the dataset is not at hand."""
    files = read_skipped(_dataset(result)) if result.dataset else []
    if not files:
        return None
    reasons = Counter(file.reason for file in files).most_common(_LISTED)
    return (
        Table(
            f"Why {count_of(len(files), 'file')} cannot be used",
            ("reason", "files"),
            [(reason, str(count)) for reason, count in reasons],
        ),
        Table(
            f"{count_of(len(files), 'file')}{_first(_LISTED, files)}",
            ("file", "reason"),
            [(file.path, file.reason) for file in files[:_LISTED]],
        ),
    )


def _first(shown: int, items: Sequence[object]) -> str:
    return f", the first {shown} of them" if len(items) > shown else ""


def cost(result: SearchResult) -> Iterator[tuple[str, str]]:
    """(what, how much), in words."""
    counts = Counter(in_words(record.status) for record in result.records)
    words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    yield "trials", f"{len(result.records)} ({words})"
    yield "epochs", f"{sum(record.epochs for record in result.records)}"
    seconds = sum(record.seconds for record in result.records)
    yield "hours of all trials added up", _hours(seconds)
    if result.ensemble and result.ensemble.selected_on == OUT_OF_FOLD:
        models = result.ensemble.models
        refit = sum(model.seconds for name, model in models.items() if name != ENSEMBLE)
        yield "hours of refitting, added up", _hours(refit)
        seconds += refit
    if result.resources:
        yield "CPU hours", _hours(seconds * result.resources.cpus_per_trial)
        yield "GPU hours", _hours(seconds * result.resources.gpus_per_trial)
    if result.finished:
        last_run = " of the last run" if result.resumed else ""
        yield f"minutes{last_run}, from start to end", f"{result.seconds / 60:.1f}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f}"
