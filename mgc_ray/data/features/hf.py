"""Hidden layers of a Hugging Face audio encoder: wav2vec2, HuBERT, WavLM, AST and the like.

`--features hf:OWNER/NAME`, or `hf:FOLDER`, takes any encoder of the library transformers that comes
with a feature extractor for audio (`pip install "mgc-ray[hf]"`). A chunk is what the network reads
at a time, so --chunk-seconds should be what it was trained on. Of each layer there are the mean and
the deviation over the time of the chunk. Code that comes with a model is never run.
"""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgc_ray.data.features._embedding import Embedding, weights_hash
from mgc_ray.data.hugging_face import read_encoder, stated_licence, stated_training
from mgc_ray.settings import Params, configuration, setting

if TYPE_CHECKING:
    import torch

ARGUMENT = "an audio encoder: give hf:FOLDER or hf:OWNER/NAME"
_MOST = 100_000  # a damaged number would ask for all memory


@configuration
class Feature(Embedding):
    """float16 [outputs, 1]: of a chunk, the mean and the deviation of each layer."""

    source: str = setting("", "Folder, or OWNER/NAME in the hub.")
    licence: str = setting("", "Licence of its weights, by its card.")
    learnt: str = setting("", "What it has learnt, by its card.")
    sample_rate: int = setting(16_000, "Hz.", ge=1, le=_MOST)
    layers: int = setting(
        13, "Layers with outputs, the input of the first included.", ge=1, le=1000
    )
    width: int = setting(768, "Values of a layer.", ge=1, le=_MOST)

    @property
    def groups(self) -> dict[str, int]:
        """How many bands each group of outputs has, in their order: mean and deviation."""
        return {f"layer{number}": 2 * self.width for number in range(self.layers)}

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float16)

    @property
    def provenance(self) -> tuple[str, str]:
        """The network with the licence of its weights, and what it has learnt."""
        name = Path(self.source).name if os.path.isabs(self.source) else self.source
        return f"{name}, licence {self.licence}", self.learnt

    def described(self) -> Params:
        return {
            "kind": "hf",
            "model": self.source,
            "weights": self.weights,
            "sample_rate": self.sample_rate,
            "groups": self.groups,
            "in_words": f"AutoModel of the library transformers gives all hidden states of "
            f"{self.source} for each chunk, as its own feature extractor prepares it; of each, the "
            "mean over time, then the deviation.",
        }

    def network(self) -> Any:
        extractor, network = read_encoder(self.source)
        network.extractor = extractor
        return network

    def outputs(self, network: Any, waveforms: "torch.Tensor") -> "torch.Tensor":
        import torch

        chunks = list(waveforms.cpu().numpy())
        prepared = network.extractor(chunks, sampling_rate=self.sample_rate, return_tensors="pt")
        states = network(**prepared.to(waveforms.device), output_hidden_states=True).hidden_states
        layers = torch.stack(states, 1).float()  # [B, layers, time, width]
        return torch.cat([layers.mean(2), layers.std(2, correction=0)], 2).flatten(1)


def make(argument: str, chunk_seconds: float) -> Feature:
    """RequestError where transformers is not installed, and for what is no audio encoder."""
    files = Path(argument).glob("*")
    return _described(argument, tuple(sorted((f.name, f.stat().st_mtime_ns) for f in files)))


@functools.cache
def _described(argument: str, files: tuple[tuple[str, int], ...]) -> Feature:
    """The same, once for as long as the files stay: a request is checked several times."""
    extractor, network = read_encoder(argument)
    folder = Path(argument)
    return Feature(
        source=str(folder.resolve() if folder.exists() else argument),
        weights=weights_hash(network),
        licence=stated_licence(argument),
        learnt=stated_training(argument),
        sample_rate=int(extractor.sampling_rate),
        layers=network.config.num_hidden_layers + 1,
        width=network.config.hidden_size,
    )


def column(argument: str) -> str:
    """The name of the column: that of the model, without the folders of this machine."""
    folder = Path(argument)
    return f"hf:{folder.resolve().name if folder.exists() else argument}"
