"""Every setting of the program, once: type, default, bounds and one sentence of help.

The command lines, `--config FILE.toml`, `search.json`, `--resume`, the help pages and the
signatures of the library's functions are made from these classes (see settings.py). Adding an
option is one field here and the place that uses it. A setting with a `flag` has an option of its
own; each of the others is given as `--set section.name=value` or in a file.

The settings of a model family are in its own file, `models/NAME.py`.
"""

from pathlib import Path
from typing import Any, Literal

from mgc_ray import RequestError
from mgc_ray.settings import Names, Objects, Params, configuration, setting

CHUNK_SECONDS = 66_000 / 22_050  # the published baseline's chunk: 66,000 samples at 22,050 Hz

Protocol = Literal[
    "grouped", "given", "fault-filtered", "cross-validation", "random-chunks", "unlabelled"
]
Metric = Literal["track_accuracy", "macro_f1", "log_loss"]
Part = Literal["train", "valid", "test"]

_MODEL_HELP = (
    "A search (its name or folder), a trial, an ensemble or a checkpoint (default: the ensemble "
    "that comes with the program)."
)
_TRACKS_HELP = (
    "Folder with one subfolder per genre, or a table (CSV, Parquet) "
    "path,genre[,track_id,artist,split]."
)


def _memory() -> Any:
    return setting(
        None,
        "A dataset whose features take more memory than this is streamed from disk in training "
        "(default: a quarter of the machine's memory).",
        flag=True,
        metavar="GIB",
        ge=0,
        compared=False,
    )


def memory_bytes(gib: float | None) -> int | None:
    """The setting `memory` in bytes."""
    return None if gib is None else int(gib * 2**30)


def _column(what: str, flag: bool = False) -> Any:
    text = f"Name of the table's column with {what}, where it is no usual one."
    return setting("", text, flag=flag, metavar="NAME", compared=False)


def _feature_files() -> Any:
    return setting((), "Files of features of your own.", flag="--features", metavar="FILE")


def _seed(help: str, compared: bool = True, flag: bool = True) -> Any:
    return setting(0, help, flag=flag, compared=compared, ge=0, le=2**31 - 1)


@configuration
class DatasetConfig:
    """Which tracks, how they are split, and what is computed from them.

    The same settings of the same files give the same dataset.
    """

    tracks: str = setting("", _TRACKS_HELP, flag=True, metavar="FOLDER_OR_CSV", compared=False)
    protocol: Protocol = setting(
        "grouped",
        "How tracks are split into parts; where --tracks has folders train, valid and test: given.",
        flag=True,
        compared=False,
    )
    fold: str = setting(
        "",
        "Which fold is the test part, of how many (2/5); for the protocol cross-validation.",
        flag=True,
        metavar="K/N",
        compared=False,
    )
    split_seed: int = _seed("Seed of the split.", compared=False)
    path_column: str = _column("the paths", flag=True)
    genre_column: str = _column("the genres", flag=True)
    artist_column: str = _column("the artists")
    split_column: str = _column("the split")
    drop_small_genres: bool = setting(
        False,
        "Leave out genres that have too few artists for the split, instead of refusing them.",
        flag=True,
        compared=False,
    )
    features: Names = setting(
        ("log_mel",),
        "What is computed from audio, one or several of log_mel, chroma, contrast, tempogram, mfcc "
        "and other files in data/features; musicnn for the outputs of a pre-trained music tagger, "
        "hf:MODEL for those of a Hugging Face audio encoder; ast:MODEL for what a Hugging Face "
        "Audio Spectrogram Transformer expects; a feature of your own as a path, ./my_encoder.py.",
        flag=True,
        metavar="FEATURE",
    )
    chunk_seconds: float = setting(
        CHUNK_SECONDS,
        "Length of a chunk of audio, in seconds.",
        flag=True,
        metavar="SECONDS",
        ge=1,
        le=60,
    )
    chunks_per_track: int = setting(
        10,
        "Into how many equal chunks a .npy array of the most common size is cut; 1 keeps it whole.",
        flag=True,
        metavar="N",
        ge=1,
    )
    array_layout: Literal["", "bands-frames", "frames-bands"] = setting(
        "",
        "What the two dimensions of .npy arrays are (default: bands-frames, unless their shapes "
        "say the other).",
    )
    array_recipe: Literal["", "gtzan"] = setting(
        "",
        "How .npy arrays were computed from audio (gtzan: as those of GTZAN), so that models that "
        "are trained on them also take audio.",
    )
    more_tracks: str = setting(
        "",
        "Labelled tracks that are added to the training part; those of artists in --tracks are "
        "left out.",
        flag=True,
        metavar="FOLDER_OR_CSV",
    )
    exclude_artists: str = setting(
        "",
        "Leave out tracks by the artists in the column `artist` of this table.",
        flag=True,
        metavar="CSV",
    )
    synthetic: int = setting(
        0,
        "How many generated tracks per genre are added to the training part; for the genres of "
        "the built-in corpus.",
        ge=0,
    )

    @property
    def labelled(self) -> bool:
        """Whether the tracks have genres to learn."""
        return self.protocol != "unlabelled"


@configuration
class TrainConfig:
    """How a model is trained; the defaults are the published baseline's (Adam, 0.001, 30 epochs).

    A family may have other defaults, see `TRAINING` in models/__init__.py.
    """

    max_epochs: int = setting(30, "Epochs at most.", ge=1)
    patience: int = setting(8, "Epochs without a better validation score before it ends.", ge=1)
    batch_size: int = setting(32, "Chunks per step.", ge=1, le=65_536)
    features: str = setting(
        "all",
        "Which features of the dataset the model reads, e.g. log_mel+chroma, "
        "musicnn[mean,tags] for some groups of outputs, or log_mel+musicnn for a network with two "
        "inputs.",
    )
    embedding_width: int = setting(
        64,
        "Of a network on spectrograms with an embedding as a second input: the values of the "
        "embedding's linear projection, which the last layer takes.",
        ge=1,
        le=16_384,
    )
    embedding_dropout: float = setting(
        0.5, "Dropout on the embedding, where it is a second input.", ge=0, lt=1
    )
    optimizer: Literal["adam", "adamw"] = setting("adam", "The optimiser.")
    lr: float = setting(1e-3, "Learning rate at its highest.", gt=0)
    weight_decay: float = setting(0.0, "Weight decay of the optimiser.", ge=0)
    warmup_epochs: int = setting(0, "Epochs in which the learning rate rises from 0.", ge=0)
    schedule: Literal["constant", "cosine"] = setting(
        "constant", "The learning rate after the warm-up; cosine falls to 0 at max_epochs."
    )
    label_smoothing: float = setting(0.0, "Label smoothing of the cross-entropy.", ge=0, lt=1)
    freq_mask: int = setting(16, "SpecAugment: widest mask, in bands.", ge=0)
    time_mask: float = setting(0.15, "SpecAugment: widest mask, as a share of frames.", ge=0, le=1)
    masks: int = setting(2, "SpecAugment: masks of each kind.", ge=0, le=100)
    mixup: float = setting(0.2, "Alpha of mixup's Beta distribution; 0 turns it off.", ge=0)
    time_shift: float = setting(
        0.0, "Roll in time by at most this share of the frames.", ge=0, le=1
    )
    pitch_shift: float = setting(0.0, "Transpose by at most this many bands.", ge=0)
    time_stretch: float = setting(
        0.0, "Slower or faster by at most this share: 0.1 is a tenth.", ge=0, le=1
    )
    gain: float = setting(
        0.0,
        "Augmentation by loudness: standard deviation of a random level that is added to all "
        "bands, in standard deviations of a band.",
        ge=0,
    )
    tilt: float = setting(
        0.0,
        "Augmentation by timbre: the same for a level that rises from the lowest to the highest "
        "band, so that music sounds darker or brighter.",
        ge=0,
    )
    crop: float = setting(
        1.0, "Share of a chunk's frames that the network sees at a time.", gt=0, le=1
    )
    crops: int = setting(1, "Random crops of each chunk per epoch.", ge=1)
    overlap: float = setting(
        0.5, "Share by which two crops of a chunk overlap in prediction.", ge=0, lt=1
    )
    averaging: float = setting(
        0.0, "Decay per step of the moving average of the weights; 0 turns it off.", ge=0, lt=1
    )
    folds: int = setting(
        0,
        "Of families that are solved for: folds of train + validation by which a trial is scored; "
        "0: by the validation part alone.",
        ge=0,
        le=20,
    )
    seed: int = _seed("Seed of weights, batches and augmentation.", flag=False)


@configuration
class TuneConfig:
    """How many trials, how long and where.

    ASHA's rungs are at 1, 3, 9 and 27 epochs, chosen on a table of 240 real outcomes with 50 seeds
    each (results/benchmarks.md): with rungs from 3 on the best accuracy over 400 epochs is 0.5 to
    0.6 points lower, from 5 on 1.1 to 1.3; factors of 2 to 4 differ by less than their intervals.
    """

    trials: int = setting(20, "Trials in total.", flag=True, ge=1)
    max_epochs: int = setting(30, "Epochs of a trial, at most.", flag=True, ge=1)
    grace_period: int = setting(1, "Epochs before ASHA may stop a trial.", ge=1)
    reduction_factor: int = setting(
        3, "ASHA lets one in this many of the trials at a rung continue.", ge=2
    )
    time_limit: float | None = setting(
        None,
        "End running trials after this time, and start no more.",
        flag=True,
        metavar="SECONDS",
        gt=0,
    )
    trial_timeout: float | None = setting(
        None,
        "End a trial that takes longer than this many seconds as failed.",
        gt=0,
        compared=False,
    )
    concurrent: int | None = setting(
        None,
        "Trials at the same time (default: as many as the CPUs or GPUs allow).",
        flag=True,
        ge=1,
        compared=False,
    )
    gpus_per_trial: float | None = setting(
        None,
        "Share of a GPU for each trial, up to 1 (default: where there are GPUs 0.25, or what "
        "--concurrent needs).",
        flag=True,
        ge=0,
        le=1,
        compared=False,
    )
    keep: int = setting(20, "How many of the best trials keep their weights.", ge=1, compared=False)
    warm_start: Names = setting(
        (),
        "Earlier searches, by name or folder, whose results this one starts from; their spaces may "
        "be different.",
        flag=True,
        metavar="NAME",
    )


@configuration
class EnsembleConfig:
    """How the best trials become one ensemble."""

    top_k: int = setting(5, "Trials that the ensemble is selected from.", flag=True, ge=1)
    refit_folds: int = setting(
        0,
        "Train the best configurations again on this many folds of train + validation, so that "
        "the models learn from all of it (5 is common; 0 uses the trials themselves).",
        flag=True,
        metavar="K",
        ge=0,
    )

    def __post_init__(self) -> None:
        if self.refit_folds == 1:
            raise RequestError(
                "--refit-folds must be 2 or more, as each model leaves one fold out, but it is 1"
            )


@configuration
class ClusterConfig:
    """Where the work runs."""

    address: str = setting(
        "",
        "A Ray cluster, e.g. ray-head:6379 (default: $RAY_ADDRESS, else this machine).",
        flag=True,
        compared=False,
    )
    storage: str = setting(
        "",
        "A bucket (s3://bucket/prefix) or folder for exchanging files between nodes that share no "
        "path.",
        flag=True,
        metavar="URI",
        compared=False,
    )


@configuration
class SearchConfig:
    """A search: dataset, trials, ensemble, test."""

    family: Names = setting(
        (),
        "Model families, or all; a family of your own as a path, ./my_family.py (default: those "
        "that are best for the features, listed below).",
        flag=True,
        metavar="NAME",
        compared=False,
    )
    name: str = setting(
        "", "Folder of this search (default: the families and a number).", flag=True, compared=False
    )
    results: str = setting(
        "results", "Where searches are written.", flag=True, metavar="DIR", compared=False
    )
    resume: str = setting(
        "",
        "Continue an interrupted search, by name or folder.",
        flag=True,
        metavar="NAME",
        compared=False,
    )
    seed: int = _seed("Seed of the sampler and of training.", compared=False)
    metric: Metric = setting(
        "track_accuracy", "What trials, early stopping and ensembles are ranked by.", flag=True
    )
    init_from: str = setting(
        "",
        "Weights that the family transfer starts from: a checkpoint, an ensemble, what "
        "mgc_ray.pretrain wrote, or a Hugging Face Audio Spectrogram Transformer (a folder or "
        "OWNER/NAME).",
        flag=True,
        metavar="MODEL",
    )
    callbacks: Objects = setting(
        (),
        "What hears of the search as it runs: mlflow, a callback of an installed package, or of "
        "your own as a path, ./my_callback.py.",
        flag=True,
        metavar="NAME",
        compared=False,
    )
    memory: float | None = _memory()
    smoke: bool = setting(False, "The smallest run that goes through every step.", flag=True)
    dataset: DatasetConfig = setting(DatasetConfig(), "")
    train: Params = setting({}, "Settings of the families and of training that all trials share.")
    tuning: TuneConfig = setting(TuneConfig(), "")
    ensemble: EnsembleConfig = setting(EnsembleConfig(), "")
    cluster: ClusterConfig = setting(ClusterConfig(), "")

    @property
    def folder(self) -> Path:
        return Path(self.results) / self.name


@configuration
class PreprocessConfig:
    """A dataset from a folder or table of music."""

    folder: Path = setting(..., "Where to write the dataset.", flag="--dataset", metavar="DIR")
    overwrite: bool = setting(
        False, "Delete what the folder holds and start from scratch.", flag=True
    )
    dataset: DatasetConfig = setting(DatasetConfig(), "")
    cluster: ClusterConfig = setting(ClusterConfig(), "")


@configuration
class TrainCommandConfig:
    """One configuration, trained without Ray."""

    family: str = setting(..., "A model family, or the path of your own.", flag=True)
    feature_files: Names = _feature_files()
    dataset: Path = setting(..., "What preprocess wrote.", flag=True, metavar="DIR")
    out: Path | None = setting(None, "Where to write the checkpoint.", flag=True, metavar="DIR")
    init_from: str = setting(
        "", "Weights that the family transfer starts from.", flag=True, metavar="MODEL"
    )
    seed: int = _seed("Seed of weights and batches.")
    metric: Metric = setting("track_accuracy", "What the best epoch is chosen by.", flag=True)
    memory: float | None = _memory()
    train: Params = setting({}, "Settings of the family and of training.")


@configuration
class PretrainConfig:
    """Weights learnt from recordings without genres."""

    family: str = setting("gru", "A model family, or the path of your own.", flag=True)
    feature_files: Names = _feature_files()
    dataset: Path = setting(
        ..., "What preprocess --protocol unlabelled wrote.", flag=True, metavar="DIR"
    )
    out: Path = setting(..., "Where to write the weights.", flag=True, metavar="DIR")
    seed: int = _seed("Seed of weights and batches.")
    memory: float | None = _memory()
    train: Params = setting({}, "Settings of the family and of training.")


@configuration
class EvaluateConfig:
    """A model on labelled tracks."""

    model: str = setting("", _MODEL_HELP, flag=True, metavar="DIR")
    tracks: str = setting(..., _TRACKS_HELP, flag=True, metavar="FOLDER_OR_CSV")
    split: Part | None = setting(None, "Only the rows of this part.", flag=True)
    path_column: str = _column("the paths", flag=True)
    genre_column: str = _column("the genres", flag=True)
    artist_column: str = _column("the artists")
    split_column: str = _column("the split")
    family: Names = setting((), "Files of families of your own.", flag=True)
    feature_files: Names = _feature_files()


@configuration
class EnsembleCommandConfig:
    """One ensemble of the best trials of several searches."""

    searches: tuple[Path, ...] = setting(
        ..., "Searches over one dataset, by name or folder.", positional=True, metavar="RESULTS"
    )
    out: Path = setting(..., "Where to save the ensemble.", flag=True, metavar="DIR")
    top_k: int = setting(5, "Trials that the ensemble is selected from.", flag=True, ge=1)
    half: bool = setting(False, "Save weights in 16 bits: half the size.", flag=True)
    family: Names = setting((), "Files of families of your own.", flag=True)
    feature_files: Names = _feature_files()


@configuration
class CompareConfig:
    """Finished searches side by side."""

    searches: tuple[Path, ...] = setting(
        ...,
        "Finished searches, by name or folder, or the --out folder of an earlier comparison.",
        positional=True,
        metavar="RESULTS",
    )
    out: Path | None = setting(
        None, "Save tables, figures and all predictions there.", flag=True, metavar="DIR"
    )


@configuration
class PredictConfig:
    """Genres of files or of a whole library."""

    files: Names = setting(
        ...,
        "Audio files, folders of such, or tables (.csv, .parquet) of such; with --out one folder.",
        positional=True,
        metavar="FILE_OR_FOLDER",
    )
    path_column: str = _column("the paths", flag=True)
    model: str = setting("", _MODEL_HELP, flag=True, metavar="DIR")
    out: Path | None = setting(
        None,
        "Predict everything in a folder on all cores, one row per file, into this .parquet or "
        ".csv; when run again, only what is new.",
        flag=True,
        metavar="TABLE",
    )
    playlists: Path | None = setting(
        None, "With --out: write one M3U playlist per genre there.", flag=True, metavar="DIR"
    )
    embeddings: bool = setting(
        False, "With --out: add each song's embedding, which `similar` needs.", flag=True
    )
    address: str = setting("", "With --out: a Ray cluster, e.g. ray-head:6379.", flag=True)
    family: Names = setting((), "Files of families of your own.", flag=True)
    feature_files: Names = _feature_files()


@configuration
class ServeConfig:
    """A model behind HTTP."""

    model: str = setting("", _MODEL_HELP, flag=True, metavar="DIR")
    host: str = setting(
        "127.0.0.1",
        "Address to listen on; 0.0.0.0 (or ::, also by IPv6) admits everyone who reaches this "
        "machine.",
        flag=True,
    )
    port: int = setting(8000, "Port to listen on.", flag=True, ge=1, le=65_535)
    replicas: int | None = setting(
        None, "Copies of the model (default: one per CPU or GPU).", flag=True, ge=1
    )
    max_megabytes: float = setting(50.0, "Size of a file, at most.", flag=True, gt=0)
    max_seconds: float = setting(1200.0, "Length of a song, at most.", flag=True, gt=0)
    timeout: float = setting(
        60.0, "Time in which a request is answered.", flag=True, metavar="SECONDS", gt=0
    )
    queue: int = setting(64, "Songs that may wait; more are refused.", flag=True, ge=1)
    token: Path | None = setting(
        None,
        "File with the token that requests must have (default: $MGC_RAY_TOKEN, else none is "
        "needed); needed where others can reach it.",
        flag=True,
        metavar="FILE",
    )
    cors: Names = setting(
        (),
        "Origins of other pages that may use it from a browser, as https://music.example, or *.",
        flag=True,
        metavar="ORIGIN",
    )
    hosts: Names = setting(
        (),
        "Names under which browsers reach it, as behind a reverse proxy; this machine's need not "
        "be given.",
    )
    address: str = setting(
        "",
        "A Ray cluster, e.g. ray-head:6379 (default: $RAY_ADDRESS, else this machine).",
        flag=True,
    )
    family: Names = setting((), "Files of families of your own.", flag=True)
    feature_files: Names = _feature_files()


@configuration
class ExportConfig:
    """A model as one ONNX file."""

    songs: Names = setting(
        (), "Songs to check the file on (default: generated ones).", positional=True, metavar="SONG"
    )
    model: str = setting("", _MODEL_HELP, flag=True, metavar="DIR")
    onnx: Path = setting(..., "Where to write the file.", flag=True, metavar="FILE")
    family: Names = setting((), "Files of families of your own.", flag=True)
    feature_files: Names = _feature_files()


@configuration
class ReportConfig:
    """One page about one or several searches."""

    searches: tuple[Path, ...] = setting(
        ..., "Searches, by name or folder.", positional=True, metavar="RESULTS"
    )
    out: Path | None = setting(
        None,
        "The page to write (default: report.html in the folder of the search, or of the first).",
        flag=True,
        metavar="FILE",
    )


@configuration
class ShowConfig:
    """A search, or some of its trials, on the terminal."""

    search: str = setting(..., "A search, by name or folder.", positional=True, metavar="SEARCH")
    trials: Names = setting(
        (),
        "Trials of it, e.g. gru-0002, of which all settings are shown.",
        positional=True,
        metavar="TRIAL",
    )


@configuration
class SynthConfig:
    """The built-in corpus as WAV files."""

    out: Path = setting(..., "Where to write it.", flag=True, metavar="DIR")
    tracks_per_genre: int = setting(..., "Tracks of each of the ten genres.", flag=True, ge=1)
    seed: int = _seed("Another seed gives another corpus.")
    seconds: float = setting(30.0, "Length of a track.", flag=True, gt=0)
    workers: int | None = setting(None, "Processes (default: one per core).", flag=True, ge=1)


@configuration
class SimilarConfig:
    """The songs of a library that are most like one song."""

    song: str = setting(
        ..., "An audio file, or a path that the table lists.", positional=True, metavar="SONG"
    )
    table: Path = setting(
        ..., "What predict --out TABLE --embeddings wrote.", flag="--in", metavar="TABLE"
    )
    count: int = setting(10, "How many songs to list.", flag=True, ge=1)
    playlist: Path | None = setting(
        None, "Write them as an M3U playlist too.", flag=True, metavar="FILE.m3u8"
    )
    music: Path | None = setting(
        None,
        "The library's folder, where it has moved since the table was made.",
        flag=True,
        metavar="DIR",
    )
    model: str = setting(
        "",
        "The ensemble that made the table, where it has moved since; for a song that the table "
        "does not list.",
        flag=True,
        metavar="DIR",
    )
    family: Names = setting((), "Files of families of your own.", flag=True)
