"""Weights to start from: which network they belong to, and what they were trained on.

PyTorch is imported only where weights are read.
"""

from collections.abc import Sequence
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.data.features import FeatureSet
from mgc_ray.data.hugging_face import NOT_STATED, is_hugging_face
from mgc_ray.data.storage import local_path
from mgc_ray.models import config_fields
from mgc_ray.results import (
    CHECKPOINT_JSON,
    ENSEMBLE_JSON,
    TrainedOn,
    member_folder,
    read_checkpoint_config,
    read_ensemble_info,
)
from mgc_ray.settings import Params, as_json

_REMEDY = (
    "give a checkpoint, an ensemble, or what mgc_ray.pretrain wrote; or a Hugging Face Audio "
    "Spectrogram Transformer, by its folder or its name in the hub"
)


def check_initial(source: str | Path) -> None:
    """Raise RequestError where there is nothing to start from; no weights are read."""
    if not is_hugging_face(source):
        read_checkpoint_config(checkpoint_of(Path(source)), _REMEDY)


def initial_params(source: str | Path) -> Params:
    """Settings of the family `transfer` that start from a checkpoint, or an ensemble's best member.

    Or from a Hugging Face Audio Spectrogram Transformer: its folder, or OWNER/NAME in the hub,
    which everything that is no path is taken for. Raises RequestError for any other source, and
    where transformers is needed but not installed.
    """
    if is_hugging_face(source):
        return _from_hugging_face(source)
    folder = checkpoint_of(Path(source))
    content = read_checkpoint_config(folder, _REMEDY)
    family, params = content.family, content.params
    try:
        if family == "transfer":  # what it started from itself
            family, own = params["backbone"], params["backbone_config"]
        else:
            own = {name: params[name] for name in config_fields(family)}
    except (KeyError, TypeError) as error:
        raise RequestError(
            f"{folder} is no checkpoint that can be read ({error!r}): {_REMEDY}"
        ) from None
    from mgc_ray.models.transfer import checkpoint_weights

    checkpoint_weights(str(folder))  # refused now, not in each trial
    return {"init_from": str(folder.resolve()), "backbone": family, "backbone_config": own}


def _from_hugging_face(source: str | Path) -> Params:
    from mgc_ray.models import _ast
    from mgc_ray.models.transfer import AST

    config = _ast.pretrained_config(source)
    _ast.pretrained_weights(source)  # refused now, not in each trial; also downloads them once
    folder = Path(source)
    return {
        "init_from": str(folder.resolve() if folder.exists() else source),
        "backbone": AST,
        "backbone_config": as_json(config),
    }


def check_features(params: Params, features: FeatureSet) -> None:
    """Raise RequestError where an Audio Spectrogram Transformer would see other features."""
    from mgc_ray.models.transfer import AST

    if params.get("backbone") == AST and list(features.columns) != ["ast"]:
        raise RequestError(
            f"an Audio Spectrogram Transformer must see the features it was trained on, but this "
            f"dataset has {', '.join(features.columns)}: make one with --features "
            f"ast:{params['init_from']}"
        )


def checkpoint_of(folder: Path) -> Path:
    """The folder itself where it is a checkpoint; an ensemble's member of the highest weight."""
    if (folder / CHECKPOINT_JSON).exists() or not (folder / ENSEMBLE_JSON).exists():
        return folder
    best = max(read_ensemble_info(folder, _REMEDY).members, key=lambda member: member.weight)
    return member_folder(folder, best)


def trained_on(params: Params) -> Sequence[TrainedOn]:
    """What the weights that these settings start from were trained on, earliest first."""
    if not params.get("init_from"):
        return ()
    if is_hugging_face(local_path(params["init_from"])):
        stated = params["backbone_config"]["trained_on"]
        return (TrainedOn(params["init_from"], NOT_STATED, stated),)
    return read_checkpoint_config(Path(local_path(params["init_from"])), _REMEDY).trained_on
