"""What models hear: the features of a track, one file each, found by existing.

A feature's file holds `Feature`, a frozen dataclass of the settings that identify it, with

- `kind`: "spectrogram" (bands over time) or "embedding" (what a pre-trained network gives of a
  chunk, one frame for each of the patches that it takes at a time);
- `pitched`: whether neighbouring bands are neighbours in pitch, so that they can be transposed;
- `bands`, `frames`, `dtype`: the shape and type of a chunk, [bands, frames];
- `compute(track) -> [chunks, bands, frames]`;
- `described() -> dict`: how that is computed, for programs that do it without this one;

an embedding also

- `groups`: {name: how many of the bands}, the kinds of outputs in their order;
- `missing`, if it needs something that may not be installed: what, and how to install it, else "";
- `provenance`: the network with the licence of its weights, and what it has learnt, two texts;
- `sample_rate`, in Hz, where `compute` takes nothing of a track but `track.chunks(sample_rate)`: it
  can then be computed on a GPU, in another process than the one that decodes;

and `make(argument, chunk_seconds) -> Feature`, which `--features NAME` calls (`Feature()` where
there is none). A file that needs an argument, `--features NAME:ARGUMENT`, says in `ARGUMENT` which;
one that can take one lists them in `CHOICES`. `column(argument)` is the name of a column, NAME
where there is no such function, else NAME:... A feature that sets the length of a chunk itself has
`chunk_seconds`. Files that start with an underscore hold parts that features share; an encoder that
takes nothing but waveforms can inherit most of this from `Embedding`.

A feature may live outside of this package, in a file that is given as `--features ./my_encoder.py`
or by `register_feature`; the hash of that file is part of what its columns are.

A dataset has one column per feature. A track is decoded once for all of them (`DecodedTrack`).
"""

import dataclasses
import functools
import importlib
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from mgc_ray import RequestError
from mgc_ray.config import CHUNK_SECONDS, DatasetConfig
from mgc_ray.data.audio import UnusableTrackError, read_waveform
from mgc_ray.data.confounds import Properties
from mgc_ray.data.decoded import REFERENCE_RATE, DecodedTrack
from mgc_ray.data.features import _own
from mgc_ray.data.features._embedding import Embedding as Embedding
from mgc_ray.data.features.array import Array, is_array
from mgc_ray.data.own_files import own_code, read_source
from mgc_ray.settings import Params, as_json, nearest, validated

_LONGEST = 3600  # s; a damaged number would ask for all memory
_NOT_FOR_AUDIO = ("array",)
_RESERVED = ("all", "chunk", "track_id")  # the word for all, and other columns of a dataset
_NAMES = re.compile(r"(?:^|\+)(\w+)")  # in log_mel+musicnn[mean,tags]
_FILE = re.compile(r"(?P<path>.*?\.py)(:(?P<argument>.*))?")  # of one's own, in --features
TOO_SHORT = "shorter than half a chunk"


def no_fingerprint() -> np.ndarray:
    """That of what is compared with no other track; see copies.py for others."""
    return np.zeros(0, np.uint32)


class Feature(Protocol):
    """What every feature has; see above."""

    kind: ClassVar[str]
    pitched: ClassVar[bool]

    def __hash__(self) -> int: ...
    @property
    def bands(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def dtype(self) -> np.dtype: ...

    def compute(self, track: "DecodedTrack") -> np.ndarray:
        """All chunks of a track, in order: [chunks, bands, frames]."""

    def described(self) -> Params:
        """How `compute` does it, with nothing left out; `in_words` for people."""


@dataclass(frozen=True)
class TrackFeatures:
    """The features of one track: chunks [chunks, bands, frames] by name.

    `times`: see `DecodedTrack.times`; None for arrays, whose frame rate is not known. `too_short`
    says so of a track of which more than half of its one chunk is repetition: a dataset leaves it
    out, and a prediction for it is marked.
    """

    columns: dict[str, np.ndarray]
    seconds: float
    content_hash: str
    lost_seconds: float = 0.0  # of a damaged file
    times: np.ndarray | None = None
    too_short: str = ""
    fingerprint: np.ndarray = field(default_factory=no_fingerprint, compare=False)
    properties: Properties = field(default_factory=Properties)

    @property
    def chunks(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class FeatureSet:
    """The features of a dataset, or those that a model reads, by name.

    `files`: the hash of each file of one's own that computes some of them, by its name.
    """

    columns: dict[str, Feature]
    chunk_seconds: float = CHUNK_SECONDS  # of audio
    keep_end: bool = False
    files: dict[str, str] = field(default_factory=dict)

    def decode(self, path: str | Path) -> DecodedTrack:
        """Read a file; raise UnusableTrackError with the reason where it can be no track."""
        array = self._array
        if array and (is_array(path) or array.recipe is None):
            return DecodedTrack(array=array.read(path))
        return DecodedTrack(read_waveform(path), None, self.chunk_seconds, self.keep_end)

    def recut(self, track: DecodedTrack) -> DecodedTrack:
        """A track of audio that was decoded for other features, cut as these need it."""
        return DecodedTrack(track.waveform, None, self.chunk_seconds, self.keep_end)

    def compute(self, path: str | Path) -> TrackFeatures:
        """Decode a file once and compute all features; UnusableTrackError as `decode`."""
        return self.of(self.decode(path))

    def of(self, track: DecodedTrack) -> TrackFeatures:
        """The features of a decoded track."""
        columns = {name: self.column(name, track) for name in self.columns}
        array, waveform, times = self._array, track.waveform, None
        if waveform:
            times = array.times(waveform) if array else track.times
        return TrackFeatures(
            columns,
            track.seconds,
            track.content_hash(),
            waveform.lost_seconds if waveform else 0.0,
            times,
            self._too_short(track),
        )

    def column(self, name: str, track: DecodedTrack) -> np.ndarray:
        """One of the features of a decoded track."""
        return track.once(self.columns[name], lambda: self._compute(name, track))

    def _compute(self, name: str, track: DecodedTrack) -> np.ndarray:
        feature, file = self.columns[name], _file_of(name)
        if file not in self.files:
            return feature.compute(track)
        path, _ = _own.version(file, self.files[file])
        with own_code(path, UnusableTrackError):
            values = feature.compute(track)
        _own.check_values(path, feature, values)
        return values

    def _too_short(self, track: DecodedTrack) -> str:
        if track.array is not None:
            (array,) = self.columns.values()
            width, frames = track.array.shape[1], array.frames
            return f"{width} frames, {TOO_SHORT} (of {frames})" if 2 * width < frames else ""
        chunk = self.seconds_of_chunk
        short = 2 * track.seconds < chunk
        return f"{track.seconds:.2f} s, {TOO_SHORT} (of {chunk:.2f} s)" if short else ""

    @property
    def _array(self) -> Array | None:
        """The feature of precomputed spectrograms, which is alone where it is one."""
        return next((f for f in self.columns.values() if isinstance(f, Array)), None)

    @property
    def missing(self) -> str:
        """What must be installed before they can be computed, and how; empty for nothing."""
        reasons = (getattr(feature, "missing", "") for feature in self.columns.values())
        return next((reason for reason in reasons if reason), "")

    @property
    def takes_audio(self) -> bool:
        """Whether a file of audio can be read; if not, only arrays."""
        return self._array is None or self._array.recipe is not None

    @property
    def takes_arrays(self) -> bool:
        """Whether a file of a spectrogram can be read."""
        return self._array is not None

    @property
    def seconds_of_chunk(self) -> float:
        """How long a chunk of audio is; NaN where no audio is read."""
        return self._array.chunk_seconds if self._array else self.chunk_seconds

    def joins(self, other: "FeatureSet") -> bool:
        """Whether both can be computed together: equal chunks, and no name for two features."""
        if self._array or other._array:
            return self._array == other._array
        shared = self.columns.keys() & other.columns.keys()
        return (
            (self.chunk_seconds, self.keep_end) == (other.chunk_seconds, other.keep_end)
            and all(self.columns[name] == other.columns[name] for name in shared)
            and all(self.files.get(name, digest) == digest for name, digest in other.files.items())
        )

    @property
    def from_chunks(self) -> dict[str, int]:
        """Which are computed by networks from a track's chunks alone; the sample rate of each."""
        rates = {name: getattr(one, "sample_rate", None) for name, one in self.columns.items()}
        return {
            name: rate
            for name, rate in rates.items()
            if rate and self.columns[name].kind == "embedding"
        }

    def only(self, names: Sequence[str]) -> "FeatureSet":
        """Some of the features, in this order."""
        chosen = {name: self.columns[name] for name in names}
        kept = {_file_of(name) for name in names}
        files = {name: digest for name, digest in self.files.items() if name in kept}
        return dataclasses.replace(self, columns=chosen, files=files)

    def joined(self, other: "FeatureSet") -> "FeatureSet":
        """Both together, which `joins` must allow."""
        return dataclasses.replace(
            self, columns=self.columns | other.columns, files=self.files | other.files
        )

    @property
    def own_sources(self) -> dict[str, tuple[str, str]]:
        """Path and source of each file of one's own that computes some of them, by its name."""
        return {name: _own.version(name, digest) for name, digest in self.files.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        """To be pickled: another process knows a file of one's own by its source alone."""
        if not self.files:
            return FeatureSet, (self.columns, self.chunk_seconds, self.keep_end)
        return _unpickled, (self.own_sources, self.to_json())

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk in memory."""
        return sum(f.bands * f.frames * f.dtype.itemsize for f in self.columns.values())

    def __str__(self) -> str:
        """E.g. `log_mel 128 bands x 258 frames, 2.99 s per chunk`."""
        sizes = [f"{n} {f.bands} bands x {f.frames} frames" for n, f in self.columns.items()]
        seconds = "" if self._array else f", {self.chunk_seconds:.2f} s per chunk"
        return ", ".join(sizes) + seconds

    def described(self) -> Params:
        """How chunks are computed from a file, with nothing left out, as plain JSON values.

        {"audio": how files are decoded, "inputs": {name: one feature}}.
        """
        length = round(self.chunk_seconds * REFERENCE_RATE)
        end = "the last chunk ends with the song if half a chunk or more would be lost, else "
        audio = {
            "channels": "mean",
            "full_scale": 1.0,
            "resampling": "soxr_hq",
            "in_words": "Decoded at the file's own rate to floating point of full scale -1 to 1 "
            "(16-bit integers are divided by 32768), channels averaged, nothing else changed. Each "
            "input is computed from the whole song resampled to its sample rate by soxr's HQ "
            "(librosa.resample with res_type soxr_hq).",
        }
        chunks = {
            "seconds": self.chunk_seconds,
            "counted_at": REFERENCE_RATE,
            "counted_samples": length,
            "end": "kept" if self.keep_end else "dropped",
            "short": "repeated",
            "in_words": f"A song of n samples at r Hz has floor(n * {REFERENCE_RATE} / r) samples "
            f"at {REFERENCE_RATE} Hz, and as many chunks as {length} of these fit, at least one; "
            f"chunk i of an input begins at its sample i * round({self.chunk_seconds!r} * its "
            f"sample rate). At the end {end if self.keep_end else ''}what fills no chunk is "
            "dropped. A song shorter than a chunk is repeated from its beginning up to one.",
        }
        cut = {} if self._array else {"chunks": chunks}
        inputs = {
            name: {"shape": ["chunks", f.bands, f.frames], "dtype": str(f.dtype)}
            | cut
            | f.described()
            for name, f in self.columns.items()
        }
        return {"audio": audio, "inputs": inputs}

    def to_json(self) -> Params:
        """The settings as plain JSON values; `feature_set_from_json` takes them back."""
        columns = {name: as_json(feature) for name, feature in self.columns.items()}
        content = {
            "chunk_seconds": self.chunk_seconds,
            "keep_end": self.keep_end,
            "columns": columns,
        }
        return content | ({"files": dict(self.files)} if self.files else {})


def feature_set_from_json(content: Any) -> FeatureSet:
    """The features that `to_json` described.

    Raises RequestError for anything else, and MissingFileError for features of a file of somebody's
    own that was not given here, or not in this version.
    """
    try:
        files = {str(name): str(digest) for name, digest in content.get("files", {}).items()}
        columns = {
            str(name): validated(_module(name, files).Feature, settings)
            for name, settings in content["columns"].items()
        }
        if not columns:
            raise KeyError("columns")
        chunk_seconds = float(content["chunk_seconds"])
        if not 0 < chunk_seconds < _LONGEST:
            raise ValueError(f"chunks of {chunk_seconds:g} s")
        return FeatureSet(columns, chunk_seconds, bool(content["keep_end"]), files)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(
            f"the description of features is damaged or from another version ({error!r})"
        ) from None


def _unpickled(sources: dict[str, tuple[str, str]], content: Params) -> FeatureSet:
    for name, source in sources.items():
        _own.add_version(name, *source)
    return feature_set_from_json(content)


def feature_names() -> list[str]:
    """The names of all features of audio, sorted."""
    return sorted({*_shipped(), *_own.names()})


def _shipped() -> list[str]:
    found = (m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return sorted(name for name in found if name not in _NOT_FOR_AUDIO)


def register_feature(path: str | Path, source: str | None = None) -> str:
    """Make the feature in a Python file known by the file's name; that name.

    `source`: its content, where that is not what the file holds now. Raises RequestError for a file
    that cannot be read, is no Python, or has a feature's name.
    """
    path = Path(path)
    source = read_source(path, "--features") if source is None else source
    name, others = path.stem, [*_shipped(), *_NOT_FOR_AUDIO, *_RESERVED]
    if not name.isidentifier() or name in others:
        raise RequestError(
            f"--features {path} must be named like a Python variable, and unlike "
            f"{', '.join(others)}: rename the file"
        )
    _own.register_source(name, str(path.resolve()), source)
    return name


def named_features(given: Sequence[str]) -> tuple[str, ...]:
    """The features that `--features` gives: names, or paths of files, which are registered.

    An argument may follow either, after a colon.
    """
    return tuple(map(_named, given))


def _named(given: str) -> str:
    file = _FILE.fullmatch(given)
    if not file or given.partition(":")[0] in feature_names():
        return given
    name = register_feature(file["path"])
    return f"{name}:{file['argument']}" if file["argument"] else name


def feature_arguments(names: Sequence[str]) -> tuple[str, ...]:
    """What `--features` takes for these: the path where it was given as a file."""
    own = own_features()
    parts = [name.partition(":") for name in names]
    return tuple((own[n][0] if n in own else n) + colon + rest for n, colon, rest in parts)


def own_features() -> dict[str, tuple[str, str]]:
    """Path and source of each feature that was given as a file."""
    return {name: _own.version(name, _own.current(name)) for name in _own.names()}


def kinds_of(config: DatasetConfig, reads: str = "all") -> set[str]:
    """The kinds of features that a configuration asks for; those that are unknown left out.

    `reads`: which of them are read, as the setting `features` of training says it.
    """
    names = {_file_of(spec) for spec in named_features(config.features)} & set(feature_names())
    names = names & set(_NAMES.findall(reads)) or names
    kinds = {getattr(_module(name).Feature, "kind", "") for name in names}
    return kinds - {""}


def audio_features(config: DatasetConfig) -> FeatureSet:
    """The features of audio that a configuration asks for.

    Raises RequestError for a feature that is unknown or given twice.
    """
    # in one order, whatever the order in the request
    specs = sorted(named_features(config.features), key=lambda spec: (spec != "log_mel", spec))
    makers = {}
    for spec in specs:
        name, _, argument = spec.partition(":")
        _check_argument(name, argument)
        makers[_column(name, argument)] = functools.partial(_make, name, argument)
    if len(makers) < max(1, len(specs)):
        raise RequestError(
            f"--features must be one or several, each once, but it is {' '.join(config.features)!r}"
        )
    columns = {name: make(config.chunk_seconds) for name, make in makers.items()}
    lengths = {n: f.chunk_seconds for n, f in columns.items() if hasattr(f, "chunk_seconds")}
    files = {name: _own.current(name) for name in map(_file_of, columns) if name in _own.names()}
    if not lengths:
        return FeatureSet(columns, config.chunk_seconds, files=files)
    chunk_seconds = next(iter(lengths.values()))
    if config.chunk_seconds not in (CHUNK_SECONDS, chunk_seconds):
        raise RequestError(
            f"--chunk-seconds must be left out with {' and '.join(lengths)}, whose chunks last "
            f"{chunk_seconds:g} s, but it is {config.chunk_seconds:g}"
        )
    columns |= {n: make(chunk_seconds) for n, make in makers.items() if n not in lengths}
    return FeatureSet(columns, chunk_seconds, keep_end=True, files=files)


def _column(name: str, argument: str) -> str:
    """The name of a feature's column; of a file of one's own it is checked."""
    module = _module(name)
    if not hasattr(module, "column"):
        return name
    if name not in _own.names():
        return str(module.column(argument))
    with own_code(module.__file__):
        column = module.column(argument)
    if column != name and not (isinstance(column, str) and column.startswith(f"{name}:")):
        raise RequestError(
            f"{module.__file__}: column must give {name}, or {name}:..., but it gave {column!r}"
        )
    return str(column)


def _make(name: str, argument: str, chunk_seconds: float) -> Any:
    module = _module(name)
    if name not in _own.names():
        return module.make(argument, chunk_seconds)
    with own_code(module.__file__):
        make = getattr(module, "make", lambda argument, chunk_seconds: module.Feature())
        feature = make(argument, chunk_seconds)
        _own.check_feature(module.__file__, feature)
        return _own.identified(feature)


def _check_argument(name: str, argument: str) -> None:
    """Raise RequestError for `--features NAME:ARGUMENT` where there is no such thing."""
    if name not in feature_names():
        raise RequestError(
            f"--features must be among {', '.join(feature_names())}, or the path of a file, but it "
            f"is {name!r}{nearest(name, feature_names())}"
        )
    needed, choices = (getattr(_module(name), what, "") for what in ("ARGUMENT", "CHOICES"))
    if needed and not argument:
        raise RequestError(f"--features {name} needs {needed}")
    if argument and choices and argument not in choices:
        raise RequestError(
            f"--features {name} must be one of {', '.join(f'{name}:{c}' for c in choices)}, but it "
            f"is {name}:{argument}{nearest(argument, choices)}"
        )
    if argument and not needed and not choices:
        raise RequestError(
            f"--features {name} takes no argument, but it is {name}:{argument}: give {name}"
        )


def _file_of(column: Any) -> Any:
    """The name of a feature's file, by that of its column."""
    return column.partition(":")[0] if isinstance(column, str) else column


def _module(column: str, files: Mapping[str, str] | None = None) -> Any:
    """The file of a feature, by the name of its column.

    `files`: the hashes of files of one's own, where these are not what was given here last.
    """
    name = _file_of(column)
    if files and name in files:
        return _own.module(name, files[name])
    if files is None and name in _own.names():
        return _own.module(name, _own.current(name))
    if not isinstance(name, str) or name not in [*_shipped(), *_NOT_FOR_AUDIO]:
        raise RequestError(f"there is no feature {name!r}: {', '.join(feature_names())}")
    return importlib.import_module(f"{__name__}.{name}")
