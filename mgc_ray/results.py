"""What a search leaves behind, typed; this module alone knows the keys of its files.

    results/NAME/search.json           SearchResult: configuration, versions, protocol, figures
    results/NAME/config.toml           the same configuration; `--config` repeats the search
    results/NAME/trials/TRIAL/         TrialRecord in trial.json, and a checkpoint
    results/NAME/leaderboard.csv       one row per trial, best first
    results/NAME/predictions.parquet   one row per model, part and track (see `PREDICTIONS`)
    results/NAME/study.journal         Optuna's study
    results/NAME/code/                 copies of the files of families and features of one's own
    results/NAME/ensemble/             EnsembleInfo in ensemble.json, and the members' checkpoints

`load_search("results/NAME")` reads it. Accuracies are shares, 0..1.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic

from mgc_ray import RequestError
from mgc_ray.config import Metric, SearchConfig
from mgc_ray.data.files import atomic_write, read_typed, write_csv, write_json
from mgc_ray.data.untrusted import check_folder, read_table
from mgc_ray.settings import Params, as_json, nearest

if TYPE_CHECKING:
    import pandas as pd

# of a trial. STOPPED_EARLY: by ASHA; OUT_OF_TIME: by the search's time limit
RUNNING, COMPLETED, FAILED = "running", "completed", "failed"
STOPPED_EARLY, OUT_OF_TIME = "stopped_early", "out_of_time"
SEARCH, CONFIG, TRIAL, ENSEMBLE_JSON = "search.json", "config.toml", "trial.json", "ensemble.json"
CHECKPOINT_JSON = "config.json"
LEADERBOARD, JOURNAL, PREDICTIONS = "leaderboard.csv", "study.journal", "predictions.parquet"
REPORT = "report.html"
RESULTS = Path("results")  # where searches are that are given by their names
ENSEMBLE = "ensemble"  # the folder, and the model's name in tables
VALID, OUT_OF_FOLD, TEST = "valid", "out_of_fold", "test"  # parts of predictions

EpochMetrics = dict[str, float]  # one epoch of a trial, see training/epoch.py
FOLDS = "val_folds"  # the metric of an epoch that is a fold: how many there were so far

_NEARLY = 0.9  # of the accuracy that a model reaches
MODEL_REMEDY = "give a search, one of its trials, what mgc_ray.ensemble wrote, or a checkpoint"
_LEADERBOARD_METRICS = ("val_track_accuracy", "val_chunk_accuracy", "val_macro_f1", "val_log_loss")


def in_words(name: str) -> str:
    """`stopped_early` as a person reads it."""
    return name.replace("_", " ")


# ---- figures ----


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a share, and how it was computed."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Metrics:
    """A model on labelled tracks. `confusion_matrix` counts [true genre, predicted genre]."""

    track_accuracy: float
    interval_95: Interval
    chunk_accuracy: float
    macro_f1: float
    log_loss: float
    calibration_error: float
    tracks: int
    chunks: int
    genres: tuple[str, ...]
    confusion_matrix: list[list[int]]

    def __str__(self) -> str:
        """E.g. `75.0% of 8 tracks (95 % interval 37.5% to 99.1%), chunks 75.0%, macro-F1 0.803`."""
        low, high = self.interval_95.low, self.interval_95.high
        return (
            f"{self.track_accuracy:.1%} of {self.tracks} tracks (95 % interval {low:.1%} to "
            f"{high:.1%}), chunks {self.chunk_accuracy:.1%}, macro-F1 {self.macro_f1:.3f}"
        )


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for K tracks: probabilities [K, genres], true genre indices [K].

    `part`: valid or out_of_fold, which the ensemble was selected on, or test.
    """

    model: str
    part: str
    track_id: np.ndarray
    group: np.ndarray
    true: np.ndarray
    probs: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        predicted: np.ndarray = self.probs.argmax(1)
        return predicted


@dataclass(frozen=True)
class PredictionTable:
    """The content of predictions.parquet."""

    genres: tuple[str, ...]
    seed: int
    split_seed: int
    fold: str
    split_id: str
    predictions: tuple[Predictions, ...]

    def of(self, model: str, part: str) -> Predictions | None:
        """The predictions of one model on one part, None where there are none."""
        for one in self.predictions:
            if (one.model, one.part) == (model, part):
                return one
        return None


def write_predictions(path: Path, table: PredictionTable) -> None:
    """Write one row per model, part and track.

    Columns: model, part, fold, seed, split_seed, split_id, track_id, group, genre (the true one)
    and prob_GENRE for each genre.
    """
    genres = np.array(table.genres, dtype=object)
    parts = []
    for one in table.predictions:
        count = len(one.true)
        columns: dict[str, Any] = {
            "model": [one.model] * count,
            "part": [one.part] * count,
            "fold": [table.fold] * count,
            "seed": pa.array([table.seed] * count, pa.int64()),
            "split_seed": pa.array([table.split_seed] * count, pa.int64()),
            "split_id": [table.split_id] * count,
            "track_id": [str(track) for track in one.track_id],
            "group": [str(group) for group in one.group],
            "genre": list(genres[one.true]),
        }
        probs = {f"prob_{g}": one.probs[:, i] for i, g in enumerate(table.genres)}
        parts.append(pa.table(columns | probs))
    with atomic_write(path) as temporary:
        pq.write_table(pa.concat_tables(parts), temporary, compression="zstd")


def read_predictions(path: Path, remedy: str = "run the search again") -> PredictionTable:
    """What `write_predictions` wrote; RequestError for a file that is missing or damaged."""
    try:
        table = read_table(path)
        genres = tuple(n.removeprefix("prob_") for n in table.column_names if n.startswith("prob_"))
        for name in table.column_names:
            if table[name].null_count:
                raise ValueError(f"{name} has empty cells")
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
        probs = np.stack([columns[f"prob_{genre}"] for genre in genres], axis=1).astype(float)
        index = {genre: i for i, genre in enumerate(genres)}
        true = np.array([index[genre] for genre in columns["genre"]], np.int64)
        seed, split_seed = int(columns["seed"][0]), int(columns["split_seed"][0])
        fold, split_id = str(columns["fold"][0]), str(columns["split_id"][0])
        keys = list(zip(columns["model"], columns["part"], strict=True))
        track_id, group = (columns[name].astype(str) for name in ("track_id", "group"))
    except FileNotFoundError:
        raise RequestError(f"{path} is missing: {remedy}") from None
    except (OSError, pa.ArrowException, LookupError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise RequestError(f"{path} cannot be read ({reason}): {remedy}") from None
    if not np.isfinite(probs).all():
        raise RequestError(f"{path} holds probabilities that are no numbers: {remedy}")
    predictions = []
    for model, part in dict.fromkeys(keys):
        rows = np.array([key == (model, part) for key in keys])
        predictions.append(
            Predictions(model, part, track_id[rows], group[rows], true[rows], probs[rows])
        )
    return PredictionTable(genres, seed, split_seed, fold, split_id, tuple(predictions))


# ---- checkpoints ----


@dataclass(frozen=True)
class TrainedOn:
    """Something that weights were trained on: the track table's name, its protocol, the task."""

    source: str
    protocol: str
    task: str

    def __str__(self) -> str:
        return f"{self.source} ({self.task})"


@dataclass(frozen=True)
class DatasetOrigin:
    """The dataset that a checkpoint was trained on."""

    protocol: str
    leaky: bool
    seed: int
    source: str
    split_id: str = ""  # see `split_identity`


@dataclass(frozen=True)
class CheckpointConfig:
    """The content of a checkpoint's config.json, see training/checkpoint.py.

    `params`: the family's Config and TrainConfig together, flat, defaults included. `trained_on`:
    first what frozen networks and its first weights had been trained on, if any.
    """

    version: str
    family: str
    params: Params
    features: Params
    genres: tuple[str, ...]
    trained_on: tuple[TrainedOn, ...]
    dataset: DatasetOrigin


def read_checkpoint_config(folder: Path, remedy: str) -> CheckpointConfig:
    """Read FOLDER/config.json; RequestError where there is none, or it is damaged."""
    check_folder(folder, CHECKPOINT_JSON)
    return read_typed(CheckpointConfig, folder / CHECKPOINT_JSON, "checkpoint", remedy)


# ---- ensembles ----


def _one_name(text: str) -> str:
    """Refuse what is no name of a single folder."""
    if not text or text in (".", "..") or "/" in text or "\0" in text:
        raise ValueError("it must be the name of a folder")
    return text


Name = Annotated[str, pydantic.AfterValidator(_one_name)]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Member:
    """A checkpoint of an ensemble. Its probabilities are calibrated by `temperature` first."""

    name: Name
    weight: Positive
    temperature: Positive = 1.0


@dataclass(frozen=True)
class ModelResult:
    """The ensemble, or the best of one family alone.

    `parameters` and `seconds` of training are those of all of its members together; `held_out` is
    measured on what the members were selected on.
    """

    parameters: int
    seconds: float
    held_out: Metrics
    test: Metrics | None = None


@dataclass(frozen=True)
class EnsembleInfo:
    """The content of ensemble.json. `models` has the key "ensemble" and one for each family."""

    version: str
    members: tuple[Member, ...]
    genres: tuple[str, ...]
    protocol: str
    leaky: bool
    fold: str
    split_seed: int
    source: str
    temperature: Positive
    selected_on: str  # valid or out_of_fold
    candidates: tuple[str, ...]
    trained_on: tuple[TrainedOn, ...]
    split_id: str = ""  # of the dataset, see `split_identity`
    known_tracks: tuple[str, ...] = ()  # hashes of the audio that it was trained or selected on
    accuracy_without_music: float | None = None  # see data/confounds.py
    warnings: tuple[str, ...] = ()  # of the dataset: what to know before figures are believed
    models: dict[str, ModelResult] = field(default_factory=dict)

    @property
    def held_out(self) -> Metrics:
        """Metrics on what the ensemble was selected on, so too high."""
        return self.models[ENSEMBLE].held_out

    @property
    def test(self) -> Metrics | None:
        return self.models[ENSEMBLE].test if ENSEMBLE in self.models else None

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """Those of the dataset, and one where the figures may not be of music at all."""
        accuracy, measured = self.accuracy_without_music, self.test or self.held_out
        if accuracy is None or accuracy < _NEARLY * measured.track_accuracy:
            return self.warnings
        return (
            *self.warnings,
            f"the genres of {accuracy:.1%} of the tracks can be told without any music, by how "
            "the files were made (sample rate, codec, bandwidth, loudness, length), and the "
            "ensemble is hardly better: its figures say little about other recordings",
        )

    @property
    def also_trained_on(self) -> str:
        """What some member was trained on besides the dataset itself; "" for nothing."""
        own = TrainedOn(self.source, self.protocol, "genres")
        others = [one for one in self.trained_on if one != own]
        words = ", ".join(map(str, others))
        if any(one.source == own.source for one in others):
            words += " - THE SAME TRACKS, so its weights may have seen those that it is tested on"
        return words

    def write(self, folder: Path) -> None:
        write_json(folder / ENSEMBLE_JSON, as_json(self))


def _checked(info: EnsembleInfo) -> EnsembleInfo:
    """Refuse an ensemble whose parts do not fit each other; what each must be, its types say."""
    total = sum(member.weight for member in info.members)
    names = [member.name for member in info.members]
    wrong = ""
    if not names or len(set(names)) < len(names):
        wrong = f"members must be different folders, at least one, but they are {names}"
    elif abs(total - 1) > 1e-6:
        wrong = f"weights must sum to 1, but their sum is {total:g}"
    elif not info.genres or len(set(info.genres)) < len(info.genres):
        wrong = f"genres must be different, at least one, but they are {list(info.genres)}"
    count = len(info.genres)
    for name, model in info.models.items():
        for metrics in filter(None, (model.held_out, model.test)):
            matrix = metrics.confusion_matrix
            if metrics.genres != info.genres or [*map(len, matrix)] != [count] * count:
                wrong = f"the metrics of {name} must be of the genres of the ensemble, but are not"
    if wrong:
        raise RequestError(wrong)
    return info


SavedEnsemble = Annotated[EnsembleInfo, pydantic.AfterValidator(_checked)]


def short_hash(content_hash: str) -> str:
    """As many digits of a track's content hash as `EnsembleInfo.known_tracks` has."""
    return content_hash[:16]


def model_folder(given: str | Path) -> Path:
    """The folder of the ensemble or checkpoint that is meant.

    Itself, that of a trial, or the ensemble of a search, by its name or any place in its folder.
    Raises RequestError for a search that has no ensemble yet.
    """
    given = Path(given)
    for folder in (given, given / "checkpoint"):
        if (folder / ENSEMBLE_JSON).exists() or (folder / CHECKPOINT_JSON).exists():
            return folder
    search = search_folder(given)
    ensemble = search / ENSEMBLE
    if (search / SEARCH).exists() and not ensemble.exists():
        raise RequestError(
            f"{search} has no ensemble yet: continue it by --resume {search.name}, or give one of "
            f"its trials ({search / 'trials' / 'NAME'})"
        )
    return ensemble if ensemble.exists() else given


def check_model(given: str | Path) -> None:
    """Raise RequestError where something is no ensemble and no checkpoint; no weights are read."""
    folder = model_folder(given)
    if (folder / CHECKPOINT_JSON).exists():
        read_checkpoint_config(folder, MODEL_REMEDY)
    else:
        read_ensemble_info(folder, MODEL_REMEDY)


def check_ensemble_folder(folder: Path) -> None:
    """Raise RequestError where writing an ensemble would delete something else."""
    if folder.exists() and not (folder / ENSEMBLE_JSON).exists() and any(folder.iterdir()):
        raise RequestError(f"{folder} holds other things: give a new folder for the ensemble")


def read_ensemble_info(folder: Path, remedy: str) -> EnsembleInfo:
    """Read FOLDER/ensemble.json; RequestError where there is none, or it is damaged."""
    check_folder(folder, ENSEMBLE_JSON)
    return read_typed(SavedEnsemble, folder / ENSEMBLE_JSON, "ensemble", remedy)


def member_folder(ensemble: Path, member: Member) -> Path:
    """Where a member's checkpoint is, in the folder of its ensemble."""
    return ensemble / "members" / member.name


# ---- trials ----


@dataclass
class TrialRecord:
    """One trial: its settings, how it went and why it ended.

    `curve` holds the metrics of each epoch; `best_epoch` counts from 1, 0 before any.
    """

    trial: str  # family and number, e.g. gru-0003
    family: str
    params: Params
    metric: Metric = "track_accuracy"  # which the best epoch is chosen by
    status: str = RUNNING
    reason: str = ""
    seconds: float = 0.0
    node: str = ""  # address of the one it ended on
    best_epoch: int = 0
    curve: list[EpochMetrics] = field(default_factory=list)
    split_id: str = ""  # of the dataset that it was trained on

    @property
    def epochs(self) -> int:
        return len(self.curve)

    @property
    def best(self) -> EpochMetrics:
        """Metrics of the best epoch, {} before the first."""
        return self.curve[self.best_epoch - 1] if self.best_epoch else {}

    @property
    def ended(self) -> bool:
        return self.status != RUNNING

    @property
    def usable(self) -> bool:
        """Whether a model came of it."""
        return bool(self.best) and self.status != FAILED

    @property
    def number(self) -> int:
        """7 of gru-0007."""
        return int(self.trial.rsplit("-", 1)[1])

    def write(self, folder: Path) -> None:
        """Write FOLDER/trial.json."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / TRIAL, as_json(self))


def read_records(trials: Path) -> list[TrialRecord]:
    """The records of all ended trials under a search's folder `trials`, by number."""
    records = [_read_record(path) for path in trials.glob(f"*/{TRIAL}")]
    return sorted(records, key=lambda record: record.number)


def _read_record(path: Path) -> TrialRecord:
    remedy = "delete the trial's folder"
    record = read_typed(TrialRecord, path, "trial", remedy)
    if (
        record.trial != path.parent.name
        or not re.fullmatch(r".+-\d+", record.trial)
        or not 0 <= record.best_epoch <= record.epochs
        or not all({*_LEADERBOARD_METRICS, "val_loss"} <= epoch.keys() for epoch in record.curve)
    ):
        raise RequestError(f"{path} is damaged, or that of another trial: {remedy}")
    return record


def ranked(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Best first; a tie goes to the lower validation loss, then to the earlier trial.

    Failed trials come after all others, also where they had good epochs before; so do, before
    these, trials that were stopped in a cross-validation.
    """
    from mgc_ray.task import WORST, score

    def key(record: TrialRecord) -> tuple[bool, bool, float, float, int]:
        value, tie = score(record.best, record.metric) if record.best else WORST
        # of fewer tracks than those of trials that were not stopped
        partial = FOLDS in record.best and record.status != COMPLETED
        return record.status == FAILED, partial, -value, -tie, record.number

    return sorted(records, key=key)


def leaderboard(records: Iterable[TrialRecord]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows, best first; parameters after the fixed columns, "" where absent."""
    ordered = ranked(records)
    names = sorted({name for record in ordered for name in record.params})
    header = ["trial", "family", "status", "epochs", *_LEADERBOARD_METRICS, "seconds", "reason"]
    rows = [
        [
            *(record.trial, record.family, record.status, record.epochs),
            *(record.best.get(name, "") for name in _LEADERBOARD_METRICS),
            *(round(record.seconds, 2), record.reason),
            *(record.params.get(name, "") for name in names),
        ]
        for record in ordered
    ]
    return [*header, *names], rows


def write_leaderboard(path: Path, records: Iterable[TrialRecord]) -> None:
    header, rows = leaderboard(records)
    shown = [
        [f"{cell:.6f}" if i in range(4, 8) and cell != "" else cell for i, cell in enumerate(row)]
        for row in rows
    ]
    write_csv(path, header, shown)


# ---- searches ----


@dataclass(frozen=True)
class TrialResources:
    """What each trial of a search gets, and how many run at the same time."""

    cpus_per_trial: float
    gpus_per_trial: float
    concurrent: int


@dataclass(frozen=True)
class SearchResult:
    """A search, finished or not; the content of search.json.

    `seconds` is the duration of the last run, where the search was resumed.
    """

    name: str
    config: SearchConfig
    command: str
    tracks: str
    versions: dict[str, str]
    commit: str | None = None
    family_files: tuple[str, ...] = ()  # of families outside the package
    feature_files: tuple[str, ...] = ()  # of features outside the package
    why_families: str = ""  # where none was asked for
    resumed: bool = False
    finished: bool = False
    failure: str = ""
    dataset: str = ""
    split_id: str = ""  # of the dataset, see `split_identity`
    protocol: str = ""
    fold: str = ""
    leaky: bool = False
    resources: TrialResources | None = None
    trial_counts: dict[str, int] = field(default_factory=dict)
    epochs: int = 0
    best_trial: TrialRecord | None = None
    ensemble: SavedEnsemble | None = None
    seconds: float = 0.0
    claims: tuple[str, ...] = ()  # of its drivers on its name in a storage, see data/storage.py
    # those of its trials that have ended, where they need not be read from their files
    ended: Annotated[tuple[TrialRecord, ...] | None, pydantic.Field(exclude=True)] = field(
        default=None, repr=False, compare=False
    )

    @property
    def folder(self) -> Path:
        return self.config.folder

    @property
    def test(self) -> Metrics | None:
        """The ensemble on the test part, None where there is none."""
        return self.ensemble.test if self.ensemble else None

    @property
    def best(self) -> TrialRecord | None:
        """The best trial by validation score."""
        return next((record for record in self.records if record.usable), None)

    @cached_property
    def records(self) -> list[TrialRecord]:
        """The trials that have ended, best first."""
        if self.ended is not None:
            return ranked(self.ended)
        return ranked(read_records(self.folder / "trials"))

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """The leaderboard: one row per trial, best first."""
        import pandas as pd

        header, rows = leaderboard(self.records)
        return pd.DataFrame(rows, columns=header)

    @cached_property
    def predictions(self) -> PredictionTable:
        return read_predictions(self.folder / PREDICTIONS)

    @property
    def dataset_folder(self) -> Path:
        """Where the dataset is, also where the results folder was moved."""
        dataset = Path(self.dataset)
        return dataset if dataset.exists() else self.folder.parent / "datasets" / dataset.name

    def check_has_dataset(self) -> None:
        """Raise RequestError for a search that was interrupted before its dataset was made."""
        if not self.dataset:
            raise RequestError(
                f"{self.folder} was interrupted before it had a dataset: continue it by python -m "
                f"mgc_ray.search --resume {self.name} --results {self.folder.parent}"
            )

    def with_trials(self, records: Sequence[TrialRecord]) -> "SearchResult":
        """With the counts of its trials."""
        counts = Counter(record.status for record in records)
        return replace(
            self,
            trial_counts=dict(counts),
            epochs=sum(record.epochs for record in records),
            ended=tuple(records),
        )

    def write(self) -> "SearchResult":
        """Write search.json."""
        write_json(self.folder / SEARCH, as_json(self))
        return self


def search_folder(given: str | Path) -> Path:
    """The folder of the search that is meant: by it, by a place in it, or by its name in results/.

    What is given, where that is no search.
    """
    given = Path(given)
    around = given.parents if given.exists() else ()
    for folder in (given, RESULTS / given, *around):
        if (folder / SEARCH).exists():
            return folder
    return given


def load_search(folder: str | Path) -> SearchResult:
    """A search's results, finished or not; RequestError for what is no search.

    `folder`: its own, a place in it, or its name where it is in the folder results.
    """
    given, folder = str(folder), search_folder(folder)
    near = "" if folder.exists() else nearest(given, sorted(search_names(RESULTS)))
    remedy = f"give a search, by its name or folder (results/NAME){near}"
    check_folder(folder, SEARCH)
    result = read_typed(SearchResult, folder / SEARCH, "search", remedy)
    # it may have been moved
    moved = replace(result.config, results=str(folder.parent), name=folder.name)
    return replace(result, name=Path(os.path.abspath(folder)).name, config=moved)


def search_names(results: Path) -> Iterator[str]:
    """The names of all searches in a results folder."""
    return (path.parent.name for path in results.glob(f"*/{SEARCH}"))
