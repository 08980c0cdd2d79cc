"""What a search is asked for, made complete: defaults, families, its name, an earlier search.

Imports neither PyTorch nor Ray, so that a wrong request is refused at once.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig, SearchConfig
from mgc_ray.data.features import kinds_of, named_features, own_features, register_feature
from mgc_ray.data.files import LOCK, check_output_folder
from mgc_ray.data.layouts import gives_split
from mgc_ray.data.own_files import FAMILIES, FEATURES, source_of
from mgc_ray.data.storage import Storage
from mgc_ray.models import (
    check_family,
    default_families,
    families,
    family_names,
    kinds_read,
    own_families,
    register_family,
    shared_params,
)
from mgc_ray.pipeline.checks import check_gpus
from mgc_ray.pipeline.continued import fetch_search, has_search
from mgc_ray.results import SEARCH, SearchResult, load_search, search_folder, search_names
from mgc_ray.settings import Params, as_json, nearest, options, validated
from mgc_ray.tuning.address import check_address
from mgc_ray.tuning.tracking import load_callbacks, with_names

if TYPE_CHECKING:
    from mgc_ray.pipeline.tables import Tables

# Where no music is given: the whole pipeline within five minutes on two cores.
_BUILT_IN: Params = {
    "dataset": {"features": ("log_mel_small",)},
    "tuning": {"trials": 8, "max_epochs": 14, "time_limit": 200.0},
}
_SMOKE: Params = {"tuning": {"trials": 2, "max_epochs": 2, "grace_period": 1}}
_SHARED_FOLDERS = ("datasets", "corpora")  # beside the searches in the results folder
# what may be other when a search is resumed: how much, how fast and where
_MAY_CHANGE = (
    *("tuning.trials", "tuning.time_limit", "tuning.trial_timeout", "tuning.concurrent"),
    *("tuning.gpus_per_trial", "tuning.keep", "memory", "cluster.address", "cluster.storage"),
    "callbacks",
)
_OWN_OPTIONS = {"max_epochs": "--max-epochs", "seed": "--seed", "init_from": "--init-from"}


@dataclass(frozen=True)
class SearchRequest:
    """A complete search, and what was read for it.

    `why_families`: see `reason_for_families`.
    `callbacks`: by name, see tuning/tracking.py.
    `earlier`: this search, where it is resumed. `dataset`: its finished one. `tables`: None for the
    built-in corpus, and where the dataset is there.
    """

    config: SearchConfig
    why_families: str
    earlier: SearchResult | None
    dataset: Path | None
    tables: "Tables | None"
    warm_start: tuple[SearchResult, ...]
    callbacks: dict[str, Any] = field(default_factory=dict)


def dataset_defaults(given: Params) -> Params:
    """With the protocol `given`, unless another is asked for, where folders give a split."""
    dataset = given.get("dataset", {})
    if not isinstance(dataset, dict) or "protocol" in dataset or not dataset.get("tracks"):
        return given
    if not gives_split(Path(str(dataset["tracks"]))):
        return given
    return given | {"dataset": dataset | {"protocol": "given"}}


def search_defaults(given: Params) -> Params:
    """With smaller defaults for `smoke` and for the built-in corpus, or with an earlier search's.

    Also those of `dataset_defaults`. Raises RequestError for a search that cannot be resumed, or
    not with what is given.
    """
    given = with_names(given)
    if given.get("resume"):
        return _resumed(given)
    given = dataset_defaults(given)
    dataset = given.get("dataset", {})
    tracks = getattr(dataset, "tracks", "") or (isinstance(dataset, dict) and dataset.get("tracks"))
    defaults = _SMOKE if given.get("smoke") else {} if tracks else _BUILT_IN
    for section, settings in defaults.items():
        own = given.get(section, {})
        if isinstance(own, dict):
            given = given | {section: settings | own}
    return given


def complete_search(config: SearchConfig) -> SearchConfig:
    """The search with its families and name.

    Raises RequestError for what cannot be searched, and for a name that is taken.
    """
    if config.resume:
        check_output_folder("--results", Path(config.results) / config.name)
        return replace(config, resume="")
    features = named_features(config.dataset.features)
    config = replace(config, dataset=replace(config.dataset, features=features))
    _check_dataset(config.dataset)
    chosen = family_names(config.family) or tuple(_families_taken(config))
    if config.family == ("all",):
        chosen = _usable_families(chosen, config)
    for name, option in _OWN_OPTIONS.items():
        if name in config.train:
            raise RequestError(f"--set {name}={config.train[name]}: use {option} instead")
    train = shared_params(chosen, config.train)
    if ("transfer" in chosen) != bool(config.init_from):
        raise RequestError(
            "--init-from MODEL and --family transfer need one another: the weights to start from "
            "are a checkpoint or ensemble of this program, what mgc_ray.pretrain wrote, or a "
            "Hugging Face Audio Spectrogram Transformer"
        )
    results = Path(config.results)
    name = config.name or _unused_name(results, chosen, config.cluster.storage)
    if Path(name).name != name or name in (*_SHARED_FOLDERS, ".", ".."):
        raise RequestError(
            f"--name must be one folder name other than {' and '.join(_SHARED_FOLDERS)}, but it is "
            f"{name!r}"
        )
    check_output_folder("--results", results)
    check_output_folder("--name", results / name)
    storage = config.cluster.storage
    if storage and name in Storage(storage).folders():
        raise RequestError(
            f"{storage} has {name} already: continue it by --resume {name} --storage {storage}, or "
            "choose another --name"
        )
    if _is_taken(results / name):
        raise RequestError(
            f"{results / name} exists already: continue it by --resume {name}, or choose another "
            "--name"
        )
    init_from = config.init_from
    if init_from and Path(init_from).exists():
        init_from = str(Path(init_from).resolve())
    return replace(config, family=chosen, name=name, train=train, init_from=init_from)


def reason_for_families(config: SearchConfig) -> str:
    """Why a search has the families that it has, where it is not that they were asked for."""
    if config.family or config.resume:
        return ""
    taken = " and ".join(f"{name} ({why})" for name, why in _families_taken(config).items())
    return f"no --family is given: searching {taken}; see --help for others"


def _families_taken(config: SearchConfig) -> dict[str, str]:
    """Those of earlier searches that it starts from, else the best for its features; and why."""
    earlier = {
        family: f"searched by {name}"
        for name in config.tuning.warm_start
        for family in _search_of(config, name).config.family
        if family in families()
    }
    taken = {family: earlier[family] for family in _usable_families(list(earlier), config)}
    at_hand = ({"init_from"} if config.init_from else set()) | (set() if taken else _kinds(config))
    return taken | {
        name: why
        for name, reasons in default_families().items()
        for what, why in reasons.items()
        if what in at_hand
    }


def _search_of(config: SearchConfig, name: str) -> SearchResult:
    """An earlier search, by its name in --results or by its folder."""
    folder = Path(config.results) / name
    return load_search(name if Path(name).exists() and not has_search(folder) else folder)


def _kinds(config: SearchConfig) -> set[str]:
    return kinds_of(config.dataset, str(config.train.get("features", "all")))


def _usable_families(among: Sequence[str], config: SearchConfig) -> tuple[str, ...]:
    """Those that read what the dataset will have, `transfer` only with weights to start from."""
    kinds = _kinds(config)
    return tuple(
        name
        for name in among
        if kinds & set(kinds_read(name)) and (name != "transfer" or config.init_from)
    )


def read_request(config: SearchConfig, why_families: str = "") -> SearchRequest:
    """Read what a complete search asks for; RequestError for what is not there or cannot be used.

    A search that was interrupted continues with its finished dataset, whatever has become of its
    music.
    """
    from mgc_ray.pipeline.tables import read_tables  # imports SciPy, for features
    from mgc_ray.training.initial import check_initial

    for family in config.family:
        check_family(family)
    config = replace(config, train=shared_params(config.family, config.train))
    check_gpus(config)
    earlier = load_search(config.folder) if (config.folder / SEARCH).exists() else None
    dataset = _finished_dataset(earlier) if earlier else None
    check_address(config.cluster.address)
    if config.cluster.storage:
        Storage(config.cluster.storage)
    warm_start = tuple(_search_of(config, name) for name in config.tuning.warm_start)
    for one in warm_start:
        one.check_has_dataset()
    if config.init_from:
        check_initial(config.init_from)
    callbacks = load_callbacks(config.callbacks, resumed=earlier is not None)
    # last, as it may take long
    tables = read_tables(config.dataset) if config.dataset.tracks and not dataset else None
    why_families = earlier.why_families if earlier else why_families
    return SearchRequest(config, why_families, earlier, dataset, tables, warm_start, callbacks)


def _finished_dataset(earlier: SearchResult) -> Path | None:
    """The dataset that an interrupted search had; its music may have changed since, or be gone."""
    from mgc_ray.pipeline.preprocess import finished_dataset

    if not earlier.dataset:
        return None
    storage = earlier.config.cluster.storage
    folder = earlier.dataset_folder
    return folder if finished_dataset(folder, Storage(storage) if storage else None) else None


def _check_dataset(config: DatasetConfig) -> None:
    if not config.labelled:
        raise RequestError(
            "a search needs genres to learn, but --protocol unlabelled ignores them: use another "
            "protocol, or make a dataset for pre-training by mgc_ray.preprocess"
        )
    if config != DatasetConfig(tracks=config.tracks):
        from mgc_ray.pipeline.tables import check_config  # imports SciPy, for features

        check_config(config)


def _resumed(given: Params) -> Params:
    """The settings of an earlier search, which must not have ended, with what may be other now."""
    if (folder := search_folder(given["resume"])).name != given["resume"] and has_search(folder):
        given = given | {"results": str(folder.parent), "resume": folder.name}
    wanted = validated(SearchConfig, given)
    earlier = _earlier(wanted).config
    settings = as_json(earlier) | {"resume": wanted.resume, "results": wanted.results}
    begun_with = _own_sources()
    for path in _given(SearchConfig, given):
        name = ".".join(path)
        if name in ("resume", "results") or name == "train":
            continue
        new, old = (_at(config, path) for config in (wanted, earlier))
        if name == "family":
            new, old = (" ".join(sorted(names)) for names in (family_names(new), old))
        elif name == "dataset.features":
            new = named_features(new)
        elif name == "dataset.tracks":
            new, old = (path and os.path.abspath(path) for path in (new, old))
        if name in _MAY_CHANGE:
            *section, last = path
            (settings[section[0]] if section else settings)[last] = new
        elif new != old:
            raise _refused(earlier.name, name, old, new)
    for name, value in shared_params(earlier.family, wanted.train).items():
        if earlier.train.get(name) != value:
            raise _refused(earlier.name, name, earlier.train.get(name, "searched"), value)
    for name, source in _own_sources().items():
        if begun_with.get(name, source) != source:
            raise RequestError(
                f"--resume {earlier.name} continues it with the {Path(name).name}.py that it began "
                "with, but the one that is given has changed since: leave it out, or search under "
                "another --name"
            )
    return settings


def _own_sources() -> dict[str, str]:
    """The content of all files of one's own that are known, by their names."""
    own = {f"{FAMILIES}/{name}": source for name, (_, source) in own_families().items()}
    return own | {f"{FEATURES}/{name}": source for name, (_, source) in own_features().items()}


def _refused(search: str, name: str, old: Any, new: Any) -> RequestError:
    return RequestError(
        f"--resume {search} continues it as it was begun, with {name} {old!r}, but {new!r} is "
        f"given: leave it out, or search under another --name (only {', '.join(_MAY_CHANGE)} may "
        "be other)"
    )


def _earlier(config: SearchConfig) -> SearchResult:
    """The search that is to be resumed."""
    results, name = Path(config.results), config.resume
    folder = results / name
    storage = config.cluster.storage
    if not storage and has_search(folder):
        storage = load_search(folder).config.cluster.storage
    if storage:
        fetch_search(Storage(storage), folder.name, folder)
    if not (folder / SEARCH).exists():
        near = nearest(name, list(search_names(results)))
        raise RequestError(
            f"{folder} is no search: {SEARCH} is missing"
            + (near or "; see the folders in --results for the names")
        )
    earlier = load_search(folder)
    if earlier.finished:
        raise RequestError(
            f"{folder} has ended already: nothing is left to resume; a new search starts from its "
            f"results with --warm-start {name}"
        )
    _register_files(earlier)
    return earlier


def _register_files(search: SearchResult) -> None:
    """Make known the families and features of one's own that a search began with, as they were."""
    for path in search.family_files:
        register_family(path, source_of(search.folder, FAMILIES, path, "--family"))
    for path in search.feature_files:
        register_feature(path, source_of(search.folder, FEATURES, path, "--features"))


def _given(config: Any, values: Params) -> Iterator[tuple[str, ...]]:
    """The places of all settings that are given; of a whole section those not at their default."""
    for option in options(config):
        if option.name not in values:
            continue
        value = values[option.name]
        if not option.is_section:
            yield (option.name,)
        elif isinstance(value, dict):
            yield from ((option.name, *path) for path in _given(option.type, value))
        else:
            yield from (
                (option.name, one.name)
                for one in options(option.type)
                if getattr(value, one.name) != one.default
            )


def _at(config: SearchConfig, path: Sequence[str]) -> Any:
    return reduce(getattr, path, config)


def _unused_name(results: Path, searched: Sequence[str], storage: str) -> str:
    """gru-001, or the next number that no folder has, here and in the storage."""
    stem = "-".join(searched) if len(searched) <= 3 else "all"
    taken = {path.name for path in results.iterdir()} if results.is_dir() else set()
    taken |= set(Storage(storage).folders()) if storage else set()
    return next(n for i in range(1, 100_000) if (n := f"{stem}-{i:03d}") not in taken)


def _is_taken(folder: Path) -> bool:
    """Whether there is more than the lock that a search leaves which was killed at its start."""
    if not folder.is_dir():
        return folder.exists()
    return any(path.name != LOCK for path in folder.iterdir())
