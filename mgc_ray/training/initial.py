"""Weights to start from: which network they belong to, and what they were trained on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mgc_ray import RequestError
from mgc_ray.data.ast_fbank import AstFbank
from mgc_ray.data.files import read_json
from mgc_ray.data.hugging_face import NOT_STATED, is_hugging_face
from mgc_ray.data.spectrogram import Features, features_to_json
from mgc_ray.data.storage import located
from mgc_ray.models import _ast, config_fields
from mgc_ray.models.transfer import AST

_REMEDY = (
    "name a checkpoint, an ensemble, or what mgc_ray.pretrain wrote; or an Audio Spectrogram "
    "Transformer of Hugging Face, by its folder or its name in the hub"
)


def initial_params(source: str | Path) -> dict[str, Any]:
    """Settings of the family `transfer` that start from a checkpoint, or an ensemble's best member.

    Or from an Audio Spectrogram Transformer of Hugging Face: its folder, or OWNER/NAME in the hub,
    which what is no path is taken for. Raises RequestError for a source that is none of these, and
    where transformers is needed but not installed.
    """
    if is_hugging_face(source):
        return _from_hugging_face(source)
    folder = checkpoint_of(Path(source))
    content = read_json(folder / "config.json", "checkpoint", _REMEDY)
    try:
        family, params = content["family"], content["params"]
        if family == "transfer":  # what it started from itself
            family, own = params["backbone"], params["backbone_config"]
        else:
            own = {name: params[name] for name in config_fields(family)}
    except (KeyError, TypeError) as error:
        raise RequestError(
            f"{folder} is no checkpoint that can be read ({error!r}): {_REMEDY}"
        ) from None
    return {"init_from": str(folder.resolve()), "backbone": family, "backbone_config": own}


def _from_hugging_face(source: str | Path) -> dict[str, Any]:
    config = _ast.pretrained_config(source)
    _ast.pretrained_weights(source)  # refused now, not in each trial; also downloads them once
    folder = Path(source)
    return {
        "init_from": str(folder.resolve() if folder.exists() else source),
        "backbone": AST,
        "backbone_config": asdict(config),
    }


def check_features(params: dict[str, Any], features: Features) -> None:
    """Raise RequestError where an Audio Spectrogram Transformer would see other features."""
    if params.get("backbone") == AST and not isinstance(features, AstFbank):
        raise RequestError(
            f"an Audio Spectrogram Transformer must see the features it was trained on, but this "
            f"dataset holds {features_to_json(features)['kind']}: make one with --features ast "
            f"--init-from {params['init_from']}"
        )


def checkpoint_of(folder: Path) -> Path:
    """The folder itself where it is a checkpoint; an ensemble's member of the highest weight."""
    if (folder / "config.json").exists() or not (folder / "ensemble.json").exists():
        return folder
    content = read_json(folder / "ensemble.json", "ensemble", _REMEDY)
    best = max(content["members"], key=lambda member: member["weight"])
    return folder / "members" / best["name"]


def trained_on(params: dict[str, Any]) -> list[dict[str, Any]]:
    """What the weights that these settings start from were trained on, first things first."""
    if not params.get("init_from"):
        return []
    if is_hugging_face(located(params["init_from"])):
        stated = params["backbone_config"]["trained_on"]
        return [{"source": params["init_from"], "protocol": NOT_STATED, "task": stated}]
    content = read_json(Path(located(params["init_from"])) / "config.json", "checkpoint", _REMEDY)
    return list(content.get("trained_on", []))
