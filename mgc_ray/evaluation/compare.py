"""Finished searches side by side: a table of models, with intervals and paired differences.

A row is one model - the ensemble, or the best of one family alone - under one protocol, over all
searches that differ only in seeds and folds. Shares are 0..1, and % in words.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, groupby, pairwise, permutations
from pathlib import Path

import numpy as np

from mgc_ray import task
from mgc_ray.data.split.gtzan import fault_filtered
from mgc_ray.evaluation.intervals import (
    DIFFERENCE_METHOD,
    ENOUGH_SEEDS,
    INTERVAL_METHOD,
    Difference,
    interval_over_runs,
    paired_difference,
)
from mgc_ray.evaluation.rows import ModelRun, Row, RowKey, rows_of
from mgc_ray.evaluation.runs import read_runs
from mgc_ray.results import ENSEMBLE, TEST, Interval, in_words

DEFAULT = "default"  # a setting that other rows have changed
# share of chunks; its protocol was what `random-chunks` does again
PUBLISHED_BASELINE = {"CNN": 0.7988, "CNN+LSTM": 0.8763, "CNN+GRU": 0.9129}
BASELINE_TITLE = (
    f"Published baseline on GTZAN, {task.LEAKY}, chosen on the part it was tested on, so not "
    "comparable"
)


@dataclass(frozen=True)
class SeedResult:
    """One run of a row."""

    seed: int
    split_seed: int
    folds: tuple[int, ...]
    searches: tuple[str, ...]
    tracks: int
    track_accuracy: float
    chunk_accuracy: float


@dataclass(frozen=True)
class ComparedModel:
    """A row of the table. `settings` are those that tell it from rows of the same model."""

    row: int
    model: str
    families: tuple[str, ...]
    protocol: str
    leaky: bool
    tracks_table: str
    trained_on: tuple[str, ...]
    folds: int | None
    refitted: bool
    settings: dict[str, str]
    evaluated_on: str
    seeds: int
    runs: tuple[SeedResult, ...]
    tracks: int
    groups: int
    track_accuracy: float
    deviation: float | None
    interval_95: Interval
    chunk_accuracy: float
    chunk_deviation: float | None
    macro_f1: float
    parameters: int
    seconds: float
    notes: tuple[str, ...]

    @property
    def chosen_on(self) -> bool:
        """Whether it was chosen on the tracks that it is evaluated on."""
        return self.evaluated_on != TEST


@dataclass(frozen=True, kw_only=True)
class ComparedPair(Difference):
    """The track accuracy of `row` minus that of `minus`."""

    row: int
    minus: int

    def __str__(self) -> str:
        return (
            f"{self.row} minus {self.minus}: {100 * self.value:+.1f} points of tracks (95 % "
            f"{100 * self.low:+.1f} to {100 * self.high:+.1f}), "
            f"p {'< 0.001' if self.p < 0.001 else f'{self.p:.3f}'}"
        )


@dataclass(frozen=True)
class Comparison:
    """The content of comparison.json."""

    searches: tuple[str, ...]
    genres: tuple[str, ...]
    rows: tuple[ComparedModel, ...]
    differences: tuple[ComparedPair, ...]
    notes: tuple[str, ...]
    methods: tuple[str, ...]
    is_gtzan: bool

    def sections(self) -> Iterator[tuple[str, list[ComparedModel]]]:
        """Each protocol, leaky ones marked, with its rows."""
        for protocol, rows in groupby(self.rows, key=lambda row: row.protocol):
            of_protocol = list(rows)
            leaky = f", {task.LEAKY}" if of_protocol[0].leaky else ""
            yield f"Protocol {protocol}{leaky}", of_protocol

    def neighbours(self, rows: Sequence[ComparedModel]) -> Iterator[str]:
        """In words, the differences between rows that follow each other."""
        paired = {(one.row, one.minus): one for one in self.differences}
        for a, b in pairwise(row.row for row in rows):
            if (a, b) in paired:
                yield str(paired[a, b])
            else:
                yield f"{a} and {b} are not over the same splits and tracks: no difference is given"

    def baseline(self) -> list[tuple[str, str]]:
        """The published baseline's rows, where the tracks are GTZAN's."""
        if not self.is_gtzan:
            return []
        return [(name, f"{100 * share:.2f}") for name, share in PUBLISHED_BASELINE.items()]


def compare_searches(folders: Sequence[Path]) -> tuple[Comparison, list[ModelRun]]:
    """Compare finished searches and saved comparisons; also all predictions.

    Raises RequestError for what cannot be compared, see `read_runs` and `rows_of`.
    """
    genres, models = read_runs(folders)
    return compare_runs(genres, models), models


def compare_runs(genres: Sequence[str], models: Sequence[ModelRun]) -> Comparison:
    """Rows by protocol, leaky ones last, then by accuracy."""
    rows = sorted(rows_of(models, len(genres)), key=_order)
    numbered = list(enumerate(rows, 1))
    return Comparison(
        searches=tuple(dict.fromkeys(model.search for model in models)),
        genres=tuple(genres),
        rows=tuple(_compared(number, row, rows) for number, row in numbered),
        differences=tuple(
            _pair(i, a, j, b) for (i, a), (j, b) in combinations(numbered, 2) if a.on_tracks_of(b)
        ),
        notes=(*_families_without_row(models), *_same_predictions(numbered)),
        methods=(INTERVAL_METHOD, DIFFERENCE_METHOD),
        is_gtzan=_is_gtzan(models),
    )


def _is_gtzan(models: Iterable[ModelRun]) -> bool:
    """Whether most of the tracks have ids and groups of GTZAN.

    The built-in corpus has such ids, but artists of its own.
    """
    lists = fault_filtered()
    groups = {track.artist for track in lists.values()} | lists.keys()  # an id: artist not known
    tracks = {
        (str(track), str(group))
        for model in models
        for track, group in zip(model.evaluated.track_id, model.evaluated.group, strict=True)
    }
    return 2 * sum(track in lists and group in groups for track, group in tracks) > len(tracks)


def _families_without_row(models: Iterable[ModelRun]) -> Iterator[str]:
    """Families that were searched, but are not among the ensemble's candidates, and where."""
    of_search: dict[str, list[RowKey]] = {}
    for model in models:
        of_search.setdefault(model.search, []).append(model.key)
    searches: dict[str, list[str]] = {}
    for search, keys in of_search.items():
        present = {key.model for key in keys}
        for family in {family for key in keys for family in key.families} - present:
            searches.setdefault(family, []).append(Path(search).name)
    for family, names in sorted(searches.items()):
        yield (
            f"{family} has no figure of {', '.join(names)}: none of its trials was among the best "
            "that an ensemble is selected from (--top-k)"
        )


def _same_predictions(rows: Sequence[tuple[int, Row]]) -> Iterator[str]:
    """Ensembles that are one of the families under another name."""
    for (i, a), (j, b) in permutations(rows, 2):
        if a.key.model == ENSEMBLE != b.key.model and a.predicts_as(b):
            yield (
                f"{i} predicts the same as {j} for all tracks: the ensemble selected "
                f"{b.key.model} alone"
            )


def _order(row: Row) -> tuple[bool, str, bool, float]:
    accuracy, _ = row.chunk_accuracy if row.key.leaky else row.track_accuracy
    return row.key.leaky, row.key.protocol, row.key.part != TEST, -accuracy


def _compared(number: int, row: Row, rows: Sequence[Row]) -> ComparedModel:
    key = row.key
    accuracy, deviation = row.track_accuracy
    chunk_accuracy, chunk_deviation = row.chunk_accuracy
    every = row.evaluated
    return ComparedModel(
        row=number,
        model=key.model,
        families=key.families,
        protocol=key.protocol,
        leaky=key.leaky,
        tracks_table=key.tracks,
        trained_on=key.trained_on,
        folds=key.folds,
        refitted=key.refitted,
        settings=_distinguishing_settings(row, rows),
        evaluated_on=key.part,
        seeds=len(row.seeds),
        runs=tuple(
            SeedResult(
                seed=run.seed,
                split_seed=run.split_seed,
                folds=tuple(model.fold for model in run.models if model.fold),
                searches=tuple(model.search for model in run.models),
                tracks=len(run.evaluated.true),
                track_accuracy=run.evaluated.accuracy,
                chunk_accuracy=run.evaluated.chunk_accuracy,
            )
            for run in row.runs
        ),
        tracks=len({track for one in every for track in one.tracks}),
        groups=len(np.unique(np.concatenate([one.group for one in every]))),
        track_accuracy=accuracy,
        deviation=deviation,
        interval_95=interval_over_runs(every),
        chunk_accuracy=chunk_accuracy,
        chunk_deviation=chunk_deviation,
        macro_f1=row.macro_f1,
        parameters=row.parameters,
        seconds=row.seconds,
        notes=tuple(_notes(row)),
    )


def _distinguishing_settings(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    """Settings of a row that tell it from others of the same model and protocol."""

    def all_of(key: RowKey) -> dict[str, str]:
        own = {"tracks": key.tracks, "families": ", ".join(key.families)}
        return {**dict(key.settings), **own}

    alike = [
        all_of(other.key)
        for other in rows
        if (other.key.model, other.key.protocol) == (row.key.model, row.key.protocol)
    ]
    names = sorted({name for settings in alike for name in settings})
    own = all_of(row.key)
    return {
        name: own.get(name, DEFAULT)
        for name in names
        if len({settings.get(name) for settings in alike}) > 1
    }


def _notes(row: Row) -> Iterator[str]:
    key = row.key
    if len(row.seeds) < ENOUGH_SEEDS:
        yield (
            f"{len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''}, fewer than "
            f"{ENOUGH_SEEDS}: another seed may give another figure"
        )
    if key.leaky:
        yield task.LEAKY
    if key.part != TEST:
        yield "chosen on the tracks that it is evaluated on, so too high"
    for run in row.runs:
        if key.folds and len(run.models) < key.folds:
            yield f"seed {run.seed}: {len(run.models)} of {key.folds} folds"


def _pair(i: int, a: Row, j: int, b: Row) -> ComparedPair:
    found = paired_difference(a.evaluated, b.evaluated, a.has_runs_of(b))
    return ComparedPair(**asdict(found), row=i, minus=j)


# ---- in words ----


def headings(leaky: bool) -> list[str]:
    """Columns of a protocol's table; a leaky one is by chunk first, as the published baseline."""
    by_track, by_chunk = ["track acc.", "95 %"], ["chunk acc."]
    figures = by_chunk + by_track if leaky else by_track + by_chunk
    return ["", "model", "seeds", "evaluated on", *figures, "F1", "param.", "train s"]


def cells(row: ComparedModel) -> list[str]:
    """A row in words, under `headings`."""
    interval = row.interval_95
    by_track = [
        _percent(row.track_accuracy, row.deviation),
        f"{100 * interval.low:.1f}–{100 * interval.high:.1f}",
    ]
    by_chunk = [_percent(row.chunk_accuracy, row.chunk_deviation if row.leaky else None)]
    return [
        str(row.row),
        _model_in_words(row),
        f"{row.seeds}{'' if row.seeds >= ENOUGH_SEEDS else '†'}",
        in_words(row.evaluated_on) + ("!" if row.chosen_on else ""),
        *(by_chunk + by_track if row.leaky else by_track + by_chunk),
        f"{row.macro_f1:.3f}",
        f"{row.parameters / 1e6:.2f} M"
        if row.parameters >= 1e6
        else f"{row.parameters / 1e3:.0f} k",
        f"{row.seconds:.0f}",
    ]


def _model_in_words(row: ComparedModel) -> str:
    """E.g. `ensemble selected from cnn, gru; refitted; 3 of 5 folds (seed 1); tuning.trials 24`."""
    is_ensemble = row.model == ENSEMBLE
    words = [f"{ENSEMBLE} selected from {', '.join(row.families)}" if is_ensemble else row.model]
    if row.refitted:
        words.append("refitted")
    if row.folds:
        partial = [
            f"{len(run.folds)} of {row.folds} folds (seed {run.seed})"
            for run in row.runs
            if len(run.folds) < row.folds
        ]
        words.append(", ".join(partial) or f"{row.folds} folds")
    if row.trained_on:
        words.append(f"also trained on {', '.join(row.trained_on)}")
    words += [
        f"{name}: {value}" if value == DEFAULT else f"{name} {value}"
        for name, value in row.settings.items()
        if not (is_ensemble and name == "families")
    ]
    return "; ".join(words)


def _percent(mean: float, deviation: float | None) -> str:
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def legend(rows: Iterable[ComparedModel]) -> Iterator[str]:
    rows = list(rows)
    yield "accuracies in %, mean ± standard deviation over seeds; F1: macro-F1 of tracks"
    yield "95 %: interval of the track accuracy over artists and seeds"
    yield "param., train s: parameters and seconds of training, mean over searches"
    if any(row.seeds < ENOUGH_SEEDS for row in rows):
        yield f"† fewer than {ENOUGH_SEEDS} seeds: another seed may give another figure"
    if sum(not row.chosen_on for row in rows) > 1:
        yield (
            "which of several rows is best is known from their test figures, so the best one's is "
            "too high for new music; an ensemble was selected without them"
        )
    if any(row.chosen_on for row in rows):
        yield "! chosen on the tracks that it is evaluated on, so too high"


def notes_in_words(rows: Iterable[ComparedModel]) -> Iterator[str]:
    """Each note once, with the numbers of its rows."""
    of_note: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            of_note.setdefault(note, []).append(str(row.row))
    for note, numbers in of_note.items():
        yield f"row{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}: {note}"
