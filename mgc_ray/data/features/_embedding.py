"""What a frozen network gives of each chunk, for a feature that needs nothing else."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.device import best_device, frozen
from mgc_ray.settings import Params, configuration, setting

if TYPE_CHECKING:
    import torch

    from mgc_ray.data.decoded import DecodedTrack

E = TypeVar("E", bound="Embedding")

_BATCH = 8  # chunks at a time


@configuration
class Embedding:
    """A feature that is computed by `outputs(network(), waveforms)`, float32 [outputs, 1].

    A subclass, of the name `Feature` and decorated in the same way, has `sample_rate` in Hz and, as
    any embedding, `groups` and `provenance`.
    """

    kind: ClassVar[str] = "embedding"
    pitched: ClassVar[bool] = False
    weights: str = setting("", "What tells its weights from others: digits of their hash.")

    if TYPE_CHECKING:  # of a subclass: constants, settings or properties

        @property
        def sample_rate(self) -> int: ...
        @property
        def groups(self) -> Mapping[str, int]: ...
        @property
        def provenance(self) -> tuple[str, str]: ...

    def network(self) -> Any:
        """A torch.nn.Module with its weights; called once per process."""
        raise NotImplementedError

    def outputs(self, network: Any, waveforms: "torch.Tensor") -> "torch.Tensor":
        """Of chunks [B, samples], float32, on the device of the network: [B, bands]."""
        raise NotImplementedError

    @property
    def bands(self) -> int:
        return sum(self.groups.values())

    @property
    def frames(self) -> int:
        return 1

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def described(self) -> Params:
        """How `compute` does it, as far as that is known here."""
        network, _ = self.provenance
        return {
            "kind": "embedding",
            "network": network,
            "weights": self.weights,
            "sample_rate": self.sample_rate,
            "groups": dict(self.groups),
            "in_words": f"The outputs of {network} for each chunk, group by group.",
        }

    def compute(self, track: "DecodedTrack") -> np.ndarray:
        """All chunks of a track: [chunks, bands, 1]."""
        import torch

        network, device = _on_device(self)
        chunks = torch.from_numpy(track.chunks(self.sample_rate))
        found = []
        with frozen():
            for part in chunks.split(_BATCH):
                found.append(self.outputs(network, part.to(device)).float().cpu())
        return torch.cat(found).numpy().astype(self.dtype, copy=False)[:, :, None]


@functools.cache
def _on_device(feature: Embedding) -> "tuple[Any, torch.device]":
    """The network and the device that it is on."""
    network = feature.network().eval()
    if feature.weights != weights_hash(network):
        name, _ = feature.provenance
        raise RequestError(
            f"{name} must have the weights that the features were made with, but it has others: "
            "put those back, or make dataset and model again"
        )
    device = best_device()
    return network.to(device), device


def with_weights(feature: E) -> E:
    """The feature with the hash of its network's weights."""
    return dataclasses.replace(feature, weights=weights_hash(feature.network()))


def weights_hash(network: Any) -> str:
    """Sixteen digits that change with each weight."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
