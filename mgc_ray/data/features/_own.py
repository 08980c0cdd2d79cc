"""Features in files of one's own; what such a file holds is said in the package's first lines.

A file is known by its name and the hash of its content: columns of a dataset that another version
of it has computed are not the same columns.
"""

import functools
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.features._embedding import Embedding, with_weights
from mgc_ray.data.files import MissingFileError
from mgc_ray.data.own_files import content_hash, execute

CONTRACT = "mgc_ray/data/features/__init__.py"
_versions: dict[tuple[str, str], tuple[str, str]] = {}  # (name, hash) -> (path, source)
_current: dict[str, str] = {}  # name -> hash of the version that `--features NAME` means


def names() -> list[str]:
    """The names of all features that were given as files."""
    return list(_current)


def register_source(name: str, path: str, source: str) -> None:
    """Make a feature known by its source."""
    _current[name] = add_version(name, path, source)


def add_version(name: str, path: str, source: str) -> str:
    """Make a version known, as one that a dataset was made with; the hash."""
    digest = content_hash(source)
    _versions[name, digest] = (path, source)
    _current.setdefault(name, digest)
    return digest


def current(name: str) -> str:
    """The hash of the version that `--features NAME` means."""
    return _current[name]


def version(name: str, digest: str) -> tuple[str, str]:
    """Path and source of a version; MissingFileError where it was not given."""
    if (name, digest) in _versions:
        return _versions[name, digest]
    if name in _current:
        raise MissingFileError(
            f"the feature {name} must be computed by the {name}.py that was used before (hash "
            f"{digest}), but the one that is given has changed ({_current[name]}): give that one "
            "by --features, or make a new dataset and model with this one"
        )
    raise MissingFileError(
        f"the feature {name} is none of this program: add --features FILE, the {name}.py that it "
        "was computed with"
    )


def module(name: str, digest: str) -> Any:
    """The module of a version."""
    path, source = version(name, digest)
    return _executed(name, path, source)


@functools.cache
def _executed(name: str, path: str, source: str) -> types.ModuleType:
    return execute(
        f"mgc_ray_feature_{name}_{content_hash(source)}", path, source, ("Feature",), CONTRACT
    )


@functools.cache
def identified(feature: Any) -> Any:
    """With what tells its weights from others, where the program knows how to find that out."""
    return with_weights(feature) if isinstance(feature, Embedding) else feature


def check_feature(path: str, feature: Any) -> None:
    """Refuse a feature that lacks what the rest of the program asks of it."""
    is_embedding = getattr(feature, "kind", None) == "embedding"
    rules = {
        "kind": ("spectrogram or embedding", lambda v: v in ("spectrogram", "embedding")),
        "pitched": ("True or False", lambda v: isinstance(v, bool)),
        "bands": ("a whole number above 0", lambda v: isinstance(v, int) and v > 0),
        "frames": ("a whole number above 0", lambda v: isinstance(v, int) and v > 0),
        "dtype": ("a numpy.dtype", lambda v: isinstance(v, np.dtype)),
    }
    if is_embedding:
        rules |= {
            "groups": (
                "{name: how many bands}, together as many as bands",
                lambda v: isinstance(v, Mapping) and sum(v.values()) == feature.bands,
            ),
            "provenance": (
                "two texts: the network with its licence, and what it has learnt",
                lambda v: len(v) == 2 and all(isinstance(text, str) for text in v),
            ),
        }
    for name, (rule, holds) in rules.items():
        value = getattr(feature, name, None)
        if value is None or not holds(value):
            raise RequestError(
                f"{path}: {name} of the feature must be {rule}, but it is {value!r}: see {CONTRACT}"
            )


def check_values(path: str, feature: Any, values: Any) -> None:
    """Refuse what `compute` gave where it is not what the feature describes."""
    shape = f"{feature.dtype} [chunks, {feature.bands}, {feature.frames}]"
    if getattr(values, "shape", ())[1:] != (feature.bands, feature.frames) or (
        values.dtype != feature.dtype
    ):
        found = f"{getattr(values, 'dtype', type(values).__name__)} {getattr(values, 'shape', '')}"
        raise RequestError(f"{path}: compute must give {shape}, but it gave {found}")
    if not np.isfinite(values).all():
        raise RequestError(f"{path}: compute must give finite numbers, but it gave NaN or infinity")
