"""Every family keeps the contract that models/__init__.py states, and so does its search space."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from mgc_ray import RequestError, models
from mgc_ray.models import (
    checked_params,
    config_fields,
    configure,
    families,
    family_module,
    family_names,
    family_options,
    full_params,
    register_family,
    shared_params,
)
from mgc_ray.models._classifier import Classifier
from mgc_ray.settings import Params, options
from mgc_ray.training.checkpoint import load_checkpoint, save_checkpoint
from mgc_ray.training.loop import train
from mgc_ray.tuning.space import check_space, default_params, load_space
from tests.conftest import make_chunks
from tests.made_chunks import arrays

FAMILIES = families()


def _classifier(family: str, bands: int, genres: int) -> Classifier:
    return Classifier(family, family_module(family).Config(), arrays(bands), genres)


def test_the_published_families_exist() -> None:
    assert {"cnn", "lstm", "gru", "attention", "transfer"} <= set(FAMILIES)


# --- every network ---


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("bands", "frames"), [(128, 258), (128, 38), (128, 1), (40, 600)])
def test_a_model_takes_any_number_of_bands_and_frames(family: str, bands: int, frames: int) -> None:
    model = _classifier(family, bands, genres=10).eval()
    assert model({"array": torch.randn(3, bands, frames)}).shape == (3, 10)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_learns_two_spectrograms_by_heart(family: str) -> None:
    torch.manual_seed(0)
    model = _classifier(family, bands=32, genres=2).train()
    x = {"array": torch.randn(2, 32, 24).repeat(4, 1, 1)}
    y = torch.tensor([0, 1] * 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert (model.eval()(x).argmax(1) == y).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_last_layer_of_the_head_depends_on_the_genres(family: str) -> None:
    few, many = (_classifier(family, bands=32, genres=n).network for n in (3, 5))
    x = torch.randn(2, 32, 24)
    assert few.eval()(x).equal(few.head(few.embed(x)))
    other = [n for n, p in few.named_parameters() if p.shape != many.get_parameter(n).shape]
    last = [n for n, part in few.named_modules() if isinstance(part, torch.nn.Linear)][-1]
    assert ".head." in f".{last}."
    assert other == [f"{last}.weight", f"{last}.bias"]


def test_some_families_have_descriptions_that_members_can_share() -> None:
    described = {f for f in FAMILIES if hasattr(family_module(f).Model, "describe")}
    assert described == {"discriminant", "statistics"}
    assert {f for f in FAMILIES if hasattr(family_module(f).Model, "classify")} == described


@pytest.mark.parametrize("family", ["discriminant", "statistics"])
def test_describing_then_classifying_is_the_whole_network(family: str) -> None:
    network = _classifier(family, bands=32, genres=3).network.eval()
    assert isinstance(type(network).__dict__["describe"], staticmethod)
    x = torch.randn(2, 32, 60)
    assert network.classify(network.describe(x)).equal(network(x))


# --- every Config ---


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_is_frozen_with_defaults(family: str) -> None:
    config = family_module(family).Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, next(iter(config_fields(family))), 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_setting_has_one_sentence_of_help_and_numbers_have_bounds(family: str) -> None:
    for option in family_options(family):
        assert option.help.endswith("."), option.name
        assert option.help[0].isupper(), option.name
        assert ". " not in option.help.replace("e.g. ", ""), option.name
        if option.type in (int, float):
            assert option.bounds, option.name


def test_a_config_is_read_without_pytorch_and_is_that_of_the_module() -> None:
    program = """
import sys
from mgc_ray.models import families, family_class
from mgc_ray.settings import options
for name in families():
    config, training = family_class(name)
    print(name, training, *(repr(option) for option in options(config)), sep="|")
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    *lines, torch_imported = done.stdout.splitlines()
    assert torch_imported == "False"
    expected = []
    for name in families():
        module = family_module(name)
        parts = [name, getattr(module, "TRAINING", {}), *map(repr, options(module.Config))]
        expected.append("|".join(map(str, parts)))
    assert lines == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_valid_and_come_back_as_they_are(family: str) -> None:
    params = full_params(family, {})
    assert configure(family, params) == configure(family, {})
    assert checked_params(family, params) == params


def test_values_of_a_command_line_get_the_type_of_their_setting() -> None:
    given = {"hidden": "64", "lr": "1e-4", "bidirectional": "false", "schedule": "cosine"}
    expected: Params = {"hidden": 64, "lr": 1e-4, "bidirectional": False, "schedule": "cosine"}
    assert checked_params("gru", given) == expected
    assert isinstance(checked_params("gru", given)["hidden"], int)


def test_shared_settings_are_those_that_some_family_has() -> None:
    given = {"hidden": "64", "width": "32", "lr": "0.01"}
    shared = shared_params(["gru", "attention"], given)
    assert shared == {"hidden": 64, "width": 32, "lr": 0.01}
    assert models.params_of("gru", shared) == {"hidden": 64, "lr": 0.01}
    with pytest.raises(RequestError, match=r"no setting 'hiden' \(nearest: hidden\)"):
        shared_params(["gru", "attention"], {"hiden": 3})
    with pytest.raises(RequestError, match="width must be a whole number from 2 to 8192, but it"):
        shared_params(["gru", "attention"], {"width": 1})


def test_a_family_may_have_other_defaults_of_training() -> None:
    assert configure("gru", {})[1].freq_mask == 16
    assert configure("discriminant", {})[1].freq_mask == 0
    assert configure("discriminant", {"freq_mask": 8})[1].freq_mask == 8
    (option,) = (o for o in family_options("discriminant") if o.name == "freq_mask")
    assert option.default == 0


def test_defaults_are_the_published_baselines() -> None:
    _, settings = configure("gru", {})
    assert (settings.optimizer, settings.lr, settings.max_epochs) == ("adam", 0.001, 30)


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"family 'gru': .* 'hiden' \(nearest: hidden\)"):
        configure("gru", {"hiden": 3})


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("lr", 0, "a number above 0, but it is 0"),
        ("optimizer", "sgd", "one of adam, adamw, but it is 'sgd'"),
        ("time_mask", 2, "a number from 0 to 1, but it is 2"),
        ("hidden", 0, "a whole number from 1 to 16384, but it is 0"),
    ],
)
def test_an_invalid_setting_is_refused_with_the_rule(name: str, value: object, rule: str) -> None:
    for check in (configure, checked_params):
        with pytest.raises(RequestError, match=f"{name} must be {rule}"):
            check("gru", {name: value})


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"one of .*gru.*, but it is 'grru' \(nearest: gru\)"):
        family_module("grru")


# --- every search space ---


@pytest.mark.parametrize("family", FAMILIES)
def test_each_sample_of_the_space_gives_a_model_that_runs(family: str) -> None:
    suggest = load_space(family)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(8):
        config, _ = configure(family, suggest(study.ask()))
        model = Classifier(family, config, arrays(128), genres=10).eval()
        assert model({"array": torch.randn(1, 128, 38)}).shape == (1, 10)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_space_contains_the_familys_defaults(family: str) -> None:
    params = default_params(family, load_space(family))
    assert configure(family, params) == configure(family, {})


def test_a_space_with_a_name_that_is_no_setting_is_refused() -> None:
    def suggest(trial: optuna.Trial) -> dict[str, object]:
        return {"dropuot": trial.suggest_float("dropuot", 0, 0.5)}

    with pytest.raises(RequestError, match=r"search_spaces/gru\.py suggests dropuot"):
        check_space("gru", suggest)


def test_a_space_with_an_invalid_sample_is_refused() -> None:
    def suggest(trial: optuna.Trial) -> dict[str, object]:
        return {"lr": trial.suggest_float("lr", -1.0, 0.0)}

    with pytest.raises(RequestError, match="lr must be a number above 0"):
        check_space("gru", suggest)


def test_a_space_without_the_defaults_is_refused() -> None:
    def suggest(trial: optuna.Trial) -> dict[str, object]:
        return {"dropout": trial.suggest_float("dropout", 0.5, 0.9)}

    with pytest.raises(RequestError, match=r"must contain the family's defaults.*dropout"):
        default_params("gru", suggest)


# --- families outside the package ---

OWN_FAMILY = """
from dataclasses import dataclass

from torch import Tensor, nn

TRAINING = {"batch_size": 8}


@dataclass(frozen=True)
class Config:
    receptive_samples: int = 66_000
    hidden: int = 8


class Model(nn.Module):
    def __init__(self, config: Config, bands: int, genres: int) -> None:
        super().__init__()
        self.receptive_samples = config.receptive_samples
        self.hidden = nn.Linear(bands, config.hidden)
        self.head = nn.Linear(config.hidden, genres)

    def embed(self, x: Tensor) -> Tensor:
        return self.hidden(x.mean(2)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))


def suggest(trial):
    return {"hidden": trial.suggest_int("hidden", 2, 16)}
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Writes a family's file; what a test registers is forgotten after it."""

    def write(name: str, source: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        return path

    before = dict(models._own)
    yield write
    models._own.clear()
    models._own.update(before)
    models._own_module.cache_clear()
    models._settings_of.cache_clear()


def test_a_family_with_plain_fields_can_be_trained_saved_and_loaded(
    own_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    name = register_family(own_file("mean_of_bands", OWN_FAMILY))
    assert name == "mean_of_bands"
    assert name in families()
    params = {"max_epochs": 4, "lr": 0.01, "hidden": 6}
    chunks = make_chunks()
    *_, epoch = train(name, params, chunks, autocast=False)
    assert epoch.metrics["val_track_accuracy"] > 0.8
    save_checkpoint(tmp_path / "checkpoint", epoch, name, params, chunks.info)
    loaded = load_checkpoint(tmp_path / "checkpoint")
    assert loaded.config.params["receptive_samples"] == 66_000
    assert loaded.config.params["batch_size"] == 8
    x = {"array": torch.from_numpy(chunks.features["array"][:5])}
    with torch.no_grad():
        assert loaded.classifier(x).equal(epoch.classifier.eval()(x))


def test_a_family_outside_has_its_search_space_in_its_own_file(
    own_file: Callable[[str, str], Path],
) -> None:
    name = register_family(own_file("mean_of_bands", OWN_FAMILY))
    assert default_params(name, load_space(name)) == {"hidden": 8}


def test_the_option_family_takes_names_files_and_all(own_file: Callable[[str, str], Path]) -> None:
    path = own_file("mean_of_bands", OWN_FAMILY)
    assert family_names(["gru", str(path), "gru"]) == ("gru", "mean_of_bands")
    # and back, as config.toml has it
    assert models.family_arguments(("gru", "mean_of_bands")) == ("gru", str(path.resolve()))
    assert family_names(["all"]) == tuple(sorted([*FAMILIES, "mean_of_bands"]))
    with pytest.raises(RequestError, match=r"--family must be one of attention, .*'cnnn' \(near"):
        family_names(["cnnn"])


def test_a_file_that_changes_is_read_again(own_file: Callable[[str, str], Path]) -> None:
    path = own_file("mean_of_bands", OWN_FAMILY)
    name = register_family(path)
    assert full_params(name, {})["hidden"] == 8
    path.write_text(OWN_FAMILY.replace("hidden: int = 8", "hidden: int = 9"))
    assert register_family(path) == name
    assert full_params(name, {})["hidden"] == 9


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("gru", OWN_FAMILY, "unlike the families attention, .*: rename the file"),
        ("my-family", OWN_FAMILY, "must be named like a Python variable"),
        ("mine", "def", "mine.py cannot be read as Python: "),
        ("mine", "1 / 0", "mine.py cannot be used: ZeroDivisionError: division by zero"),
        ("mine", "class Model: ...", "mine.py must have a class Config: see mgc_ray/models/"),
    ],
)
def test_a_file_that_is_no_family_is_refused(
    own_file: Callable[[str, str], Path], name: str, source: str, message: str
) -> None:
    path = own_file(name, source)
    with pytest.raises(RequestError, match=message):
        family_module(register_family(path))


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere.py cannot be read as Python: .*No such file"):
        family_names([str(tmp_path / "nowhere.py")])


def test_a_family_of_an_installed_package_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By an entry point, as an installation writes it."""
    (tmp_path / "other_package.py").write_text(OWN_FAMILY)
    metadata = tmp_path / "other_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mgc_ray.families]\ninstalled = other_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    models._installed.cache_clear()
    try:
        assert "installed" in families()
        assert config_fields("installed") == {"receptive_samples", "hidden"}
        config: Any = configure("installed", {"hidden": "5"})[0]
        assert config.hidden == 5
    finally:
        monkeypatch.undo()
        models._installed.cache_clear()
        models._settings_of.cache_clear()
