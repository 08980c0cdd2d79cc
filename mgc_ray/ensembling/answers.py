"""comparison.parquet: what each model of each search answered for each track it was judged on.

A row is one answer of one model. So a comparison can be made again, or go on with more seeds, when
the searches' own folders are gone or on another machine, and anyone can check its figures.

    search, model, seed, split_seed, fold      which model of which search (fold: null without)
    families, protocol, leaky, folds, refitted, trained_on, part, tracks_table, settings
                                               how it was made: see `statistics.Kind`
    parameters, seconds, chunk_accuracy, chunks   of the model, the same in all of its rows
    track_id, group, genre, predicted          the answer; genre is the true one
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mgc_ray import RequestError
from mgc_ray.data.files import written_whole
from mgc_ray.ensembling.statistics import Judged, Kind, Outcome

FILE = "comparison.parquet"
_ANSWER = ("track_id", "group", "genre", "predicted")  # the rest is the same for all of a model
_MAY_BE_NULL = ("fold", "folds")
_TEXT, _PAIR = pa.string(), pa.struct([("name", pa.string()), ("value", pa.string())])
_SCHEMA = pa.schema(
    [
        *((name, _TEXT) for name in ("search", "model")),
        *((name, pa.int32()) for name in ("seed", "split_seed", "fold")),
        ("families", pa.list_(_TEXT)),
        ("protocol", _TEXT),
        ("leaky", pa.bool_()),
        ("folds", pa.int32()),
        ("refitted", pa.bool_()),
        ("trained_on", pa.list_(_TEXT)),
        *((name, _TEXT) for name in ("part", "tracks_table")),
        ("settings", pa.list_(_PAIR)),
        ("parameters", pa.int64()),
        ("seconds", pa.float64()),
        ("chunk_accuracy", pa.float64()),
        ("chunks", pa.int64()),
        *((name, _TEXT) for name in _ANSWER),
    ]
)


def write_answers(path: Path, genres: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """Write all outcomes, a row an answer, in their order."""
    schema = _SCHEMA.with_metadata({"genres": "\n".join(genres)})
    rows = [row for outcome in outcomes for row in _rows(outcome, genres)]
    with written_whole(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")


def _rows(outcome: Outcome, genres: Sequence[str]) -> Iterator[dict[str, Any]]:
    kind, judged = outcome.kind, outcome.judged
    of_model = {
        "search": outcome.search,
        "model": kind.model,
        "seed": outcome.seed,
        "split_seed": outcome.split_seed,
        "fold": outcome.fold,
        "families": kind.families,
        "protocol": kind.protocol,
        "leaky": kind.leaky,
        "folds": kind.folds,
        "refitted": kind.refitted,
        "trained_on": kind.trained_on,
        "part": kind.part,
        "tracks_table": kind.tracks,
        "settings": [{"name": name, "value": value} for name, value in kind.settings],
        "parameters": outcome.parameters,
        "seconds": outcome.seconds,
        "chunk_accuracy": judged.chunk_accuracy,
        "chunks": judged.chunks,
    }
    for track_id, group, true, predicted in zip(
        judged.track_id, judged.group, judged.true, judged.predicted, strict=True
    ):
        answer = (str(track_id), str(group), genres[true], genres[predicted])
        yield of_model | dict(zip(_ANSWER, answer, strict=True))


def read_answers(path: Path) -> tuple[list[str], list[Outcome]]:
    """The genres and outcomes that `write_answers` was given.

    Raises RequestError for a file that is none of these.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RequestError(f"{path} cannot be read ({error}): {_again(path)}") from None
    metadata = table.schema.metadata or {}
    if b"genres" not in metadata or not table.schema.equals(_SCHEMA):
        raise RequestError(
            f"{path} must have the columns {', '.join(_SCHEMA.names)}, but it has "
            f"{', '.join(table.schema.names)}: {_again(path)}"
        )
    genres = metadata[b"genres"].decode().split("\n")
    of_model: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        of_model.setdefault((row["search"], row["model"], row["part"]), []).append(row)
    wrong = "it has no answers" if not of_model else None
    for rows in of_model.values():
        wrong = wrong or _wrong(rows, genres)
    if wrong:
        raise RequestError(f"{path} is not as it was written ({wrong}): {_again(path)}")
    return genres, [_outcome(rows, genres) for rows in of_model.values()]


def _again(path: Path) -> str:
    return f"compare the searches again with --out {path.parent}"


def _wrong(rows: Sequence[dict[str, Any]], genres: Sequence[str]) -> str | None:
    """What `write_answers` would not have written as the rows of one model; None if nothing."""
    first, tracks = rows[0], set()
    for row in rows:
        where = f"model {row['model']} of {row['search']}, track {row['track_id']}"
        empty = [name for name, value in row.items() if value is None and name not in _MAY_BE_NULL]
        if empty:
            return f"{where}: no {empty[0]}"
        for name in ("genre", "predicted"):
            if row[name] not in genres:
                return f"{where}: {name} {row[name]} is none of {', '.join(genres)}"
        other = [name for name in row if name not in _ANSWER and row[name] != first[name]]
        if other:
            return f"{where}: {other[0]} differs from that of {first['track_id']}"
        if row["track_id"] in tracks:
            return f"{where}: there twice"
        tracks.add(row["track_id"])
    if first["chunks"] < 1 or not 0 <= first["chunk_accuracy"] <= 1:
        return f"{where}: chunk_accuracy {first['chunk_accuracy']} of {first['chunks']} chunks"
    return None


def _outcome(rows: Sequence[dict[str, Any]], genres: Sequence[str]) -> Outcome:
    """Of the rows of one model of one search."""
    first, number = rows[0], {genre: index for index, genre in enumerate(genres)}
    kind = Kind(
        model=first["model"],
        families=tuple(first["families"]),
        protocol=first["protocol"],
        leaky=first["leaky"],
        folds=first["folds"],
        refitted=first["refitted"],
        trained_on=tuple(first["trained_on"]),
        part=first["part"],
        tracks=first["tracks_table"],
        settings=tuple((one["name"], one["value"]) for one in first["settings"]),
    )
    judged = Judged(
        track_id=np.array([row["track_id"] for row in rows]),
        group=np.array([row["group"] for row in rows]),
        true=np.array([number[row["genre"]] for row in rows]),
        predicted=np.array([number[row["predicted"]] for row in rows]),
        chunk_accuracy=first["chunk_accuracy"],
        chunks=first["chunks"],
    )
    return Outcome(
        search=first["search"],
        kind=kind,
        seed=first["seed"],
        split_seed=first["split_seed"],
        fold=first["fold"],
        parameters=first["parameters"],
        seconds=first["seconds"],
        judged=judged,
    )
