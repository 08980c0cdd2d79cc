"""Finished searches side by side, as rows of models with intervals and paired differences.

A row is one model - the ensemble, or the best of one family alone - under one protocol, over all
searches that differ in nothing but seeds and folds. Shares are 0..1, and % in words.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, groupby, pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np

from mgc_ray import RequestError
from mgc_ray.ensembling.answers import FILE, read_answers
from mgc_ray.ensembling.outcomes import ENSEMBLE, outcomes_of
from mgc_ray.ensembling.statistics import (
    DIFFERENCE_METHOD,
    ENOUGH_SEEDS,
    INTERVAL_METHOD,
    Kind,
    Outcome,
    Row,
    interval_over_runs,
    paired_difference,
    rows_of,
)

NOT_ASKED = "not asked for"  # a setting of other rows
# share of chunks; its protocol was what `random-chunks` does again
PUBLISHED_BASELINE = {"CNN": 0.7988, "CNN+LSTM": 0.8763, "CNN+GRU": 0.9129}
BASELINE_TITLE = (
    "Published baseline on GTZAN, LEAKY, not comparable: chunks of one song on both sides, chosen "
    "on the part it was tested on"
)


def read_outcomes(folders: Sequence[Path]) -> tuple[list[str], list[Outcome]]:
    """Genres and models of finished searches (results/NAME) and of saved comparisons (--out).

    Raises RequestError for what is neither, and for folders over different genres.
    """
    found = [
        (folder, *(read_answers(folder / FILE) if _is_saved(folder) else outcomes_of(folder)))
        for folder in folders
    ]
    first, genres, _ = found[0]
    for folder, others, _ in found:
        if others != genres:
            raise RequestError(
                f"searches must be over the same genres, but {first} has {', '.join(genres)} and "
                f"{folder} has {', '.join(others)}: compare them in two calls"
            )
    return genres, [outcome for *_, own in found for outcome in own]


def _is_saved(folder: Path) -> bool:
    return (folder / FILE).is_file() and not (folder / "search.json").exists()


def compare(genres: Sequence[str], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The content of comparison.json; rows by protocol, leaky ones last, then by accuracy.

    Raises RequestError for what `rows_of` refuses.
    """
    rows = rows_of(outcomes, len(genres))
    rows.sort(key=_order)
    return {
        "searches": list(dict.fromkeys(outcome.search for outcome in outcomes)),
        "genres": list(genres),
        "rows": [_row(number, row, rows) for number, row in enumerate(rows, 1)],
        "differences": [
            difference
            for (i, a), (j, b) in combinations(enumerate(rows, 1), 2)
            for difference in _difference(i, a, j, b)
        ],
        "notes": [
            *(_without_row(outcomes)),
            *(_same_answers(rows)),
        ],
        "methods": [INTERVAL_METHOD, DIFFERENCE_METHOD],
        "published_baseline": {"what": BASELINE_TITLE, "chunk_accuracy": PUBLISHED_BASELINE},
    }


def _without_row(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Families that were searched, but are in no ensemble's candidates, and where."""
    of_search: dict[str, list[Kind]] = {}
    for outcome in outcomes:
        of_search.setdefault(outcome.search, []).append(outcome.kind)
    searches: dict[str, list[str]] = {}
    for search, own in of_search.items():
        models = {kind.model for kind in own}
        for family in {family for kind in own for family in kind.families} - models:
            searches.setdefault(family, []).append(Path(search).name)
    for family, names in sorted(searches.items()):
        yield (
            f"{family} has no figure of {', '.join(names)}: none of its trials was among the best "
            "that an ensemble is chosen from (--top-k)"
        )


def _same_answers(rows: Sequence[Row]) -> Iterator[str]:
    """Ensembles that are one of the families under another name."""
    for (i, a), (j, b) in permutations(enumerate(rows, 1), 2):
        if a.kind.model == ENSEMBLE != b.kind.model and a.gives_the_answers_of(b):
            yield (
                f"{i} gives the answers of {j} on all tracks: what the ensemble chose is "
                f"{b.kind.model} alone"
            )


def _order(row: Row) -> tuple[Any, ...]:
    figure, _ = row.chunk_accuracy if row.kind.leaky else row.track_accuracy
    return row.kind.leaky, row.kind.protocol, row.kind.part != "test", -figure


def _row(number: int, row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    kind = row.kind
    accuracy, deviation = row.track_accuracy
    chunk_accuracy, chunk_deviation = row.chunk_accuracy
    return {
        "row": number,
        "model": kind.model,
        "families": list(kind.families),
        "protocol": kind.protocol,
        "leaky": kind.leaky,
        "tracks_table": kind.tracks,
        "trained_on": list(kind.trained_on),
        "folds": kind.folds,
        "refitted": kind.refitted,
        "settings": _telling_settings(row, rows),
        "judged_on": kind.part,
        "chosen_on": kind.part != "test",
        "seeds": len(row.seeds),
        "runs": [
            {
                "seed": one.seed,
                "split_seed": one.split_seed,
                "folds": [outcome.fold for outcome in one.outcomes if outcome.fold],
                "searches": [outcome.search for outcome in one.outcomes],
                "tracks": len(one.judged.true),
                "track_accuracy": one.judged.accuracy,
                "chunk_accuracy": one.judged.chunk_accuracy,
            }
            for one in row.runs
        ],
        "tracks": len(frozenset[Any]().union(*(judged.tracks for judged in row.judged))),
        "groups": len(np.unique(np.concatenate([judged.group for judged in row.judged]))),
        "track_accuracy": accuracy,
        "deviation": deviation,
        "interval_95": vars(interval_over_runs(row.judged)),
        "chunk_accuracy": chunk_accuracy,
        "chunk_deviation": chunk_deviation,
        "macro_f1": row.macro_f1,
        "parameters": row.parameters,
        "seconds": row.seconds,
        "notes": list(_notes(row)),
    }


def _telling_settings(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    """Settings of a row that tell it from others of the same model and protocol."""

    def all_of(kind: Kind) -> dict[str, str]:
        return {
            **dict(kind.settings),
            "tracks": kind.tracks,
            "families": ", ".join(kind.families),
        }

    own = all_of(row.kind)
    alike = [
        all_of(other.kind)
        for other in rows
        if (other.kind.model, other.kind.protocol) == (row.kind.model, row.kind.protocol)
    ]
    names = sorted({name for settings in alike for name in settings})
    return {
        name: own.get(name, NOT_ASKED)
        for name in names
        if len({settings.get(name) for settings in alike}) > 1
    }


def _notes(row: Row) -> Iterator[str]:
    kind = row.kind
    if len(row.seeds) < ENOUGH_SEEDS:
        yield (
            f"{len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''}, fewer than "
            f"{ENOUGH_SEEDS}: another seed may give another figure"
        )
    if kind.leaky:
        yield "LEAKY: chunks of one song on both sides"
    if kind.part != "test":
        yield "chosen on the tracks that it is judged on, so too high"
    for one in row.runs:
        if kind.folds and len(one.outcomes) < kind.folds:
            yield f"seed {one.seed}: {len(one.outcomes)} of {kind.folds} folds"


def _difference(i: int, a: Row, j: int, b: Row) -> Iterator[dict[str, Any]]:
    """Nothing where the two rows cannot be paired."""
    found = paired_difference(a, b)
    if found:
        interval = {"low": found.low, "high": found.high}
        yield {"row": i, "less": j, "value": found.value, "interval_95": interval, "p": found.p}


def headings(leaky: bool) -> list[str]:
    """Columns of a protocol's table; a leaky one is by chunk first, as the published baseline."""
    by_track, by_chunk = ["track acc.", "95 %"], ["chunk acc."]
    figures = by_chunk + by_track if leaky else by_track + by_chunk
    return ["", "model", "seeds", "judged on", *figures, "F1", "param.", "train s"]


def cells(row: dict[str, Any]) -> list[str]:
    """A row in words, under `headings`."""
    interval = row["interval_95"]
    by_track = [
        _percent(row["track_accuracy"], row["deviation"]),
        f"{100 * interval['low']:.1f}–{100 * interval['high']:.1f}",
    ]
    by_chunk = [_percent(row["chunk_accuracy"], row["chunk_deviation"] if row["leaky"] else None)]
    return [
        str(row["row"]),
        _model_in_words(row),
        f"{row['seeds']}{'' if row['seeds'] >= ENOUGH_SEEDS else '†'}",
        row["judged_on"].replace("_", " ") + ("!" if row["chosen_on"] else ""),
        *(by_chunk + by_track if row["leaky"] else by_track + by_chunk),
        f"{row['macro_f1']:.3f}",
        _count(row["parameters"]),
        f"{row['seconds']:.0f}",
    ]


def _model_in_words(row: dict[str, Any]) -> str:
    """E.g. `ensemble chosen from cnn, gru; refitted; 3 of 5 folds (seed 1); trials 24`."""
    is_ensemble = row["model"] == ENSEMBLE
    words = [
        f"{ENSEMBLE} chosen from {', '.join(row['families'])}" if is_ensemble else row["model"]
    ]
    if row["refitted"]:
        words.append("refitted")
    if row["folds"]:
        words.append(_folds_in_words(row))
    if row["trained_on"]:
        words.append(f"trained also on {', '.join(row['trained_on'])}")
    words += [
        f"without {name}" if value == NOT_ASKED else f"{name} {value}"
        for name, value in row["settings"].items()
        if not (is_ensemble and name == "families")
    ]
    return "; ".join(words)


def _folds_in_words(row: dict[str, Any]) -> str:
    return (
        ", ".join(
            f"{len(one['folds'])} of {row['folds']} folds (seed {one['seed']})"
            for one in row["runs"]
            if len(one["folds"]) < row["folds"]
        )
        or f"{row['folds']} folds"
    )


def _percent(mean: float, deviation: float | None) -> str:
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _count(number: int) -> str:
    """123 k, 1.23 M."""
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def difference_in_words(difference: dict[str, Any]) -> str:
    interval, p = difference["interval_95"], difference["p"]
    return (
        f"{difference['row']} less {difference['less']}: {100 * difference['value']:+.1f} points "
        f"of tracks (95 % {100 * interval['low']:+.1f} to {100 * interval['high']:+.1f}), "
        f"p {'< 0.001' if p < 0.001 else f'{p:.3f}'}"
    )


def neighbours_in_words(
    rows: Sequence[dict[str, Any]], differences: Iterable[dict[str, Any]]
) -> Iterator[str]:
    """The differences between rows that follow each other."""
    paired = {(one["row"], one["less"]): one for one in differences}
    for a, b in pairwise(row["row"] for row in rows):
        if (a, b) in paired:
            yield difference_in_words(paired[a, b])
        else:
            yield f"{a} and {b} are not over the same splits and tracks: no difference is given"


def sections(content: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each protocol, leaky ones marked, with its rows."""
    for protocol, rows in groupby(content["rows"], key=lambda row: row["protocol"]):
        of_protocol = list(rows)
        leaky = ", LEAKY: chunks of one song on both sides" if of_protocol[0]["leaky"] else ""
        yield f"Protocol {protocol}{leaky}", of_protocol


def legend(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    rows = list(rows)
    yield "accuracies in %, mean ± standard deviation over seeds; F1: macro-F1 of tracks"
    yield "95 %: interval of the track accuracy over artists and seeds"
    yield "param., train s: parameters and seconds of training, mean over searches"
    if any(row["seeds"] < ENOUGH_SEEDS for row in rows):
        yield f"† fewer than {ENOUGH_SEEDS} seeds: another seed may give another figure"
    if sum(not row["chosen_on"] for row in rows) > 1:
        yield (
            "the best of several rows is known from their test figures alone, so its own is too "
            "high for new music; an ensemble was chosen without them"
        )
    if any(row["chosen_on"] for row in rows):
        yield "! chosen on the tracks that it is judged on, so too high"


def baseline_cells() -> list[tuple[str, str]]:
    return [(name, f"{100 * share:.2f}") for name, share in PUBLISHED_BASELINE.items()]


def notes_in_words(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Each note once, with the rows that it is of."""
    of_note: dict[str, list[str]] = {}
    for row in rows:
        for note in row["notes"]:
            of_note.setdefault(note, []).append(str(row["row"]))
    for note, numbers in of_note.items():
        yield f"row{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}: {note}"
