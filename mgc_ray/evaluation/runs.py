"""The models that a comparison is made of, read from finished searches and saved comparisons.

A saved comparison keeps every prediction in comparison.parquet, so that it can be made again, or
continued with more seeds, when the searches are gone. Its rows are predictions:

    model                               what it is, as JSON (`_SavedModel`)
    track_id, group, genre, predicted   genre is the true one
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from mgc_ray import RequestError
from mgc_ray.data.files import atomic_write
from mgc_ray.data.untrusted import parse_json, read_table
from mgc_ray.evaluation.intervals import Evaluated
from mgc_ray.evaluation.rows import ModelInfo, ModelRun, RowKey
from mgc_ray.results import (
    ENSEMBLE,
    OUT_OF_FOLD,
    SEARCH,
    TEST,
    SearchResult,
    TrainedOn,
    load_search,
)
from mgc_ray.settings import Params, as_json, options, validated

SAVED = "comparison.parquet"
_AGAIN = "search again under another --name"
_GENRES = b"genres"  # in the file's metadata


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
            f"mgc-ray search --resume {folder.name} --results {folder.parent}, or leave "
            "it out"
        )
    if result.predictions.split_id != ensemble.split_id:
        raise RequestError(
            f"{folder} must have the predictions of its own ensemble, but predictions.parquet is "
            f"of another split: {_AGAIN}"
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
                split_id=ensemble.split_id,
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


@dataclass(frozen=True, kw_only=True)
class _SavedModel(ModelInfo):
    """With what its predictions do not contain."""

    chunk_accuracy: Annotated[float, Field(ge=0, le=1)]
    chunks: Annotated[int, Field(gt=0)]


def write_saved(path: Path, genres: Sequence[str], models: Sequence[ModelRun]) -> None:
    """Write all models, one row per prediction, in their order."""
    tables, names = [], np.array(genres, dtype=object)
    for model in models:
        of = model.evaluated
        saved = _SavedModel(**_info(model), chunk_accuracy=of.chunk_accuracy, chunks=of.chunks)
        columns = {
            "model": [json.dumps(as_json(saved))] * len(of.true),
            "track_id": of.track_id.tolist(),
            "group": of.group.tolist(),
            "genre": names[of.true],
            "predicted": names[of.predicted],
        }
        tables.append(pa.table({n: pa.array(c, pa.string()) for n, c in columns.items()}))
    table = pa.concat_tables(tables).replace_schema_metadata({_GENRES: json.dumps(list(genres))})
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_saved(path: Path) -> tuple[list[str], list[ModelRun]]:
    """The genres and models that `write_saved` was given; RequestError for any other file."""
    again = f"compare the searches again with --out {path.parent}"
    models = []
    try:
        table = read_table(path)
        genres: list[str] = parse_json((table.schema.metadata or {})[_GENRES])
        number = {genre: index for index, genre in enumerate(genres)}
        columns = {name: table[name].to_pylist() for name in table.column_names}
        true, predicted = (
            np.array([number[genre] for genre in columns[name]]) for name in ("genre", "predicted")
        )
        track_id, group, model = (
            np.array(columns[name]) for name in ("track_id", "group", "model")
        )
        for text in dict.fromkeys(columns["model"]):
            saved = validated(_SavedModel, parse_json(text))
            rows = np.flatnonzero(model == text)
            if len(rows) != len(set(track_id[rows])):
                raise ValueError(f"a track of {saved.search} has two rows")
            evaluated = Evaluated(
                track_id=track_id[rows],
                group=group[rows],
                true=true[rows],
                predicted=predicted[rows],
                chunk_accuracy=saved.chunk_accuracy,
                chunks=saved.chunks,
            )
            models.append(ModelRun(**_info(saved), evaluated=evaluated))
    except (OSError, LookupError, ValueError, TypeError, RequestError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise RequestError(f"{path} cannot be read ({reason}): {again}") from None
    return genres, models


def _info(model: ModelInfo) -> Params:
    return {field.name: getattr(model, field.name) for field in fields(ModelInfo)}
