"""Settings of training that every family shares, and how flat parameters become configurations."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mgc_ray import RequestError
from mgc_ray.data.spectrogram import Features
from mgc_ray.models import config_fields, family_module
from mgc_ray.models._classifier import Classifier

_IN_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_OWN_OPTIONS = {"max_epochs": "--max-epochs", "seed": "--seed", "init_from": "--init-from"}


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the published baseline's (Adam, 0.001, 30 epochs).

    A family may have others, see `TRAINING` in models/__init__.py.
    """

    max_epochs: int = 30
    patience: int = 8  # epochs without a better validation figure before training stops
    batch_size: int = 32  # chunks
    groups: str = "all"  # of bands that the network sees, e.g. log_mel+chroma
    optimizer: str = "adam"  # adam, adamw
    lr: float = 1e-3  # learning rate at its highest
    weight_decay: float = 0.0
    warmup_epochs: int = 0  # the learning rate rises linearly from 0
    schedule: str = "constant"  # constant, cosine (down to 0 at max_epochs)
    label_smoothing: float = 0.0
    freq_mask: int = 16  # SpecAugment: widest mask, bands
    time_mask: float = 0.15  # SpecAugment: widest mask, share of the frames
    masks: int = 2  # SpecAugment: masks of each kind
    mixup: float = 0.2  # alpha of the Beta distribution; 0 switches it off
    time_shift: float = 0.0  # rolled round by at most this share of the frames
    pitch_shift: float = 0.0  # moved by at most so many bands
    time_stretch: float = 0.0  # 0.1: slower or faster by at most a tenth
    gain: float = 0.0  # deviation of a level added to all bands, in deviations of a band
    tilt: float = 0.0  # the same, from minus to plus over the bands: darker or brighter
    crop: float = 1.0  # share of a chunk's frames that the network sees at a time
    crops: int = 1  # random crops that an epoch takes of each chunk
    overlap: float = 0.5  # share by which two crops of a chunk overlap at prediction
    averaging: float = 0.0  # decay, a step, of the moving average of the weights; 0: none
    seed: int = 0

    def __post_init__(self) -> None:
        rules: dict[str, tuple[bool, str]] = {
            "max_epochs": (self.max_epochs >= 1, "1 or more"),
            "patience": (self.patience >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "optimizer": (self.optimizer in ("adam", "adamw"), "adam or adamw"),
            "lr": (self.lr > 0, "above 0"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "warmup_epochs": (self.warmup_epochs >= 0, "0 or more"),
            "schedule": (self.schedule in ("constant", "cosine"), "constant or cosine"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0 to below 1"),
            "freq_mask": (self.freq_mask >= 0, "0 or more bands"),
            "time_mask": (0 <= self.time_mask <= 1, "a share of the frames, 0 to 1"),
            "masks": (self.masks >= 0, "0 or more"),
            "mixup": (self.mixup >= 0, "0 or more"),
            "time_shift": (0 <= self.time_shift <= 1, "a share of the frames, 0 to 1"),
            "pitch_shift": (self.pitch_shift >= 0, "0 or more bands"),
            "time_stretch": (0 <= self.time_stretch <= 1, "from 0 to 1"),
            "gain": (self.gain >= 0, "0 or more"),
            "tilt": (self.tilt >= 0, "0 or more"),
            "crop": (0 < self.crop <= 1, "a share of the frames, above 0 up to 1"),
            "crops": (self.crops >= 1, "1 or more"),
            "overlap": (0 <= self.overlap < 1, "from 0 to below 1"),
            "averaging": (0 <= self.averaging < 1, "from 0 to below 1"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise RequestError(f"{name} must be {rule}, but it is {getattr(self, name)!r}")


def seen_groups(settings: TrainConfig, groups: dict[str, slice]) -> dict[str, slice]:
    """Which of a dataset's groups of bands the settings name; RequestError for one it lacks."""
    if settings.groups == "all":
        return groups
    names = settings.groups.split("+")
    unknown = [name for name in names if name not in groups]
    if unknown or len(set(names)) < len(names):
        raise RequestError(
            f"groups must name groups of the dataset, each once, or be 'all'; it has "
            f"{', '.join(groups)}, but groups is {settings.groups!r}"
        )
    return {name: groups[name] for name in groups if name in names}


def new_classifier(
    family: str, params: dict[str, Any], features: Features, genres: int
) -> Classifier:
    """The classifier that flat parameters describe, for these features; weights at random."""
    config, settings = configure(family, params)
    seen = list(seen_groups(settings, features.groups).values())
    return Classifier(family, config, features.bands, genres, settings.crop, settings.overlap, seen)


def train_fields() -> set[str]:
    return {field.name for field in dataclasses.fields(TrainConfig)}


def configure(family: str, params: dict[str, Any]) -> tuple[Any, TrainConfig]:
    """Flat parameters -> the family's Config and the TrainConfig; the rest keeps its default.

    Raises RequestError for a name that neither of them has, with all such names.
    """
    own, shared = config_fields(family), train_fields()
    unknown = sorted(set(params) - own - shared)
    if unknown:
        raise RequestError(
            f"{', '.join(unknown)}: no setting of family {family!r}; it has "
            f"{', '.join(sorted(own))}, and training has {', '.join(sorted(shared))}"
        )
    module = family_module(family)
    config = module.Config(**{k: v for k, v in params.items() if k in own})
    given = {k: v for k, v in params.items() if k in shared}
    return config, TrainConfig(**getattr(module, "TRAINING", {}) | given)


def full_params(family: str, params: dict[str, Any]) -> dict[str, Any]:
    """Flat parameters with the defaults of all that they leave out; {} gives the defaults."""
    config, settings = configure(family, params)
    return dataclasses.asdict(config) | dataclasses.asdict(settings)


def parse_setting(family: str, text: str) -> tuple[str, Any]:
    """`name=value` as the type that the setting's default has; RequestError says what is wrong."""
    name, separator, value = text.partition("=")
    known = config_fields(family) | train_fields()
    if name in known and not separator:
        default = full_params(family, {})[name]
        raise RequestError(f"--set {name} needs a value, as in --set {name}={str(default).lower()}")
    if name not in known:
        near = get_close_matches(name, known, cutoff=0.5)
        hint = f"nearest: {', '.join(near)}" if near else f"one of {', '.join(sorted(known))}"
        raise RequestError(
            f"--set takes NAME=VALUE with a setting of {family} or of training ({hint}), not "
            f"{text!r}"
        )
    holder = TrainConfig if name in train_fields() else family_module(family).Config
    kind = type(getattr(holder(), name))
    try:
        if kind is bool:
            return name, {"true": True, "false": False}[value.lower()]
        return name, kind(value)
    except (ValueError, KeyError):
        raise RequestError(f"--set {name} must be {_IN_WORDS[kind]}, not {value!r}") from None


def given_settings(family: str, texts: Sequence[str]) -> dict[str, Any]:
    """What `--set NAME=VALUE` of a search gives a family: those settings that it has."""
    known = config_fields(family) | train_fields()
    texts = [text for text in texts if text.partition("=")[0] in known]
    return dict(parse_setting(family, text) for text in texts)


def check_given(families: Sequence[str], texts: Sequence[str]) -> None:
    """RequestError for a setting that no family has, a wrong value, or one with its own option."""
    for text in texts:
        name = text.partition("=")[0]
        if name in _OWN_OPTIONS:
            raise RequestError(f"--set {text}: give {name} by {_OWN_OPTIONS[name]} instead")
        if not any(name in config_fields(family) | train_fields() for family in families):
            parse_setting(families[0], text)  # says what there is
    for family in families:
        configure(family, given_settings(family, texts))
