"""A Hugging Face Audio Spectrogram Transformer (AST) as the backbone of `transfer`.

x[B, bands, frames], the feature `ast` -> logits[B, genres].
It is cut into patches of 16 bands x 16 frames, one every 10 bands and 10 frames, which pass
through a transformer together with two tokens; the tokens' mean is the embedding.
Source: Y. Gong et al., "AST: Audio Spectrogram Transformer", Interspeech 2021.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgc_ray import RequestError
from mgc_ray.data.hugging_face import (
    NOT_STATED,
    check_architecture,
    import_transformers,
    read_pretrained,
    stated_training,
)
from mgc_ray.settings import Params, configuration, setting


@configuration
class Config:
    """All that rebuilds the network without the folder or the hub that its weights came from."""

    architecture: Params = setting(..., "Settings of transformers' ASTConfig.")
    trained_on: str = setting(NOT_STATED, "What the weights were trained on, in words.")

    def __post_init__(self) -> None:
        check_architecture(self.architecture)


class Model(nn.Module):
    """x[B, bands, frames] -> logits[B, genres]; RequestError for other bands than the weights'."""

    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        transformers = import_transformers()
        shape = transformers.ASTConfig(**config.architecture)
        if bands != shape.num_mel_bins:
            raise RequestError(
                f"spectrograms for this Audio Spectrogram Transformer must have "
                f"{shape.num_mel_bins} bands, but these have {bands}: make the dataset with the "
                "model's own features"
            )
        ast = transformers.ASTModel(shape)
        self.patch = shape.patch_size
        self.rows, self.columns = ast.embeddings.get_shape(shape)  # of patches with known positions
        # its parts in their order, as `transfer` takes each child, and each of `layers`, as a layer
        self.embeddings, self.layers, self.layernorm = ast.embeddings, ast.layers, ast.layernorm
        self.head = nn.Sequential(
            nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps),
            nn.Linear(shape.hidden_size, genres),
        )

    def embed(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, hidden_size]."""
        steps = self._steps(x)
        for layer in self.layers:
            steps = layer(steps)
        steps = self.layernorm(steps)
        return (steps[:, 0] + steps[:, 1]) / 2

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits

    def _steps(self, x: Tensor) -> Tensor:
        """[B, bands, frames] -> [B, 2 + patches, hidden_size]; less than a patch is filled by 0."""
        parts = self.embeddings
        x = F.pad(x, (0, max(0, self.patch - x.shape[2])))
        patches = parts.patch_embeddings(x.transpose(1, 2))
        tokens = [t.expand(len(x), -1, -1) for t in (parts.cls_token, parts.distillation_token)]
        steps = torch.cat([*tokens, patches], 1) + self._positions(patches.shape[1])
        dropped: Tensor = parts.dropout(steps)
        return dropped

    def _positions(self, patches: int) -> Tensor:
        """Position embeddings of the tokens and of patches, [1, 2 + patches, hidden_size].

        For fewer columns of patches than were learnt, the middle ones, so that neighbours stay as
        far apart as they were; for more they are interpolated. AST's authors do the same.
        """
        known: Tensor = self.embeddings.position_embeddings
        tokens, grid = known[:, :2], known[0, 2:].unflatten(0, (self.rows, self.columns))
        columns = patches // self.rows
        if columns <= self.columns:
            grid = grid.narrow(1, (self.columns - columns) // 2, columns)
        else:
            grid = F.interpolate(grid.transpose(1, 2), columns, mode="linear").transpose(1, 2)
        return torch.cat([tokens, grid.flatten(0, 1)[None]], 1)


def pretrained_config(source: str | Path) -> Config:
    """The settings in a folder or hub entry of transformers; RequestError where it is no AST."""
    shape = read_pretrained("ASTConfig", source)
    return Config(
        architecture={name: getattr(shape, name) for name in type(shape).__annotations__},
        trained_on=stated_training(source),
    )


def pretrained_weights(source: str | Path) -> dict[str, Tensor]:
    """The weights of all but the head, by `Model`'s names; RequestError where any is missing."""
    ast, report = read_pretrained("ASTModel", source, output_loading_info=True)
    if report["missing_keys"]:
        raise RequestError(
            f"the weights in {source} must be those of the whole network, but "
            f"{min(report['missing_keys'])} is missing: give a model that was saved whole"
        )
    weights: dict[str, Tensor] = ast.state_dict()
    return weights
