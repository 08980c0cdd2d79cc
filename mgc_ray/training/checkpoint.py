"""A trained classifier on disk: weights as safetensors, all else as JSON; nothing is pickled.

    DIR/config.json        family, parameters, features, genres, protocol: the same for all epochs
    DIR/model.safetensors  weights, mean and deviation; epoch and its metrics in the file's header

Both are written whole and then renamed, so a checkpoint that can be read is one of a single epoch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mgc_ray import RequestError, __version__
from mgc_ray.data.dataset import DatasetInfo, table_name
from mgc_ray.data.fields import check_fields
from mgc_ray.data.files import read_json, write_json, written_whole
from mgc_ray.data.spectrogram import Features, features_from_json, features_to_json
from mgc_ray.models import families, family_module
from mgc_ray.models._classifier import Classifier
from mgc_ray.training.config import TrainConfig, full_params, new_classifier
from mgc_ray.training.initial import trained_on
from mgc_ray.training.loop import Epoch

_WHAT, _REMEDY = "checkpoint", "name a folder with config.json and model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A classifier with what it needs to be applied and what it came from."""

    classifier: Classifier
    family: str
    params: dict[str, Any]  # flat: the family's Config and TrainConfig together, defaults included
    features: Features
    genres: tuple[str, ...]
    dataset: dict[str, Any]  # protocol, seed, source and listing of the dataset it was trained on
    trained_on: list[dict[str, Any]]  # first what its first weights had been trained on, if any
    epoch: int
    metrics: dict[str, float]


def save_checkpoint(
    folder: Path,
    epoch: Epoch,
    family: str,
    params: dict[str, Any],
    info: DatasetInfo,
    task: str = "genres",
) -> None:
    """Write (or replace) the checkpoint in `folder` by this epoch's, trained for `task`."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        write_json(
            folder / "config.json",
            {
                "version": __version__,
                "family": family,
                "params": full_params(family, params),
                "features": features_to_json(info.features),
                "genres": list(info.genres),
                "trained_on": [
                    *trained_on(params),
                    *_added(info),
                    {"source": info.source_name, "protocol": info.protocol, "task": task},
                ],
                "dataset": {
                    "protocol": info.protocol,
                    "leaky": info.leaky,
                    "seed": info.seed,
                    "source": info.source_name,
                    "listing": info.listing,
                },
            },
        )
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in epoch.classifier.state_dict().items()
    }
    header = {"epoch": str(epoch.number), "metrics": json.dumps(epoch.metrics)}
    with written_whole(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(weights, metadata=header))


def _check_params(family: str, params: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Refuse settings that the weights cannot be of, before a network of them takes all memory."""
    values = sum(tensor.numel() for tensor in weights.values())

    def allowed(name: str, value: int) -> bool:
        return 0 <= value <= (len(weights) if name in ("blocks", "layers", "depth") else values)

    config = family_module(family).Config
    check_fields(config, params, f"settings of {family}", allowed)
    check_fields(TrainConfig, params, "settings of training")
    if "backbone" in params and params["backbone"] in families():
        backbone = family_module(params["backbone"]).Config
        what = f"settings of {params['backbone']}"
        check_fields(backbone, params["backbone_config"], what, allowed)


def _added(info: DatasetInfo) -> list[dict[str, Any]]:
    """What was added to the training part, as it stands in `trained_on`."""
    added = []
    if info.more_source:
        name = table_name(info.more_source)
        added.append({"source": name, "protocol": "added", "task": "genres"})
    if info.synthetic:
        added.append({"source": "synthetic tracks", "protocol": "added", "task": "genres"})
    return added


def halve(folder: Path) -> None:
    """Store a checkpoint's weights in 16 bits; statistics of bands and batch norm stay as exact.

    Three decimals of each are kept.
    """
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        header = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    statistics = ("mean", "deviation", "running_mean", "running_var", "quantiles")
    small = {
        name: tensor.half()
        if tensor.is_floating_point() and name.rsplit(".", 1)[-1] not in statistics
        else tensor
        for name, tensor in weights.items()
    }
    with written_whole(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(small, metadata=header))


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint, on the CPU; raise RequestError for what is none or is damaged."""
    folder = Path(folder)
    content = read_json(folder / "config.json", _WHAT, _REMEDY)
    try:
        family, params = content["family"], content["params"]
        features = features_from_json(content["features"])
        genres = tuple(content["genres"])
        if not genres:
            raise RequestError(
                f"{folder} knows no genres, as it was pre-trained without: start from it by "
                "--family transfer --init-from"
            )
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _check_params(family, params, weights)
        classifier = new_classifier(family, params, features, len(genres))
        classifier.load_state_dict(weights)
        metrics = json.loads(header["metrics"])
        epoch = int(header["epoch"])
        dataset = dict(content.get("dataset", {}))
        trained_on = [dict(one) for one in content.get("trained_on", [])]
    except RequestError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RequestError(
            f"{folder} is no {_WHAT} that can be read "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); {_REMEDY}"
        ) from None
    return Checkpoint(
        classifier=classifier.eval(),
        family=family,
        params=params,
        features=features,
        genres=genres,
        dataset=dataset,
        trained_on=trained_on,
        epoch=epoch,
        metrics=metrics,
    )
