"""Model families, one file each, found by existing.

A family's file holds `Config`, whose defaults train (declare its fields by `setting`, see cnn.py),
and `Model(config, bands, genres)`: `x[B, bands, frames] -> logits[B, genres]` for any number of
frames. A model is `head(embed(x))`: `embed` gives [B, width], and the last part of `head` is the
linear layer that knows the genres; what comes before can be trained without genres and reused.

Optional in the file:

- `READS`: the kinds of features that the model takes, ("spectrogram",) where it does not say;
- `SECOND_INPUT`: kinds that it also takes where a dataset has both, ("embedding",): they come in
  before the last layer, see `LateFusion` in _layers.py;
- `DEFAULT_FOR`: {what for: why}, where a search without `--family` takes this one: for features of
  a kind, or for "init_from", weights to start from. All others are taken only when asked for;
- `TRAINING`: a dict of other defaults for the shared settings of training (`TrainConfig`);
- `initialise(classifier, config)`: called once, before training;
- `lr_shares(classifier, config)`: [(parameters, share of the learning rate)], all of them once;
- `begin_epoch(classifier, config, number)`: called before each epoch, from 1;
- `fit(network, config, batches) -> loss`: instead of training by steps, called once; `batches` are
  those of one epoch, (x, target [B, genres]) on the device, standardised and augmented;
- `Model.describe(x)`: a static method without weights that comes before everything else, with
  `Model.classify(description)` for the rest; an ensemble then describes a song once for all of its
  members;
- `suggest(trial)`: the search space of a family outside of this package (else search_spaces/NAME).

A family may live outside: in a file that is given as `--family ./my_family.py`, or in an installed
package with an entry point in the group `mgc_ray.families`. Files that start with an underscore
hold parts that families share.
"""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from mgc_ray import RequestError
from mgc_ray.config import TrainConfig
from mgc_ray.data.own_files import execute, is_path, read_source
from mgc_ray.settings import (
    Option,
    Params,
    nearest,
    options,
    unknown_name,
    validated,
)

_GROUP = "mgc_ray.families"  # of entry points
_own: dict[str, tuple[str, str]] = {}  # name -> (path, source) of families given as files


def families() -> list[str]:
    """The names of all families, sorted."""
    shipped = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
    return sorted({*shipped, *_own, *_installed()})


def check_family(name: str) -> None:
    """Raise RequestError with the names that there are, where this is none of them."""
    if name not in families():
        raise RequestError(
            f"--family must be one of {', '.join(families())}, or the path of a file, but it is "
            f"{name!r}{nearest(name, families())}"
        )


def family_names(given: Sequence[str]) -> tuple[str, ...]:
    """The families that `--family` gives: names, `all`, or paths of files, which are registered."""
    if list(given) == ["all"]:
        return tuple(families())
    names = [register_family(Path(one)) if is_path(one) else one for one in given]
    for name in names:
        check_family(name)
    return tuple(dict.fromkeys(names))


def one_family(given: str) -> str:
    """The family that `--family` gives where there can be only one."""
    if given == "all":
        raise RequestError("--family must be one family, but it is all: give one, e.g. gru")
    return family_names([given])[0]


def register_family(path: str | Path, source: str | None = None) -> str:
    """Make the family in a Python file known by the file's name; that name.

    `source`: its content, where that is not what the file holds now. Raises RequestError for a file
    that cannot be read, is no Python, or has a family's name.
    """
    path = Path(path)
    source = read_source(path, "--family") if source is None else source
    name = path.stem
    if not name.isidentifier() or (name not in _own and name in families()):
        raise RequestError(
            f"--family {path} must be named like a Python variable, and unlike the families "
            f"{', '.join(families())}: rename the file"
        )
    register_source(name, str(path.resolve()), source)
    return name


def register_source(name: str, path: str, source: str) -> None:
    """Make a family known by its source, as in a process on another machine."""
    if _own.get(name) != (path, source):
        _own[name] = (path, source)
        _own_module.cache_clear()
        _settings_of.cache_clear()


def register_sources(own: Mapping[str, tuple[str, str]]) -> None:
    """Make another process's `own_families` known here, so that their models can be unpickled."""
    for name, source in own.items():
        register_source(name, *source)
        _own_module(name)


def family_arguments(names: Sequence[str]) -> tuple[str, ...]:
    """What `--family` takes for these families: the path where it was given as a file."""
    return tuple(_own[name][0] if name in _own else name for name in names)


def own_families() -> dict[str, tuple[str, str]]:
    """Path and source of each family that was given as a file; for `register_sources`."""
    return dict(_own)


def family_module(name: str) -> Any:
    """The module of one family, or RequestError with the names that there are."""
    check_family(name)
    if name in _own:
        return _own_module(name)
    return importlib.import_module(_installed().get(name, f"{__name__}.{name}"))


@functools.cache
def _own_module(name: str) -> types.ModuleType:
    path, source = _own[name]
    contract = "mgc_ray/models/__init__.py"
    return execute(f"mgc_ray_family_{name}", path, source, ("Config", "Model"), contract)


@functools.cache
def _installed() -> dict[str, str]:
    """Families of other installed packages: name -> module."""
    return {point.name: point.value for point in entry_points(group=_GROUP)}


def family_class(name: str) -> tuple[Any, Params]:
    """A family's `Config` and `TRAINING`, where possible without importing PyTorch."""
    module = _settings_of(name)
    return module.Config, getattr(module, "TRAINING", {})


def default_families() -> dict[str, dict[str, str]]:
    """The families that a search may take without being asked: what for and why, the same way."""
    declared = {name: getattr(_settings_of(name), "DEFAULT_FOR", {}) for name in families()}
    return {name: reasons for name, reasons in declared.items() if reasons}


def kinds_read(name: str) -> tuple[str, ...]:
    """The kinds of features that a family reads, the same way."""
    kinds: tuple[str, ...] = getattr(_settings_of(name), "READS", ("spectrogram",))
    return kinds


def second_kinds(name: str) -> tuple[str, ...]:
    """The kinds of features that a family takes as a second input, the same way."""
    kinds: tuple[str, ...] = getattr(_settings_of(name), "SECOND_INPUT", ())
    return kinds


@functools.cache
def _settings_of(name: str) -> Any:
    """A family's module, or what of it needs no PyTorch, which takes two seconds to import.

    A wrong setting is to be refused at once. So only the definition of Config and what is beside it
    are executed; where that does not suffice, the whole module is imported.
    """
    check_family(name)
    if "torch" not in sys.modules:
        try:
            return _without_pytorch(_source(name), name)
        except Exception:  # it needs more of its module
            pass
    return family_module(name)


def _source(name: str) -> str:
    if name in _own:
        return _own[name][1]
    spec = importlib.util.find_spec(_installed().get(name, f"{__name__}.{name}"))
    assert spec
    assert spec.origin
    return Path(spec.origin).read_text("utf-8")


def _without_pytorch(source: str, name: str) -> types.ModuleType:
    """Execute only the imports from the standard library and settings, constants and Config."""
    light = ("dataclasses", "typing", "mgc_ray.settings", "mgc_ray.config")
    kept = []
    for part in ast.parse(source).body:
        is_import = isinstance(part, ast.ImportFrom) and part.module in light
        is_config = isinstance(part, ast.ClassDef) and part.name == "Config"
        is_constant = isinstance(part, ast.Assign)
        if is_import or is_config or is_constant:
            kept.append(part)
    module = types.ModuleType(f"mgc_ray_config_of_{name}")
    sys.modules[module.__name__] = module  # where pydantic looks annotations up
    exec(compile(ast.Module(kept, []), name, "exec"), module.__dict__)
    module.Config  # noqa: B018  that it is there
    return module


def config_fields(family: str) -> set[str]:
    """Names of a family's own settings."""
    return {option.name for option in options(family_class(family)[0])}


def train_fields() -> set[str]:
    """Names of the settings of training that all families share."""
    return {option.name for option in options(TrainConfig)}


def family_options(family: str) -> list[Option]:
    """All settings of a family and of its training, with this family's defaults."""
    config, training = family_class(family)
    shared = [
        dataclasses.replace(option, default=training.get(option.name, option.default))
        for option in options(TrainConfig)
    ]
    return [*options(config), *shared]


def full_params(family: str, params: Params) -> Params:
    """Flat parameters with the defaults of all that they leave out; {} gives the defaults."""
    return {option.name: option.default for option in family_options(family)} | params


def known_defaults(family: str) -> Params:
    """Those of all settings of a family; {} for one outside the package that is not at hand."""
    try:
        return full_params(family, {})
    except RequestError:
        return {}


def configure(family: str, params: Params) -> tuple[Any, TrainConfig]:
    """Flat parameters -> the family's Config and the TrainConfig; the rest keeps its default.

    Raises RequestError for an unknown name and for a value out of bounds.
    """
    module = family_module(family)
    own, shared = _parts(family, params)
    config = validated(module.Config, own)
    return config, validated(TrainConfig, getattr(module, "TRAINING", {}) | shared)


def checked_params(family: str, params: Params) -> Params:
    """The same settings with values of the right type, e.g. of text from a command line.

    Raises RequestError as `configure`; PyTorch need not be imported for it.
    """
    own, shared = _parts(family, params)
    config = validated(family_class(family)[0], own)
    training = validated(TrainConfig, shared)
    return {name: getattr(config if name in own else training, name) for name in params}


def shared_params(families: Sequence[str], params: Params) -> Params:
    """Settings that all trials of several families share, with values of the right type.

    A family takes those that it has. Raises RequestError for a name that none of them has.
    """
    typed: Params = {}
    known: list[str] = []
    for family in families:
        names = config_fields(family) | train_fields()
        known += sorted(names)
        typed |= checked_params(family, {k: v for k, v in params.items() if k in names})
    for name in params:
        if name not in typed:
            unknown = unknown_name("setting", name, list(dict.fromkeys(known)))
            raise RequestError(f"--family {' '.join(families)}: {unknown}")
    return typed


def params_of(family: str, shared: Params) -> Params:
    """Those of the shared settings that a family has."""
    names = config_fields(family) | train_fields()
    return {name: value for name, value in shared.items() if name in names}


def _parts(family: str, params: Params) -> tuple[Params, Params]:
    own, shared = config_fields(family), train_fields()
    for name in params:
        if name not in own | shared:
            raise RequestError(
                f"family {family!r}: {unknown_name('setting', name, sorted(own | shared))}"
            )
    return (
        {k: v for k, v in params.items() if k in own},
        {k: v for k, v in params.items() if k in shared and k not in own},
    )
