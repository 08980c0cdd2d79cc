"""A trained classifier on disk: weights as safetensors, all else as JSON; nothing is pickled.

    DIR/config.json        family, parameters, features, genres, protocol: the same for all epochs
    DIR/model.safetensors  weights, mean and deviation; epoch and its metrics in the file's header

Both are written under another name and then renamed, so a checkpoint is one of a single epoch.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mgc_ray import RequestError, __version__
from mgc_ray.data.dataset import DatasetInfo, table_name
from mgc_ray.data.features import FeatureSet, feature_set_from_json
from mgc_ray.data.files import MissingFileError, atomic_write, is_damaged, write_json
from mgc_ray.data.untrusted import parse_json
from mgc_ray.models import families, full_params
from mgc_ray.models._classifier import Classifier, new_classifier
from mgc_ray.results import (
    CHECKPOINT_JSON,
    CheckpointConfig,
    DatasetOrigin,
    EpochMetrics,
    TrainedOn,
    read_checkpoint_config,
)
from mgc_ray.settings import Params, as_json, nearest
from mgc_ray.training.epoch import Epoch
from mgc_ray.training.initial import trained_on

_WHAT, _REMEDY = "checkpoint", "give a folder with config.json and model.safetensors"
_EXACT = ("mean", "deviation", "running_mean", "running_var", "quantiles")  # never in 16 bits


@dataclass(frozen=True)
class Checkpoint:
    """A classifier with what it needs to be applied and what it came from."""

    classifier: Classifier
    config: CheckpointConfig
    epoch: int
    metrics: EpochMetrics

    @property
    def genres(self) -> tuple[str, ...]:
        return self.config.genres

    @property
    def features(self) -> FeatureSet:
        """What the classifier reads."""
        return self.classifier.reads


def save_checkpoint(
    folder: Path,
    epoch: Epoch,
    family: str,
    params: Params,
    info: DatasetInfo,
    task: str = "genres",
) -> None:
    """Write (or replace) the checkpoint in `folder` by this epoch's, trained for `task`."""
    folder.mkdir(parents=True, exist_ok=True)
    if is_damaged(folder / CHECKPOINT_JSON) or not (folder / CHECKPOINT_JSON).exists():
        own = TrainedOn(info.source_name, info.protocol, task)
        config = CheckpointConfig(
            version=__version__,
            family=family,
            params=full_params(family, params),
            features=epoch.classifier.reads.to_json(),
            genres=info.genres,
            trained_on=(
                *_encoders(epoch.classifier.reads),
                *trained_on(params),
                *_added(info),
                own,
            ),
            dataset=DatasetOrigin(
                info.protocol, info.leaky, info.seed, info.source_name, info.split_id
            ),
        )
        write_json(folder / CHECKPOINT_JSON, as_json(config))
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in epoch.classifier.state_dict().items()
    }
    header = {"epoch": str(epoch.number), "metrics": json.dumps(epoch.metrics)}
    with atomic_write(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(weights, metadata=header))


def _encoders(features: FeatureSet) -> list[TrainedOn]:
    """What the frozen networks were trained on whose outputs the classifier reads."""
    found = [feature for feature in features.columns.values() if hasattr(feature, "provenance")]
    return [
        TrainedOn(network, "frozen", learnt) for network, learnt in (f.provenance for f in found)
    ]


def _added(info: DatasetInfo) -> list[TrainedOn]:
    """What was added to the training part."""
    added = []
    if info.config.more_tracks:
        added.append(TrainedOn(table_name(info.config.more_tracks), "added", "genres"))
    if info.config.synthetic:
        added.append(TrainedOn("synthetic tracks", "added", "genres"))
    return added


def halve(folder: Path) -> None:
    """Store a checkpoint's weights in 16 bits; statistics of bands and batch norm stay exact.

    Three decimals of each are kept.
    """
    weights, header = _read_weights(folder)
    small = {
        name: tensor.half()
        if tensor.is_floating_point() and name.rsplit(".", 1)[-1] not in _EXACT
        else tensor
        for name, tensor in weights.items()
    }
    with atomic_write(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(small, metadata=header))


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has both files of a checkpoint, and neither is empty, cut or full of zeros.

    As it may be after a loss of power; weights are not compared with settings.
    """
    path = folder / CHECKPOINT_JSON
    try:
        with safe_open(folder / "model.safetensors", framework="pt"):
            return path.exists() and not is_damaged(path)
    except (OSError, SafetensorError):
        return False


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint, on the CPU; raise RequestError for what is none or is damaged."""
    folder = Path(folder)
    config = read_checkpoint_config(folder, _REMEDY)
    if config.family not in families():
        raise MissingFileError(
            f"{folder}: its family is {config.family!r}{nearest(config.family, families())}, which "
            f"is none of this program: add --family FILE, the {config.family}.py that it was "
            "trained with"
        )
    if not config.genres:
        raise RequestError(
            f"{folder} knows no genres, as it was pre-trained without: start from it by "
            "--family transfer --init-from"
        )
    try:
        weights, header = _read_weights(folder)
        features = feature_set_from_json(config.features)
        with torch.device("meta"):  # before a network of wrong settings takes all memory
            empty = new_classifier(config.family, config.params, features, len(config.genres))
        _check_shapes(empty, weights)
        classifier = new_classifier(config.family, config.params, features, len(config.genres))
        classifier.load_state_dict(weights)
        metrics: EpochMetrics = parse_json(header["metrics"])
        epoch = int(header["epoch"])
    except RequestError as error:
        raise type(error)(f"{folder}: {error}") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RequestError(
            f"{folder} is no {_WHAT} that can be read "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); {_REMEDY}"
        ) from None
    return Checkpoint(classifier.eval(), config, epoch, metrics)


def _read_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _check_shapes(classifier: Classifier, weights: dict[str, Tensor]) -> None:
    wanted = classifier.state_dict()
    for name in [*wanted, *weights]:
        if name not in wanted:
            raise ValueError(f"{name} is no part of the network that the settings describe")
        if name not in weights or weights[name].shape != wanted[name].shape:
            raise ValueError(f"{name} is missing or not of the size that the settings give")
