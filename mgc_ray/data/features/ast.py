"""What a Hugging Face Audio Spectrogram Transformer (AST) expects, by its own feature extractor.

`--features ast:MODEL` takes the extractor's settings from a folder or hub entry; they are kept in
the dataset. A chunk is what the model takes at once, 10.24 s of 16 kHz audio for most models; its
values are normalised as the model was trained. Needs the library transformers
(`pip install "mgc-ray[hf]"`).
"""

import functools
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.hugging_face import import_transformers, read_pretrained
from mgc_ray.settings import Params, configuration, setting

if TYPE_CHECKING:
    from mgc_ray.data.decoded import DecodedTrack

ARGUMENT = "the model whose features they are: give ast:FOLDER or ast:OWNER/NAME"
_SAMPLE_RATE = 16_000  # Hz
_MOST = 100_000  # a damaged number would ask for all memory


@configuration
class Feature:
    """float32 [bands, frames], normalised."""

    kind: ClassVar[str] = "spectrogram"
    pitched: ClassVar[bool] = True

    bands: int = setting(128, "Mel bands.", ge=1, le=_MOST)
    frames: int = setting(1024, "Frames, 10 ms apart.", ge=1, le=_MOST)
    mean: float = setting(-4.2677393, "What is subtracted from each value.")
    std: float = setting(4.5689974, "Half of what each value is then divided by.", gt=0)
    do_normalize: bool = setting(True, "Whether values are normalised at all.")

    @property
    def chunk_seconds(self) -> float:
        return self.frames / 100

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def described(self) -> Params:
        return {
            "kind": "ast",
            "sample_rate": _SAMPLE_RATE,
            "extractor": "transformers.ASTFeatureExtractor",
            "arguments": self._arguments(),
            "in_words": "ASTFeatureExtractor of the library transformers with these arguments, of "
            "each chunk; its dimensions are swapped, as it gives [frames, bands].",
        }

    def _arguments(self) -> Params:
        return {
            "num_mel_bins": self.bands,
            "max_length": self.frames,
            "mean": self.mean,
            "std": self.std,
            "do_normalize": self.do_normalize,
        }

    def compute(self, track: "DecodedTrack") -> np.ndarray:
        extract = _extractor(self)
        chunks = track.chunks(_SAMPLE_RATE)
        values = extract(list(chunks), sampling_rate=_SAMPLE_RATE, return_tensors="np")
        found: np.ndarray = values["input_values"].transpose(0, 2, 1).astype(np.float32)
        return found


@functools.cache
def _extractor(feature: Feature) -> Any:
    with _without_filter_warning():
        return import_transformers().ASTFeatureExtractor(**feature._arguments())


def make(argument: str, chunk_seconds: float) -> Feature:
    """The features that a model expects, a folder or OWNER/NAME.

    Raises RequestError where transformers is not installed and for a model that cannot be read, is
    no AST, or takes another sample rate.
    """
    with _without_filter_warning():
        extractor = read_pretrained("ASTFeatureExtractor", argument)
    if extractor.sampling_rate != _SAMPLE_RATE:
        raise RequestError(
            f"an Audio Spectrogram Transformer must take {_SAMPLE_RATE} Hz, but {argument} takes "
            f"{extractor.sampling_rate} Hz: give another one"
        )
    return Feature(
        bands=extractor.num_mel_bins,
        frames=extractor.max_length,
        mean=float(extractor.mean),
        std=float(extractor.std),
        do_normalize=bool(extractor.do_normalize),
    )


class _without_filter_warning(warnings.catch_warnings):  # noqa: N801  used like a function
    """128 bands are narrower than the FFT's bins at the low end, and AST was trained like that."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        return entered
