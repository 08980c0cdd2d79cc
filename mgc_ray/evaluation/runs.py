"""Finished searches as the rows of a comparison: one model under one protocol, over its runs.

A saved comparison keeps every prediction in comparison.parquet, one row per prediction of a model,
so that it can be made again, or continued with more seeds, when the searches are gone:

    search, model, seed, split_seed, fold      which model of which search (fold: null without)
    families, protocol, leaky, folds, refitted, trained_on, part, tracks_table, settings
                                               how it was made, see `RowKey`
    parameters, seconds, chunk_accuracy, chunks   of the model, the same in all of its rows
    track_id, group, genre, predicted          the prediction; genre is the true one
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mgc_ray import RequestError
from mgc_ray.data.files import atomic_write
from mgc_ray.evaluation.intervals import Evaluated, mean_and_deviation, pooled
from mgc_ray.evaluation.metrics import macro_f1
from mgc_ray.results import (
    ENSEMBLE,
    OUT_OF_FOLD,
    SEARCH,
    TEST,
    SearchResult,
    TrainedOn,
    load_search,
)
from mgc_ray.settings import Params, as_json, options

SAVED = "comparison.parquet"
_AGAIN = "search again under another --name"
_PREDICTION = ("track_id", "group", "genre", "predicted")  # the rest is the same for all of a model
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
        *((name, _TEXT) for name in _PREDICTION),
    ]
)


@dataclass(frozen=True)
class RowKey:
    """What distinguishes a row of the table: within one, only seeds and folds differ."""

    model: str  # ensemble, or a family
    families: tuple[str, ...]  # of the search
    protocol: str
    leaky: bool
    folds: int | None  # of the protocol
    refitted: bool
    trained_on: tuple[str, ...]  # besides the dataset itself
    part: str  # that the model is evaluated on: test, validation, out_of_fold
    tracks: str  # the track table's name
    settings: tuple[tuple[str, str], ...]  # all other settings that are not at their defaults


@dataclass(frozen=True)
class ModelRun:
    """One model of one search. `seconds` is what training it took."""

    search: str
    key: RowKey
    seed: int
    split_seed: int
    fold: int | None  # from 1
    parameters: int
    seconds: float
    evaluated: Evaluated


@dataclass(frozen=True)
class Run:
    """The models of one seed on one split: one, or one per fold."""

    seed: int
    split_seed: int
    models: tuple[ModelRun, ...]

    @property
    def seeds(self) -> tuple[int, int]:
        return self.seed, self.split_seed

    @cached_property
    def evaluated(self) -> Evaluated:
        """The tracks of all folds together."""
        return pooled([model.evaluated for model in self.models])


@dataclass(frozen=True)
class Row:
    """All runs with one key, by seed; see `rows_of`."""

    key: RowKey
    runs: tuple[Run, ...]
    genres: int

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def evaluated(self) -> list[Evaluated]:
        """What each run is evaluated on."""
        return [run.evaluated for run in self.runs]

    @property
    def track_accuracy(self) -> tuple[float, float | None]:
        """Mean and standard deviation over the runs."""
        return mean_and_deviation([one.accuracy for one in self.evaluated])

    @property
    def chunk_accuracy(self) -> tuple[float, float | None]:
        """Mean and standard deviation over the runs."""
        return mean_and_deviation([one.chunk_accuracy for one in self.evaluated])

    @property
    def macro_f1(self) -> float:
        scores = [macro_f1(one.predicted, one.true, self.genres) for one in self.evaluated]
        return float(np.mean(scores))

    @property
    def parameters(self) -> int:
        """Mean over the searches; each fold is one."""
        return round(float(np.mean([m.parameters for run in self.runs for m in run.models])))

    @property
    def seconds(self) -> float:
        """Mean over the searches; each fold is one."""
        return float(np.mean([m.seconds for run in self.runs for m in run.models]))

    def has_runs_of(self, other: "Row") -> bool:
        """Whether both have the same seeds on the same splits."""
        return [run.seeds for run in self.runs] == [run.seeds for run in other.runs]

    def predicts_as(self, other: "Row") -> bool:
        """Whether it predicts the same for each track of each run."""
        return self.has_runs_of(other) and all(
            one.evaluated.predictions == another.evaluated.predictions
            for one, another in zip(self.runs, other.runs, strict=True)
        )

    def on_tracks_of(self, other: "Row") -> bool:
        """Whether both are evaluated on the same part and tracks in each run of the same split."""
        if (self.key.protocol, self.key.part) != (other.key.protocol, other.key.part):
            return False
        if self.has_runs_of(other):
            return all(
                one.evaluated.tracks == another.evaluated.tracks
                for one, another in zip(self.runs, other.runs, strict=True)
            )
        own, others = (
            {(run.split_seed, run.evaluated.tracks) for run in row.runs} for row in (self, other)
        )
        return own == others and len(own) == len({split for split, _ in own})


def rows_of(models: Iterable[ModelRun], genres: int) -> list[Row]:
    """One row for each key, in the order of their first models.

    Raises RequestError where two models of one key have the same seeds and fold, or the same split
    but other tracks, and where folds share tracks.
    """
    of_key: dict[RowKey, dict[tuple[int, int], list[ModelRun]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for model in models:
        of_key[model.key][model.seed, model.split_seed].append(model)
    rows = []
    for key, of_seeds in of_key.items():
        for same_seeds in of_seeds.values():
            _check_folds(same_seeds)
        _check_splits([model for same_seeds in of_seeds.values() for model in same_seeds])
        runs = [
            Run(*seeds, tuple(sorted(same_seeds, key=lambda model: model.fold or 0)))
            for seeds, same_seeds in sorted(of_seeds.items())
        ]
        rows.append(Row(key, tuple(runs), genres))
    return rows


def _check_folds(models: Sequence[ModelRun]) -> None:
    """RequestError where models of one seed and split are not different folds."""
    by_fold: dict[int | None, ModelRun] = {}
    for one in models:
        other = by_fold.setdefault(one.fold, one)
        if other is not one:
            if other.search == one.search:
                raise RequestError(
                    f"each search may be given once, but {one.search} is given twice (a saved "
                    "comparison contains all searches that it was made of): leave it out"
                )
            fold = f", fold {one.fold}/{one.key.folds}" if one.fold else ""
            raise RequestError(
                f"each search must have another --seed, --split-seed or --fold, or other settings, "
                f"but {other.search} and {one.search} are both {one.key.model} of seed {one.seed}, "
                f"split seed {one.split_seed}{fold}: leave one of them out"
            )
    seen: dict[str, ModelRun] = {}
    for one in models:
        for track in one.evaluated.track_id:
            other = seen.setdefault(track, one)
            if other is not one:
                raise RequestError(
                    f"no track may be tested in two folds, but {track} is in those of "
                    f"{other.search} and {one.search}: they are of different track tables, so "
                    "compare them in two calls"
                )


def _check_splits(models: Sequence[ModelRun]) -> None:
    """RequestError where models of one key, split and fold were evaluated on other tracks."""
    first: dict[tuple[int, int | None], ModelRun] = {}
    for one in models:
        other = first.setdefault((one.split_seed, one.fold), one)
        if one.evaluated.tracks != other.evaluated.tracks:
            raise RequestError(
                f"searches of one split must have been evaluated on the same tracks, but "
                f"{other.search} and {one.search} were not ({len(other.evaluated.track_id)} and "
                f"{len(one.evaluated.track_id)} tracks): their tables differ, so compare them in "
                "two calls"
            )


# ---- from finished searches ----


def read_runs(folders: Sequence[Path]) -> tuple[list[str], list[ModelRun]]:
    """Genres and models of finished searches (results/NAME) and of saved comparisons (--out).

    Raises RequestError for what is neither, and for folders over different genres.
    """
    read = [
        (folder, *(read_saved(folder / SAVED) if _is_saved(folder) else runs_of_search(folder)))
        for folder in folders
    ]
    first, genres, _ = read[0]
    for folder, others, _ in read:
        if others != genres:
            raise RequestError(
                f"searches must be over the same genres, but {first} has {', '.join(genres)} and "
                f"{folder} has {', '.join(others)}: compare them in two calls"
            )
    return genres, [model for *_, models in read for model in models]


def _is_saved(folder: Path) -> bool:
    return (folder / SAVED).is_file() and not (folder / SEARCH).exists()


def runs_of_search(folder: Path) -> tuple[list[str], list[ModelRun]]:
    """A finished search's genres, and its models with what they predicted."""
    result = load_search(folder)
    ensemble = result.ensemble
    if not result.finished or ensemble is None:
        raise RequestError(
            f"only finished searches can be compared, but {folder} is unfinished: continue it by "
            f"python -m mgc_ray.search --resume {folder.name} --results {folder.parent}, or leave "
            "it out"
        )
    families = tuple(sorted(result.config.family))
    number, _, folds = ensemble.fold.partition("/")
    runs = []
    for name, model in ensemble.models.items():
        if name == ENSEMBLE and len(families) == 1:  # the same model as that family's own
            continue
        part = TEST if model.test else ensemble.selected_on
        metrics = model.test or model.held_out
        predictions = result.predictions.of(name, part)
        if predictions is None or len(predictions.true) != metrics.tracks:
            count = 0 if predictions is None else len(predictions.true)
            raise RequestError(
                f"{folder} must have the predictions for the {metrics.tracks} tracks that the "
                f"metrics of {name} are of, but it has {count}: {_AGAIN}"
            )
        key = RowKey(
            model=name,
            families=families,
            protocol=ensemble.protocol,
            leaky=ensemble.leaky,
            folds=int(folds) if folds else None,
            refitted=ensemble.selected_on == OUT_OF_FOLD,
            trained_on=_also_trained_on(result, name),
            part=part,
            tracks=short_name(ensemble.source),
            settings=tuple(settings_in_words(result)),
        )
        evaluated = Evaluated(
            predictions.track_id,
            predictions.group,
            predictions.true,
            predictions.predicted,
            metrics.chunk_accuracy,
            metrics.chunks,
        )
        runs.append(
            ModelRun(
                search=str(folder),
                key=key,
                seed=result.config.seed,
                split_seed=ensemble.split_seed,
                fold=int(number) if number else None,
                parameters=model.parameters,
                seconds=model.seconds,
                evaluated=evaluated,
            )
        )
    return list(ensemble.genres), runs


def _also_trained_on(result: SearchResult, model: str) -> tuple[str, ...]:
    """What the weights were trained on besides the dataset itself, e.g. `other_music (tags)`.

    Only the family transfer starts from weights, so added tracks are all that others share.
    """
    ensemble = result.ensemble
    assert ensemble
    own = TrainedOn(ensemble.source, ensemble.protocol, "genres")
    starts = model in (ENSEMBLE, "transfer")
    return tuple(
        f"{short_name(one.source)} ({one.task})"
        for one in ensemble.trained_on
        if one != own and (starts or one.protocol == "added")
    )


def settings_in_words(result: SearchResult) -> Iterator[tuple[str, str]]:
    """Name and value of each setting that is not at its default, but for where and how fast."""
    config = result.config
    yield from _changed(config, "")
    for name, value in sorted(config.train.items()):
        yield f"train.{name}", str(value)


def _changed(config: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for option in options(type(config)):
        value = getattr(config, option.name)
        if option.is_section:
            yield from _changed(value, f"{option.name}.")
        elif option.compared and option.name != "train" and value != option.default:
            words = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            yield prefix + option.name, short_name(words) if "/" in words else words


def short_name(source: str) -> str:
    """A folder's name, or a table's with its folder's, whose place is different elsewhere."""
    path = Path(source)
    if path.name == "tracks.csv":
        return path.parent.name
    if path.suffix == ".csv":
        return "/".join(path.with_suffix("").parts[-2:])
    return path.name


# ---- comparison.parquet ----


def write_saved(path: Path, genres: Sequence[str], models: Sequence[ModelRun]) -> None:
    """Write all models, one row per prediction, in their order."""
    schema = _SCHEMA.with_metadata({"genres": "\n".join(genres)})
    rows = [row for model in models for row in _rows(model, genres)]
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")


def _rows(model: ModelRun, genres: Sequence[str]) -> Iterator[Params]:
    key, evaluated = model.key, model.evaluated
    of_model: Params = as_json(key) | {
        "search": model.search,
        "seed": model.seed,
        "split_seed": model.split_seed,
        "fold": model.fold,
        "tracks_table": key.tracks,
        "settings": [{"name": name, "value": value} for name, value in key.settings],
        "parameters": model.parameters,
        "seconds": model.seconds,
        "chunk_accuracy": evaluated.chunk_accuracy,
        "chunks": evaluated.chunks,
    }
    for track_id, group, true, predicted in zip(
        evaluated.track_id, evaluated.group, evaluated.true, evaluated.predicted, strict=True
    ):
        prediction = (str(track_id), str(group), genres[true], genres[predicted])
        yield of_model | dict(zip(_PREDICTION, prediction, strict=True))


def read_saved(path: Path) -> tuple[list[str], list[ModelRun]]:
    """The genres and models that `write_saved` was given; RequestError for any other file."""
    again = f"compare the searches again with --out {path.parent}"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RequestError(f"{path} cannot be read ({error}): {again}") from None
    metadata = table.schema.metadata or {}
    if b"genres" not in metadata or not table.schema.equals(_SCHEMA):
        raise RequestError(
            f"{path} must have the columns {', '.join(_SCHEMA.names)}, but it has "
            f"{', '.join(table.schema.names)}: {again}"
        )
    genres = metadata[b"genres"].decode().split("\n")
    of_model: dict[tuple[str, str, str], list[Params]] = {}
    for row in table.to_pylist():
        of_model.setdefault((row["search"], row["model"], row["part"]), []).append(row)
    wrong = "it has no predictions" if not of_model else None
    for rows in of_model.values():
        wrong = wrong or _wrong(rows, genres)
    if wrong:
        raise RequestError(f"{path} is not as it was written ({wrong}): {again}")
    return genres, [_model(rows, genres) for rows in of_model.values()]


def _wrong(rows: Sequence[Params], genres: Sequence[str]) -> str | None:
    """What `write_saved` would not have written as the rows of one model; None if nothing."""
    first, tracks = rows[0], set()
    for row in rows:
        where = f"model {row['model']} of {row['search']}, track {row['track_id']}"
        empty = [name for name, value in row.items() if value is None and name not in _MAY_BE_NULL]
        if empty:
            return f"{where}: no {empty[0]}"
        for name in ("genre", "predicted"):
            if row[name] not in genres:
                return f"{where}: {name} {row[name]} is none of {', '.join(genres)}"
        other = [name for name in row if name not in _PREDICTION and row[name] != first[name]]
        if other:
            return f"{where}: {other[0]} differs from that of {first['track_id']}"
        if row["track_id"] in tracks:
            return f"{where}: occurs twice"
        tracks.add(row["track_id"])
    if first["chunks"] < 1 or not 0 <= first["chunk_accuracy"] <= 1:
        return f"{where}: chunk_accuracy {first['chunk_accuracy']} of {first['chunks']} chunks"
    return None


def _model(rows: Sequence[Params], genres: Sequence[str]) -> ModelRun:
    """Of the rows of one model of one search."""
    first, number = rows[0], {genre: index for index, genre in enumerate(genres)}
    key = RowKey(
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
    evaluated = Evaluated(
        track_id=np.array([row["track_id"] for row in rows]),
        group=np.array([row["group"] for row in rows]),
        true=np.array([number[row["genre"]] for row in rows]),
        predicted=np.array([number[row["predicted"]] for row in rows]),
        chunk_accuracy=first["chunk_accuracy"],
        chunks=first["chunks"],
    )
    return ModelRun(
        search=first["search"],
        key=key,
        seed=first["seed"],
        split_seed=first["split_seed"],
        fold=first["fold"],
        parameters=first["parameters"],
        seconds=first["seconds"],
        evaluated=evaluated,
    )
