"""Untrained models on disk, written by the code that writes trained ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from mgc_ray import __version__, models
from mgc_ray.config import DatasetConfig
from mgc_ray.data.dataset import DatasetInfo
from mgc_ray.data.features import FeatureSet
from mgc_ray.ensembling.saved import save_ensemble
from mgc_ray.models import register_family
from mgc_ray.models._classifier import new_classifier
from mgc_ray.results import VALID, EnsembleInfo, TrainedOn
from mgc_ray.results import Member as SavedMember
from mgc_ray.settings import Params
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.epoch import Epoch
from tests.conftest import GENRES

# A model family outside of the package; each description is one cumulative sum.
OWN_FAMILY = """
from mgc_ray.settings import configuration, setting
from torch import nn


@configuration
class Config:
    hidden: int = setting(8, "Units.", ge=1)


class Model(nn.Module):
    def __init__(self, config, bands, genres):
        super().__init__()
        self.hidden = nn.Linear(bands, config.hidden)
        self.head = nn.Linear(config.hidden, genres)

    @staticmethod
    def describe(x):
        return x.cumsum(2).mean(2)

    def embed(self, x):
        return self.hidden(self.describe(x)).relu()

    def classify(self, description):
        return self.head(self.hidden(description).relu())

    def forward(self, x):
        return self.classify(self.describe(x))
"""


def register_own_family(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the family `my_family` known until the end of the test; its file."""
    monkeypatch.setattr(models, "_own", {})
    path = folder / "my_family.py"
    path.write_text(OWN_FAMILY)
    register_family(path)
    return path


@dataclass(frozen=True)
class Member:
    """An untrained member: its weights are random, and so is its standardisation.

    Members with an equal `standardisation`, a seed, that read the same features share it;
    `features`: what this one reads, if it is not what the others do.
    """

    family: str
    params: Params
    weight: float
    temperature: float = 1.0
    standardisation: int = 0
    features: FeatureSet | None = None


def write_ensemble(
    folder: Path,
    features: FeatureSet,
    members: Sequence[Member],
    temperature: float = 1.0,
    genres: tuple[str, ...] = GENRES,
) -> Path:
    """Write an ensemble of these genres; its members are called member-0, member-1, ..."""
    info = DatasetInfo(DatasetConfig(tracks="made/tracks.csv"), features, listing="", genres=genres)
    saved, sources = [], []
    for number, member in enumerate(members):
        torch.manual_seed(number)
        read = member.features or features
        classifier = new_classifier(member.family, member.params, read, len(genres))
        generator = torch.Generator().manual_seed(member.standardisation)
        bands = len(classifier.mean)
        classifier.mean.copy_(torch.empty(bands).uniform_(-40, -20, generator=generator))
        classifier.deviation.copy_(torch.empty(bands).uniform_(5, 15, generator=generator))
        epoch = Epoch(1, {"val_track_accuracy": 0.5}, best=True, last=True, classifier=classifier)
        source = folder.with_name(f"{folder.name}-checkpoints") / str(number)
        of_member = replace(info, features=read)
        save_checkpoint(source, epoch, member.family, member.params, of_member)
        saved.append(SavedMember(f"member-{number}", member.weight, member.temperature))
        sources.append(source)
    ensemble = EnsembleInfo(
        version=__version__,
        members=tuple(saved),
        genres=genres,
        protocol=info.protocol,
        leaky=False,
        fold="",
        split_seed=0,
        source=info.source_name,
        temperature=temperature,
        selected_on=VALID,
        candidates=tuple(member.name for member in saved),
        trained_on=(TrainedOn(info.source_name, info.protocol, "genres"),),
    )
    save_ensemble(folder, ensemble, sources)
    return folder
