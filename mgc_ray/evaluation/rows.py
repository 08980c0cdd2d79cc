"""The rows of a comparison: one model under one protocol, over its runs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mgc_ray import RequestError
from mgc_ray.evaluation.intervals import Evaluated, mean_and_deviation, pooled
from mgc_ray.evaluation.metrics import macro_f1


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
    part: str  # that the model is evaluated on: test, valid, out_of_fold
    tracks: str  # the track table's name
    settings: tuple[tuple[str, str], ...]  # all other settings that are not at their defaults


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One model of one search. `seconds` is what training it took.

    `split_id`: of its dataset; "" for searches that recorded none.
    """

    search: str
    key: RowKey
    seed: int
    split_seed: int
    fold: int | None  # from 1
    parameters: int
    seconds: float
    split_id: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelRun(ModelInfo):
    """With what it predicted."""

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
    """RequestError where models of one key, split and fold had other tracks."""
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
        if one.split_id and other.split_id and one.split_id != other.split_id:
            raise RequestError(
                f"searches of one split must have been trained on the same tracks, but "
                f"{other.search} and {one.search} were not: the music was changed between them, so "
                "compare them in two calls, or search again"
            )
