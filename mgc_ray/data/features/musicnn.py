"""Outputs of the music taggers of the package musicnn: frozen networks, pre-trained on tags.

`--features musicnn` takes MSD_musicnn, `--features musicnn:MTT_vgg` another one. A chunk is read in
patches of 3 s, one frame of the embedding each; a shorter chunk is repeated up to one. Bands are
groups of outputs, see `groups`.

    source    J. Pons, X. Serra, "musicnn: pre-trained convolutional neural networks for music
              audio tagging", late-breaking demo, ISMIR 2019; https://github.com/jordipons/musicnn
    licence   ISC; the weights come with the package on PyPI, of which nothing else is used
    trained   MSD: tags of some 200,000 songs of the Million Song Dataset (Last.fm); MTT: of some
              19,000 clips of MagnaTagATune

The package is not imported, as it needs old versions of others. It is installed without these:
`pip install --no-deps musicnn==0.1.0`; or $MUSICNN gives its wheel, or the folder in it.
"""

import functools
import importlib.util
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.device import best_device, frozen
from mgc_ray.data.features._tf_checkpoint import read_tensors
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.settings import Params, configuration, setting

if TYPE_CHECKING:
    from mgc_ray.data.decoded import DecodedTrack

Model = Literal["MSD_musicnn", "MSD_vgg", "MTT_musicnn", "MTT_vgg"]
CHOICES = ("MSD_musicnn", "MSD_vgg", "MTT_musicnn", "MTT_vgg")

_MEL = LogMel(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=96)
_PATCH = 187  # frames
_PATCH_SAMPLES = (_PATCH - 1) * _MEL.hop_length
_BATCH = 16  # patches at a time
_GROUPS = {
    "musicnn": {"mean": 753, "max": 753, "penultimate": 200, "tags": 50},
    "vgg": {"mean": 128, "max": 128, "penultimate": 256, "tags": 50},
}
_DATA = {
    "MSD": "tags of the Million Song Dataset (Last.fm)",
    "MTT": "tags of MagnaTagATune",
}
_INSTALL = "pip install --no-deps musicnn==0.1.0, or set MUSICNN to the path of its wheel"


@configuration
class Feature:
    """float32 [outputs, patches of a chunk]."""

    kind: ClassVar[str] = "embedding"
    pitched: ClassVar[bool] = False

    model: Model = setting("MSD_musicnn", "The network.")
    chunk_samples: int = setting(47_891, "Samples of a chunk at 16 kHz.", ge=1, le=10_000_000)

    @property
    def groups(self) -> dict[str, int]:
        """How many bands each group of outputs has, in their order.

        mean, max: of the channels of all layers over time (vgg: of the fourth layer over time and
        pitch); penultimate: the layer before the tags; tags: probabilities.
        """
        return _GROUPS[self._kind]

    @property
    def sample_rate(self) -> int:
        return _MEL.sample_rate

    @property
    def bands(self) -> int:
        return sum(self.groups.values())

    @property
    def frames(self) -> int:
        return max(1, (1 + self.chunk_samples // _MEL.hop_length) // _PATCH)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    @property
    def missing(self) -> str:
        """How to install the weights where they are not there."""
        try:
            _package()
        except RequestError as error:
            return str(error)
        return ""

    @property
    def provenance(self) -> tuple[str, str]:
        """The network with the licence of its weights, and what it has learnt."""
        return f"{self.model} of musicnn 0.1.0, ISC licence", _DATA[self.model[:3]]

    @property
    def _kind(self) -> str:
        return self.model.partition("_")[2]

    def described(self) -> Params:
        described = _MEL.described()
        return {
            "kind": "musicnn",
            "model": self.model,
            "patch_frames": _PATCH,
            "groups": self.groups,
            "in_words": f"Each chunk's mel spectrogram is cut into patches of {_PATCH} frames; "
            "what fills none is left out, and a shorter chunk is repeated. The network "
            f"{self.model} of the package musicnn 0.1.0 gives the groups of outputs, one frame per "
            "patch. Its input is log10(1 + 10000 x) of the power x, rounded to float16. The "
            "spectrogram: " + described["in_words"].partition(" 10 log10")[0],
            **{name: described[name] for name in ("sample_rate", "stft", "window_is", "mel")},
        }

    def compute(self, track: "DecodedTrack") -> np.ndarray:
        chunks = track.chunks(_MEL.sample_rate)
        if chunks.shape[1] < _PATCH_SAMPLES:
            chunks = np.tile(chunks, -(-_PATCH_SAMPLES // chunks.shape[1]))[:, :_PATCH_SAMPLES]
        # float16, as the networks were trained on; the logarithm's argument would overflow in it
        power = _MEL.power(chunks).astype(np.float16).astype(np.float32)
        mel = np.log10(1 + 10_000 * power)[:, :, : self.frames * _PATCH]
        patches = mel.reshape(len(mel), mel.shape[1], self.frames, _PATCH).swapaxes(1, 2)
        outputs = _outputs(self.model, patches.reshape(-1, mel.shape[1], _PATCH))
        return outputs.reshape(len(mel), self.frames, self.bands).swapaxes(1, 2)


def _outputs(model: str, patches: np.ndarray) -> np.ndarray:
    """Patches [n, 96, 187] -> all groups of outputs, [n, values]."""
    import torch

    network, device = _network(model)
    with frozen():
        found = [
            torch.cat([*network(torch.from_numpy(part).to(device)).values()], 1).cpu().numpy()
            for part in np.split(patches, range(_BATCH, len(patches), _BATCH))
        ]
    return np.concatenate(found)


@functools.cache
def _network(model: str) -> tuple[Any, Any]:
    """The network with its weights, and the device that it is on."""
    from mgc_ray.data.features._musicnn_networks import MusicNN, Vgg

    network = (Vgg if model.endswith("vgg") else MusicNN)().eval()
    load_weights(network, model)
    device = best_device()
    return network.to(device), device


def load_weights(network: Any, model: str) -> None:
    """Give a network its weights; RequestError where the package is missing or damaged."""
    place = _package()
    try:
        index, data = (
            _read(place, f"{model}/{name}") for name in (".index", ".data-00000-of-00001")
        )
        network.load(read_tensors(index, data))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RequestError(
            f"the weights of {model} cannot be read from {place} ({error}): install the package "
            f"musicnn again ({_INSTALL})"
        ) from None


def _package() -> Path:
    """Where the package is: a folder, or a wheel."""
    if given := os.environ.get("MUSICNN"):
        if not os.path.exists(given):
            raise RequestError(f"the variable MUSICNN names {given}, which does not exist")
        return Path(given)
    found = importlib.util.find_spec("musicnn")  # which does not import it
    if found is None or not found.submodule_search_locations:
        raise RequestError(
            f"the features musicnn need the files of the package musicnn: {_INSTALL}"
        )
    return Path(found.submodule_search_locations[0])


def _read(place: Path, name: str) -> bytes:
    if place.is_dir():
        inside = place / "musicnn"
        return ((inside if inside.is_dir() else place) / name).read_bytes()
    with zipfile.ZipFile(place) as wheel:
        return wheel.read(f"musicnn/{name}")


def make(argument: str, chunk_seconds: float) -> Feature:
    """RequestError where the package is not there."""
    _package()
    model: Any = argument or "MSD_musicnn"
    return Feature(model=model, chunk_samples=round(chunk_seconds * _MEL.sample_rate))


def column(argument: str) -> str:
    """The name of the column, so that several networks have one each."""
    return f"musicnn:{argument}" if argument else "musicnn"
