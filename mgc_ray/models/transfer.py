"""A network that starts from weights learnt elsewhere, with a new head for these genres.

The weights come from a checkpoint of this program (another search's, or one that
`python -m mgc_ray.pretrain` wrote), or from an Audio Spectrogram Transformer of Hugging Face. Which
network they belong to stands there, so `backbone` and `backbone_config` are not chosen but read
from it (`training/initial.py`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from mgc_ray import RequestError
from mgc_ray.data.hugging_face import is_hugging_face
from mgc_ray.data.storage import located
from mgc_ray.models import _ast, family_module
from mgc_ray.models._classifier import Classifier

AST = "ast"  # the backbone that is no family, as it makes no sense without weights


@dataclass(frozen=True)
class Config:
    init_from: str = ""  # folder (or hub name) of the weights; none: they start at random
    backbone: str = "gru"  # family of the weights, or "ast"
    backbone_config: dict[str, Any] = field(default_factory=dict)  # that family's Config
    freeze_epochs: int = 0  # first epochs, in which only the head learns
    frozen_layers: int = 0  # lowest layers, which never learn
    layer_decay: float = 1.0  # each layer's learning rate, as a share of that of the one above


class Model(nn.Module):
    """x[B, bands, frames] -> logits[B, genres]."""

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        family = _ast if config.backbone == AST else family_module(config.backbone)
        self.backbone: nn.Module = family.Model(
            family.Config(**config.backbone_config), bands, genres
        )

    @property
    def head(self) -> nn.Module:
        head = self.backbone.head
        assert isinstance(head, nn.Module)
        return head

    def embed(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.backbone.embed(x)  # type: ignore[operator]  # every family has it
        return embedding

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.backbone(x)
        return logits


def initialise(classifier: Classifier, config: Config) -> None:
    """Take over all weights but those of the head's last layer, which is about other genres.

    From Hugging Face all but the head. An AST keeps the standardisation that it learnt with, in
    place of that of the training part. Raises RequestError where the weights do not fit the
    network.
    """
    if not config.init_from:
        return
    backbone = classifier.network.backbone
    assert isinstance(backbone, nn.Module)
    if config.backbone == AST:
        ast = _ast.Config(**config.backbone_config)
        classifier.mean.fill_(ast.mean)
        classifier.deviation.fill_(ast.deviation)
    if is_hugging_face(located(config.init_from)):
        weights, new = _ast.pretrained_weights(located(config.init_from)), "head."
    else:
        weights, new = _checkpoint_weights(config.init_from), _last_layer(backbone)
    wanted = backbone.state_dict()
    own = {name for name in wanted if name.startswith(new)}
    different = [
        name
        for name, value in wanted.items()
        if name not in own and (name not in weights or weights[name].shape != value.shape)
    ]
    if different:
        raise RequestError(
            f"the weights in {config.init_from} must fit a network for these spectrograms, but "
            f"{different[0]} differs: the bands must be the same as those they were trained on"
        )
    backbone.load_state_dict(
        {n: v for n, v in weights.items() if n in wanted} | {n: wanted[n] for n in own}
    )


def lr_shares(classifier: Classifier, config: Config) -> list[tuple[list[nn.Parameter], float]]:
    """The lower a layer, the smaller its rate: what it knows is more general."""
    layers = _layers(classifier.network.backbone)
    return [
        (list(layer.parameters()), config.layer_decay ** (len(layers) - 1 - depth))
        for depth, layer in enumerate(layers)
    ]


def begin_epoch(classifier: Classifier, config: Config, number: int) -> None:
    """Freeze what is not to learn in this epoch; a frozen layer's batch norm is at rest."""
    *lower, _head = _layers(classifier.network.backbone)
    for depth, layer in enumerate(lower):
        learns = depth >= config.frozen_layers and number > config.freeze_epochs
        layer.requires_grad_(learns)
        if not learns:
            layer.eval()


def _checkpoint_weights(folder: str) -> dict[str, Tensor]:
    """The weights of a checkpoint of this program, by the names of its backbone."""
    found = load_file(Path(located(folder)) / "model.safetensors")
    prefix = "network.backbone." if any(".backbone." in name for name in found) else "network."
    return {
        name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)
    }


def _layers(backbone: Any) -> list[nn.Module]:
    """What has weights, from the input to the head, a block of convolutions as one."""
    parts: list[nn.Module] = []
    for name, part in backbone.named_children():
        unfolded = isinstance(part, nn.Sequential | nn.ModuleList) and name != "head"
        parts += list(part.children()) if unfolded else [part]
    return [part for part in parts if any(True for _ in part.parameters())]


def _last_layer(backbone: nn.Module) -> str:
    """Name of the layer that knows the genres, e.g. `head.1.`."""
    linear = [name for name, part in backbone.named_modules() if isinstance(part, nn.Linear)]
    return next(name for name in reversed(linear) if name.startswith("head")) + "."
