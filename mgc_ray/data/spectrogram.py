"""Tracks -> chunks: spectrograms [bands, frames] of equal size, many to a track.

Four kinds of features share one interface (`bands`, `frames`, `dtype`, `groups`, `inspect`,
`chunks`):

- `LogMel` (see `log_mel`): audio -> dB log-mel float32.
- `BandGroups` (see `band_groups`): audio -> log-mel, chroma, contrast, tempogram and MFCC, those
  that are asked for, stacked in bands.
- `AstFbank` (see `ast_fbank`): audio -> what an Audio Spectrogram Transformer learnt from.
- `Precomputed`: `.npy` spectrograms [bands, frames], cut into equal pieces; with a recipe of how
  they were made (see `array_recipe`) also audio.

`audio_features` chooses between the first two. Settings go to and come from JSON here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.array_recipe import GTZAN_ARRAYS, ArrayRecipe
from mgc_ray.data.ast_fbank import AstFbank, ast_features
from mgc_ray.data.audio import UnusableTrackError, check_openable, read_waveform
from mgc_ray.data.band_groups import BandGroups, import_librosa, ordered_groups
from mgc_ray.data.fields import check_fields
from mgc_ray.data.log_mel import AMIN, Inspection, LogMel, mel_filters

__all__ = [
    "AMIN",
    "GTZAN_ARRAYS",
    "ArrayRecipe",
    "AstFbank",
    "BandGroups",
    "Features",
    "Inspection",
    "LogMel",
    "Precomputed",
    "ast_features",
    "audio_features",
    "features_from_json",
    "features_to_json",
    "mel_filters",
    "read_array",
]

CHUNK_SECONDS = (1.0, 60.0)  # shortest and longest that can be asked for


@dataclass(frozen=True)
class Precomputed:
    """Spectrograms made elsewhere, `.npy` [bands, frames], cut into pieces of `frames` frames.

    Values stay as they are (`value_type`: "uint8" or "float32"): training standardises each band.
    A track shorter than a piece is repeated up to it. With a `recipe`, audio is taken too: each of
    its excerpts becomes the array that would have been published, and is cut as that would be; of
    a last excerpt that is incomplete, its whole pieces. Raises RequestError for a recipe of arrays
    of other bands, or of fewer columns than a piece.
    """

    bands: int
    frames: int
    value_type: str
    recipe: ArrayRecipe | None = None

    def __post_init__(self) -> None:
        made = self.recipe
        if made and (made.n_mels != self.bands or made.columns < self.frames):
            raise RequestError(
                f"a recipe must make the arrays that pieces are cut from, but it makes "
                f"{made.n_mels} bands x {made.columns} columns, and pieces are {self.bands} bands "
                f"x {self.frames} frames: leave the recipe out, or name the one of these arrays"
            )

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.value_type)

    @property
    def groups(self) -> dict[str, slice]:
        """Which bands belong together; of arrays made elsewhere nothing is known."""
        return {"precomputed": slice(0, self.bands)}

    def inspect(self, path: str | Path) -> Inspection:
        """Read a track and see that it is usable, or raise UnusableTrackError."""
        if self.recipe and not is_array(path):
            waveform = read_waveform(path)
            count = sum(self._counts(self.recipe.widths(waveform)))
            return Inspection(waveform.seconds, count, waveform.content_hash())
        array = self._read(path)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return Inspection(float("nan"), sum(self._counts([array.shape[1]])), digest)

    def chunks(self, path: str | Path) -> np.ndarray:
        """A track's chunks in their order, [chunks, bands, frames] of `value_type`."""
        if self.recipe and not is_array(path):
            arrays = self.recipe.arrays(read_waveform(path))
        else:
            arrays = [self._read(path)]
        counts = self._counts([array.shape[1] for array in arrays])
        pieces = [self._pieces(array, n) for array, n in zip(arrays, counts, strict=True)]
        return np.concatenate(pieces, dtype=self.dtype, casting="unsafe")

    def _read(self, path: str | Path) -> np.ndarray:
        array = read_array(path)
        if array.shape[0] != self.bands:
            raise UnusableTrackError(
                f"has {array.shape[0]} bands, but most arrays of this table have {self.bands}"
            )
        if self.dtype == np.uint8 and array.dtype != np.uint8:
            raise UnusableTrackError(f"holds {array.dtype}, but the others are of uint8")
        return array

    def _counts(self, widths: Sequence[int]) -> list[int]:
        """How many pieces a track's arrays of these widths give, the first at least one."""
        first, *others = widths
        return [max(1, first // self.frames), *(width // self.frames for width in others)]

    def _pieces(self, array: np.ndarray, count: int) -> np.ndarray:
        """The first pieces of an array, [count, bands, frames], repeated if there is no whole."""
        repeated = np.tile(array, -(-self.frames // array.shape[1]))[:, : count * self.frames]
        return repeated.reshape(self.bands, count, self.frames).swapaxes(0, 1)


Features = LogMel | BandGroups | AstFbank | Precomputed


def audio_features(
    groups: Sequence[str], chunk_seconds: float | None = None
) -> LogMel | BandGroups:
    """The features of audio with these groups of bands (see `band_groups`), in any order.

    Chunks of `chunk_seconds`, or of 66,000 samples for None. Raises RequestError for groups that
    are unknown, named twice or need librosa where that is not installed, and for chunks shorter
    than 1 s or longer than 60 s.
    """
    names = ordered_groups(groups)
    log_mel = LogMel() if chunk_seconds is None else _log_mel_of(chunk_seconds)
    if names == ("log_mel",):
        return log_mel
    import_librosa()
    return BandGroups(names, log_mel)


def _log_mel_of(chunk_seconds: float) -> LogMel:
    shortest, longest = CHUNK_SECONDS
    if not shortest <= chunk_seconds <= longest:
        raise RequestError(
            f"a chunk must last {shortest:g} to {longest:g} s, but {chunk_seconds:g} s is asked "
            "for: name a length in between"
        )
    return LogMel(chunk_samples=round(chunk_seconds * LogMel.sample_rate))


def is_array(path: str | Path) -> bool:
    """Whether a file is taken for a precomputed spectrogram, by its name."""
    return str(path).lower().endswith(".npy")


def read_array(path: str | Path) -> np.ndarray:
    """A `.npy` spectrogram [bands, frames], uint8 or a real type, or raise UnusableTrackError."""
    if not is_array(path):
        raise UnusableTrackError("not a .npy spectrogram, which this dataset or model is made of")
    check_openable(path)
    try:
        with open(path, "rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    # a damaged header also ends in SyntaxError, TokenError, OverflowError, ...
    except Exception as error:
        raise UnusableTrackError(f"no .npy array, or corrupt: {error}") from None
    if array.ndim != 2 or 0 in array.shape:
        raise UnusableTrackError(f"not a 2-D array [bands, frames] but {array.shape}")
    if array.dtype.kind not in "uif":
        raise UnusableTrackError(f"holds {array.dtype}, not numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UnusableTrackError("holds NaN or infinity")
    if max(-float(array.min()), float(array.max())) > float(np.finfo(np.float32).max):
        raise UnusableTrackError("holds values beyond float32")
    if array.min() == array.max():
        raise UnusableTrackError(f"silent: every value is {array.flat[0]}")
    return array


def features_to_json(features: Features) -> dict[str, Any]:
    """Settings as plain JSON values; `features_from_json` takes them back."""
    kind = next(
        kind for kind, features_class in _KINDS.items() if isinstance(features, features_class)
    )
    fields = asdict(features)
    if isinstance(features, BandGroups):
        fields["names"] = list(features.names)
    if isinstance(features, Precomputed) and not features.recipe:
        del fields["recipe"]  # as before there were recipes, so that earlier versions can read it
    return {"kind": kind} | fields


def features_from_json(settings: dict[str, Any]) -> Features:
    """The features that `features_to_json` described."""
    fields = dict(settings) if isinstance(settings, dict) else {}
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise RequestError(
            f"features must be one of {sorted(_KINDS)}, but the settings say {kind!r}: "
            "they were written by another version of this program"
        )
    try:
        for name in _NESTED.keys() & fields.keys():
            check_fields(_NESTED[name], fields[name], f"{kind} features", _is_usual)
            fields[name] = _NESTED[name](**fields[name])
        check_fields(_KINDS[kind], fields, f"{kind} features", _is_usual)
        if fields.get("value_type", "uint8") not in ("uint8", "float32"):
            raise RequestError(f"value_type must be uint8 or float32, not {fields['value_type']!r}")
        return _KINDS[kind](**fields)
    except TypeError as error:
        raise RequestError(f"the settings of {kind} features do not fit: {error}") from None


def _is_usual(name: str, value: int) -> bool:
    """Numbers of samples, frames and bands; a damaged one would ask for all memory."""
    return 1 <= value <= 10_000_000


_KINDS: dict[str, Any] = {
    "log_mel": LogMel,
    "band_groups": BandGroups,
    "ast_fbank": AstFbank,
    "precomputed": Precomputed,
}
_NESTED: dict[str, Any] = {"log_mel": LogMel, "recipe": ArrayRecipe}  # fields of theirs
