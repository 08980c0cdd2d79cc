"""What the page shows of one search in words and tables, from its SearchResult."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgc_ray.evaluation.metrics import precision_recall_f1
from mgc_ray.models import known_defaults
from mgc_ray.reporting.dataset import Tracks
from mgc_ray.reporting.songs import excerpt
from mgc_ray.reporting.table import Table, first_of
from mgc_ray.results import (
    COMPLETED,
    ENSEMBLE,
    FAILED,
    OUT_OF_FOLD,
    PREDICTIONS,
    STOPPED_EARLY,
    TEST,
    EnsembleInfo,
    Metrics,
    Predictions,
    SearchResult,
    TrialRecord,
    in_words,
)
from mgc_ray.task import LEAKY, score_cell, score_heading
from mgc_ray.terminal.command import count_of
from mgc_ray.tuning.display import (
    changed_settings,
    clock,
    time_limit_in_words,
    trial_cells,
    trial_headings,
)

_BEST_TRIALS = 10
_MISTAKES = 10
_CONFUSIONS = 2  # of a genre, in the table of genres
_LISTED = 50  # failed trials
_PROTOCOLS = {
    "grouped": "all songs of a known artist are in one part of the split",
    "given": "the split is the one in the track table",
    "fault-filtered": "GTZAN's published artist-aware lists (Kereliuk, Sturm, Larsen 2015)",
    "cross-validation": "the artists are divided into parts, of which one is the test part here",
    "random-chunks": "the chunks of all songs are shuffled, as in the published baseline",
}
_PARTS = {"valid": "validation", OUT_OF_FOLD: "out of fold"}


@dataclass(frozen=True)
class Fact:
    """A line beside a figure: what it is, the value, and what has to be known of it."""

    what: str
    value: str
    note: str = ""


def name_of(result: SearchResult) -> str:
    """The name of its folder, which may have been renamed."""
    return result.folder.resolve().name


def protocol(result: SearchResult) -> str:
    """With fold and warning; "" while it is not known."""
    fold = f", fold {result.fold}" if result.fold else ""
    leaky = f", {LEAKY}" if result.leaky else ""
    return f"{result.protocol}{fold}{leaky}" if result.protocol else ""


def protocol_in_words(result: SearchResult) -> str:
    return _PROTOCOLS.get(result.protocol, "")


def evaluated_on(result: SearchResult) -> str:
    """The part that the ensemble's figures are of: test, or what it was selected on."""
    assert result.ensemble
    return TEST if result.test else result.ensemble.selected_on


def part_in_words(part: str) -> str:
    """E.g. `validation` of `valid`."""
    return _PARTS.get(part, part)


def metrics(result: SearchResult) -> Metrics | None:
    """The ensemble's, on `evaluated_on`; None where there is no ensemble yet."""
    return result.test or (result.ensemble.held_out if result.ensemble else None)


def predictions(result: SearchResult) -> Predictions | None:
    """The ensemble's, on `evaluated_on`; None where there are none."""
    if not result.ensemble or not (result.folder / PREDICTIONS).exists():
        return None
    return result.predictions.of(ENSEMBLE, evaluated_on(result))


# ---- the figure and what to know of it ----


def facts(result: SearchResult) -> Iterator[Fact]:
    """What stands beside the figure of a search that has an ensemble."""
    ensemble, measured = result.ensemble, metrics(result)
    assert ensemble
    assert measured
    yield Fact("protocol", protocol(result), f"– {protocol_in_words(result)}")
    yield Fact("macro-F1", f"{measured.macro_f1:.3f}", "the mean over the genres")
    yield Fact("chunks", f"{measured.chunk_accuracy:.1%}", f"of {measured.chunks} chunks are right")
    genre, share = _most_frequent(measured)
    yield Fact("guessing", f"{share:.1%}", f"of the tracks are right if all are called {genre}")
    if ensemble.accuracy_without_music is not None:
        yield Fact(
            "without music",
            f"{ensemble.accuracy_without_music:.1%}",
            "of the training and validation tracks are right by how the files were made alone "
            "(sample rate, codec, bandwidth, loudness, length): a decision tree, out of fold",
        )
    if result.test:
        held_out = ensemble.held_out
        yield Fact(
            part_in_words(ensemble.selected_on),
            f"{held_out.track_accuracy:.1%}",
            f"of {count_of(held_out.tracks, 'track')}: too high, as the ensemble was selected on "
            "these",
        )
    if ensemble.also_trained_on:
        yield Fact("also trained on", "", ensemble.also_trained_on)


def _most_frequent(measured: Metrics) -> tuple[str, float]:
    """The most frequent true genre, and its share of the tracks."""
    counts = np.array(measured.confusion_matrix).sum(1)
    return measured.genres[int(counts.argmax())], float(counts.max() / max(counts.sum(), 1))


def warnings(result: SearchResult) -> Iterator[str]:
    """Why the figure may not mean what it seems to."""
    if result.leaky:
        yield f"{LEAKY}, so the figure says nothing about new music"
    if not result.test:
        yield "The ensemble was selected on these tracks, so the figure is too high."
    if not result.config.dataset.tracks:
        yield (
            "The tracks are the built-in corpus, which the program synthesises: no figure here "
            "says anything about real music."
        )
    if result.config.smoke:
        yield (
            "A smoke search, the smallest that goes through every step: its models have hardly "
            "learned."
        )
    yield from result.ensemble.all_warnings if result.ensemble else ()


# ---- genres ----


def genre_scores(result: Metrics) -> Table:
    """Precision, recall and F1 of each genre, and what it is taken for."""
    matrix = np.array(result.confusion_matrix)
    scores = zip(result.genres, matrix, *precision_recall_f1(matrix), strict=True)
    return Table(
        "Recall: the share of a genre's tracks that are recognised. Precision: the share of the "
        "tracks called by a genre that are of it. F1: their harmonic mean.",
        ("genre", "tracks", "recall", "precision", "F1", "taken for"),
        [
            (
                genre,
                str(row.sum()),
                _share(recall),
                _share(precision),
                _share(f1, ".3f"),
                _taken_for(row, number, result.genres),
            )
            for number, (genre, row, precision, recall, f1) in enumerate(scores)
        ],
        bar=2,
    )


def _share(value: float, form: str = ".1%") -> str:
    return f"{value:{form}}" if np.isfinite(value) else "–"


def _taken_for(row: np.ndarray, own: int, genres: Sequence[str]) -> str:
    """The genres that a genre's tracks were called most often instead, e.g. `metal 4, rock 1`."""
    order = [i for i in np.argsort(-row, kind="stable") if i != own and row[i]]
    return ", ".join(f"{genres[i]} {row[i]}" for i in order[:_CONFUSIONS])


@dataclass(frozen=True)
class Cell:
    """Of a confusion matrix: how many tracks, which share of the row, and all of it in words."""

    count: int
    share: float
    right: bool
    words: str


def confusion(result: Metrics) -> list[tuple[str, list[Cell]]]:
    """Each true genre with a cell for each predicted one."""
    matrix = np.array(result.confusion_matrix)
    return [
        (
            true,
            [
                Cell(
                    int(count),
                    float(count / max(row.sum(), 1)),
                    true == predicted,
                    f"{count} of {row.sum()} {true} predicted as {predicted}",
                )
                for predicted, count in zip(result.genres, row, strict=True)
            ],
        )
        for true, row in zip(result.genres, matrix, strict=True)
    ]


def confusion_in_words(result: Metrics) -> str:
    """What the matrix shows, for those who do not see it."""
    matrix = np.array(result.confusion_matrix)
    wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    text = "Tracks by their true genre (rows) and the predicted one (columns)."
    if not wrong.any():
        return text
    true, predicted = divmod(int(wrong.argmax()), len(matrix))
    return (
        f"{text} The most frequent mistake: {result.genres[true]} predicted as "
        f"{result.genres[predicted]} ({count_of(int(wrong.max()), 'track')})."
    )


def mistakes(result: SearchResult, tracks: Tracks) -> Table | None:
    """The tracks that the ensemble got wrong, those that it was most confident about first."""
    of_ensemble = predictions(result)
    if of_ensemble is None:
        return None
    genres, probs, true = result.predictions.genres, of_ensemble.probs, of_ensemble.true
    confidence, predicted = probs.max(1), of_ensemble.predicted
    wrong = [i for i in np.argsort(-confidence, kind="stable") if predicted[i] != true[i]]
    shown = wrong[:_MISTAKES]
    if not shown:
        return None
    files = {
        track.track_id: (Path(track.path), place.content_hash)
        for track, place in tracks
        if not track.is_array
    }
    audio = [
        excerpt(*files[of_ensemble.track_id[i]]) if of_ensemble.track_id[i] in files else None
        for i in shown
    ]
    part = part_in_words(of_ensemble.part)
    return Table(
        f"{len(wrong)} of the {len(true)} {part} tracks are wrong"
        + (f"; these are the {len(shown)} most confident ones" if len(wrong) > len(shown) else "")
        + ". In brackets: the probability that the model gave. Listen whether the label is wrong, "
        "or the track could be of either genre.",
        ("track", "artist (group)", "true genre", "predicted"),
        [
            (
                of_ensemble.track_id[i],
                of_ensemble.group[i],
                f"{genres[true[i]]} ({probs[i, true[i]]:.0%})",
                f"{genres[predicted[i]]} ({confidence[i]:.0%})",
            )
            for i in shown
        ],
        audio if any(audio) else (),
    )


# ---- trials ----


def trials_in_words(result: SearchResult) -> str:
    """How many trials of which families there were, and how they ended."""
    records = result.records
    number = Counter(record.status for record in records)
    ends = [
        f"{number[status]} {words}"
        for status, words in (
            (COMPLETED, "completed"),
            (STOPPED_EARLY, "stopped early by ASHA"),
            (FAILED, "failed"),
        )
        if number[status]
    ]
    text = f"{_trials_of_families(result)}: {', '.join(ends)}." if ends else ""
    if late := time_limit_in_words(result):
        text += f" {late[0].upper()}{late[1:]}."
    return text.lstrip()


def _trials_of_families(result: SearchResult) -> str:
    families = ", ".join(sorted({record.family for record in result.records}))
    return f"{count_of(len(result.records), 'trial')} of {families}"


def subject(result: SearchResult) -> str:
    """What was searched on which tracks."""
    of = f"{_trials_of_families(result)} on " if result.records else ""
    return f"{of}{result.tracks}"


def members_in_words(ensemble: EnsembleInfo) -> str:
    """The trials in an ensemble with their weights, those of a trial's folds added up."""
    weights, folds = defaultdict[str, float](float), Counter[str]()
    for member in ensemble.members:
        trial = re.sub(r"-fold\d+$", "", member.name)
        weights[trial] += member.weight
        folds[trial] += member.name != trial
    return ", ".join(
        f"{trial} ({weight:.0%}" + (f", {folds[trial]} folds)" if folds[trial] else ")")
        for trial, weight in sorted(weights.items(), key=lambda item: -item[1])
    )


def best_settings(record: TrialRecord) -> list[tuple[str, str]]:
    """The settings of a trial that are not at its family's defaults."""
    defaults = known_defaults(record.family)
    return [
        (name.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
        for name, value in record.params.items()
        if value != defaults.get(name)
    ]


def best_trials(result: SearchResult) -> Table | None:
    """The best trials; None where none has a score."""
    records = [record for record in result.records if record.best][:_BEST_TRIALS]
    if not records:
        return None
    metric = records[0].metric
    heading = score_heading(metric)
    return Table(
        f"The best trials by {heading} of the validation tracks; these figures are too high, as "
        "the trials are ranked by them",
        ("trial", heading, "best epoch", "epochs", "time", "status"),
        [
            (
                record.trial,
                score_cell(record.best, metric),
                str(record.best_epoch),
                str(record.epochs),
                clock(record.seconds) if math.isfinite(record.seconds) else "–",
                in_words(record.status),
            )
            for record in records
        ],
    )


def all_trials(result: SearchResult) -> Table | None:
    """The trials that have a score, with the settings that are not at their defaults."""
    records = [record for record in result.records if record.best]
    if not records:
        return None
    metric = records[0].metric
    defaults = {family: known_defaults(family) for family in {one.family for one in records}}
    rows = [
        trial_cells(record, metric, changed_settings(record.params, defaults[record.family]))
        for record in records
    ]
    return Table("All trials that have a score, best first", trial_headings(metric), rows)


def failed_trials(result: SearchResult) -> Table | None:
    failed = [record for record in result.records if record.status == FAILED]
    if not failed:
        return None
    return Table(
        f"{count_of(len(failed), 'trial')}{first_of(_LISTED, failed)}",
        ("trial", "reason"),
        [(record.trial, record.reason) for record in failed[:_LISTED]],
    )


def cost(result: SearchResult) -> Iterator[tuple[str, str]]:
    """(what, how much), in words."""
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
        if result.resources.gpus_per_trial:
            yield "GPU hours", _hours(seconds * result.resources.gpus_per_trial)
    if result.finished:
        last_run = " of the last run" if result.resumed else ""
        yield f"minutes{last_run}, from start to end", f"{result.seconds / 60:.1f}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f}"
