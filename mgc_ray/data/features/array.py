"""Spectrograms that were made elsewhere: `.npy` arrays [bands, frames], cut into equal chunks.

Files may also hold [frames, bands], see `is_transposed`.

Values stay as they are, uint8 or float32: training standardises each band. A track shorter than a
chunk is repeated up to one. With a `recipe` of how the arrays were made, audio is taken too: each
of its excerpts becomes the array that would have been published, and is cut as that would be; an
incomplete last excerpt gives its whole chunks.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError, Waveform, check_openable
from mgc_ray.data.features._array_recipe import GTZAN_ARRAYS, ArrayRecipe
from mgc_ray.data.untrusted import LARGEST, check_regular, read_npy
from mgc_ray.settings import Params, configuration, setting

if TYPE_CHECKING:
    from mgc_ray.data.decoded import DecodedTrack

RECIPES = {"gtzan": GTZAN_ARRAYS}
_MOST = 10_000_000  # a damaged number would ask for all memory
_MOST_VALUES = 1 << 27  # of a file, and of a chunk
_SAME = 0.9  # of the files: so many have the same number of bands
_BANDS = frozenset(  # cepstra, mel bands, notes of some octaves, embeddings, bins of an FFT
    (
        *(12, 13, 20, 24, 26, 30, 36, 39, 40, 48, 60, 72, 80, 84, 96, 120, 160, 168, 192, 229, 240),
        *(252, 264, 320, 768, *(2**k for k in range(5, 13)), *(2**k + 1 for k in range(6, 13))),
    )
)


@configuration
class Array:
    """Chunks of `frames` frames. Raises RequestError for a recipe of arrays of other sizes."""

    kind: ClassVar[str] = "spectrogram"
    pitched: ClassVar[bool] = True

    bands: int = setting(..., "Bands of the arrays.", ge=1, le=_MOST)
    frames: int = setting(..., "Frames of a chunk.", ge=1, le=_MOST)
    value_type: Literal["uint8", "float32"] = setting(..., "Type of the values.")
    recipe: ArrayRecipe | None = setting(None, "How the arrays were made from audio.")
    transposed: bool = setting(False, "Whether files hold [frames, bands].")

    def __post_init__(self) -> None:
        if self.bands * self.frames > _MOST_VALUES:
            raise RequestError(
                f"a chunk must have at most {_MOST_VALUES} values, but it has {self.bands} x "
                f"{self.frames}: give shorter chunks"
            )
        made = self.recipe
        if made not in (None, *RECIPES.values()):
            raise RequestError(
                f"a recipe must be one of this program ({', '.join(RECIPES)}), but it is {made}: "
                "leave it out"
            )
        if made and (made.n_mels != self.bands or made.columns < self.frames):
            raise RequestError(
                f"a recipe must make the arrays that chunks are cut from, but it makes "
                f"{made.n_mels} bands x {made.columns} columns, and chunks have {self.bands} bands "
                f"x {self.frames} frames: leave the recipe out, or give the one of these arrays"
            )

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.value_type)

    def described(self) -> Params:
        from_audio = self.recipe.described() if self.recipe else None
        return {
            "kind": "array",
            "values": self.value_type,
            "files": "[frames, bands]" if self.transposed else "[bands, frames]",
            "recipe": from_audio,
            "in_words": f"A spectrogram [{self.bands} bands, frames] with values of the type "
            f"{self.value_type} as they are, cut into chunks of {self.frames} frames; an "
            "incomplete chunk at the end is dropped, and an array shorter than a chunk is repeated "
            "up to one. "
            + (
                f"From audio: {from_audio['in_words']} Each excerpt is cut by itself; only the "
                "first may be repeated."
                if from_audio
                else "How the arrays were made from audio is not known."
            ),
        }

    def read(self, path: str | Path) -> np.ndarray:
        """A file's array, [bands, frames]; UnusableTrackError as `read_array`."""
        array = read_array(path)
        return np.ascontiguousarray(array.T) if self.transposed else array

    def compute(self, track: "DecodedTrack") -> np.ndarray:
        """A track's chunks in order, [chunks, bands, frames] of `value_type`.

        Raises UnusableTrackError for an array of other bands or another type.
        """
        if track.array is not None:
            arrays = [self._checked(track.array)]
        else:
            assert self.recipe
            assert track.waveform
            arrays = self.recipe.arrays(track.waveform)
        counts = self._counts([array.shape[1] for array in arrays])
        pieces = [self._pieces(array, n) for array, n in zip(arrays, counts, strict=True)]
        return np.concatenate(pieces, dtype=self.dtype, casting="unsafe")

    @property
    def chunk_seconds(self) -> float:
        """Of audio; NaN without a recipe."""
        return self.frames * self.recipe.seconds_per_column() if self.recipe else float("nan")

    def times(self, waveform: Waveform) -> np.ndarray:
        """Where each chunk of audio starts and ends, in seconds, float64 [chunks, 2]."""
        assert self.recipe
        excerpts = self.recipe.excerpts(waveform)
        counts = self._counts([excerpt.columns for excerpt in excerpts])
        return np.array(
            [
                (excerpt.start + excerpt.seconds_per_column * self.frames * np.array([i, i + 1]))
                for excerpt, count in zip(excerpts, counts, strict=True)
                for i in range(count)
            ]
        )

    def _checked(self, array: np.ndarray) -> np.ndarray:
        if array.shape[0] != self.bands:
            other = array.shape[1] == self.bands
            raise UnusableTrackError(
                f"has {array.shape[0]} bands, but most arrays of this table have {self.bands}"
                f"{' (its dimensions seem to be swapped)' if other else ''}"
            )
        if self.dtype == np.uint8 and array.dtype != np.uint8:
            raise UnusableTrackError(f"holds {array.dtype}, but the others hold uint8")
        return array

    def _counts(self, widths: Sequence[int]) -> list[int]:
        """How many chunks a track's arrays of these widths give, the first at least one."""
        first, *others = widths
        return [max(1, first // self.frames), *(width // self.frames for width in others)]

    def _pieces(self, array: np.ndarray, count: int) -> np.ndarray:
        """The first pieces of an array, [count, bands, frames], repeated if there is no whole."""
        repeated = np.tile(array, -(-self.frames // array.shape[1]))[:, : count * self.frames]
        return repeated.reshape(self.bands, count, self.frames).swapaxes(0, 1)


Feature = Array


def is_array(path: str | Path) -> bool:
    """Whether a file is taken for a precomputed spectrogram, by its name."""
    return str(path).lower().endswith(".npy")


def read_array(path: str | Path) -> np.ndarray:
    """A `.npy` spectrogram [bands, frames], uint8 or a real type, or raise UnusableTrackError."""
    if not is_array(path):
        raise UnusableTrackError("not a .npy spectrogram, which this dataset or model is made of")
    check_openable(path)
    try:
        check_regular(Path(path), LARGEST)
        with open(path, "rb") as file:
            array = read_npy(file)
    # a damaged header also ends in SyntaxError, TokenError, OverflowError, ...
    except Exception as error:
        raise UnusableTrackError(f"no .npy array, or corrupt: {error}") from None
    if array.ndim != 2 or 0 in array.shape:
        raise UnusableTrackError(f"not a 2-D array [bands, frames] but {array.shape}")
    if array.size > _MOST_VALUES:
        raise UnusableTrackError(f"too large: {array.size} values, of at most {_MOST_VALUES}")
    if array.dtype.kind not in "uif":
        raise UnusableTrackError(f"holds {array.dtype}, not numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UnusableTrackError("holds NaN or infinity")
    if max(-float(array.min()), float(array.max())) > float(np.finfo(np.float32).max):
        raise UnusableTrackError("holds values beyond float32")
    if array.min() == array.max():
        raise UnusableTrackError(f"silent: every value is {array.flat[0]}")
    return array


def is_transposed(shapes: Counter[tuple[int, int]]) -> bool | None:
    """Whether files of these shapes hold [frames, bands]; None where either may be meant.

    Songs differ in frames, and not in bands. Where most are equal, the number that is usual for
    bands decides, and there are more frames than bands.
    """
    first, second = Counter[int](), Counter[int]()
    for (a, b), count in shapes.items():
        first[a] += count
        second[b] += count
    (a, count_a), (b, count_b) = first.most_common(1)[0], second.most_common(1)[0]
    if count_b < _SAME * shapes.total():
        return False
    if 2 * count_a < shapes.total():
        return True
    if a in _BANDS and b not in _BANDS:
        return False
    if b in _BANDS and a not in _BANDS:
        return True if a > b else None
    return False if a <= b else None


def array_shape(path: str | Path) -> tuple[tuple[int, int], np.dtype] | None:
    """Shape [bands, frames] and type of an array by its header alone; None where it has none."""
    try:
        check_regular(Path(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # as in `read_npy`
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # a damaged header also ends in SyntaxError, TokenError, OverflowError, ...
        return None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or 0 in array.shape:
        return None
    return (array.shape[0], array.shape[1]), array.dtype
