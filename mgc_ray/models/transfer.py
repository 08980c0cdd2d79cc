"""A network that starts from weights learnt elsewhere, with a new head for these genres.

The weights come from a checkpoint of this program (another search's, or one that
`python -m mgc_ray.pretrain` wrote), or from a Hugging Face Audio Spectrogram Transformer. Their
network is recorded there, so `backbone` and `backbone_config` are not chosen but read from it
(`training/initial.py`).
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mgc_ray import RequestError
from mgc_ray.data.hugging_face import is_hugging_face
from mgc_ray.data.storage import local_path
from mgc_ray.models import _ast, family_module
from mgc_ray.models._classifier import Classifier
from mgc_ray.settings import configuration, setting

DEFAULT_FOR = {"init_from": "starts from the weights of --init-from"}

AST = "ast"  # a backbone that is no family, as it makes no sense without weights


@configuration
class Config:
    """Where the weights come from, and what is trained."""

    init_from: str = setting("", "Folder or hub name of the weights; none: they start at random.")
    backbone: str = setting("gru", "Family of the weights, or ast.")
    backbone_config: dict[str, Any] = setting({}, "That family's settings.")
    freeze_epochs: int = setting(0, "First epochs, in which only the head is trained.", ge=0)
    frozen_layers: int = setting(0, "Lowest layers, which are never trained.", ge=0)
    layer_decay: float = setting(
        1.0, "Each layer's learning rate, as a share of that of the one above.", gt=0, le=1
    )


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
    """Use all weights except those of the head's last layer, which is about other genres.

    From Hugging Face all except the head. The feature `ast` is normalised as an AST was trained, so
    that is not standardised again. Raises RequestError where the weights do not fit the
    network.
    """
    if not config.init_from:
        return
    backbone = classifier.network.backbone
    assert isinstance(backbone, nn.Module)
    if config.backbone == AST:
        classifier.mean.fill_(0)
        classifier.deviation.fill_(1)
    if is_hugging_face(local_path(config.init_from)):
        weights, new = _ast.pretrained_weights(local_path(config.init_from)), "head."
    else:
        weights, new = checkpoint_weights(config.init_from), _last_layer(backbone)
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
    """The lower a layer, the smaller its learning rate: it is more general."""
    layers = _layers(classifier.network.backbone)
    return [
        (list(layer.parameters()), config.layer_decay ** (len(layers) - 1 - depth))
        for depth, layer in enumerate(layers)
    ]


def begin_epoch(classifier: Classifier, config: Config, number: int) -> None:
    """Freeze the layers that are not trained in this epoch, and their batch norm."""
    *lower, _head = _layers(classifier.network.backbone)
    for depth, layer in enumerate(lower):
        learns = depth >= config.frozen_layers and number > config.freeze_epochs
        layer.requires_grad_(learns)
        if not learns:
            layer.eval()


def checkpoint_weights(folder: str) -> dict[str, Tensor]:
    """The weights of a checkpoint of this program, by the names of its backbone.

    Raises RequestError where they are missing or damaged.
    """
    try:
        weights = load_file(Path(local_path(folder)) / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise RequestError(
            f"the weights in {folder} cannot be read ({error}): start from others"
        ) from None
    prefix = "network.backbone." if any(".backbone." in name for name in weights) else "network."
    return {n.removeprefix(prefix): value for n, value in weights.items() if n.startswith(prefix)}


def _layers(backbone: Any) -> list[nn.Module]:
    """The layers with weights, from the input to the head, a block of convolutions as one."""
    parts: list[nn.Module] = []
    for name, part in backbone.named_children():
        unfolded = isinstance(part, nn.Sequential | nn.ModuleList) and name != "head"
        parts += list(part.children()) if unfolded else [part]
    return [part for part in parts if any(True for _ in part.parameters())]


def _last_layer(backbone: nn.Module) -> str:
    """Name of the layer that knows the genres, e.g. `head.1.`."""
    linear = [name for name, part in backbone.named_modules() if isinstance(part, nn.Linear)]
    return next(name for name in reversed(linear) if name.startswith("head")) + "."
