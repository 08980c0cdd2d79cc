"""Weights to start from: which network they belong to, and what they were trained on."""

from pathlib import Path
from typing import Any

from mgc_ray import RequestError
from mgc_ray.data.files import read_json
from mgc_ray.models import config_fields

_REMEDY = "name a checkpoint, an ensemble, or what mgc_ray.pretrain wrote"


def initial_params(source: str | Path) -> dict[str, Any]:
    """Settings of the family `transfer` that start from a checkpoint, or an ensemble's best member.

    Raises RequestError for a folder that is neither.
    """
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
    content = read_json(Path(params["init_from"]) / "config.json", "checkpoint", _REMEDY)
    return list(content.get("trained_on", []))
