"""Every family keeps the contract of the room, and so does its search space."""

import dataclasses

import optuna
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.models import config_fields, families, family_module
from mgc_ray.models._classifier import Classifier
from mgc_ray.training.config import configure
from mgc_ray.tuning.space import check_space, default_params, load_space

FAMILIES = families()


def test_the_published_families_are_there() -> None:
    assert {"cnn", "lstm", "gru", "attention", "transfer"} <= set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("bands", "frames"), [(128, 258), (128, 38), (128, 1), (40, 600)])
def test_a_model_takes_any_number_of_bands_and_frames(family: str, bands: int, frames: int) -> None:
    config = family_module(family).Config()
    model = Classifier(family, config, bands, genres=10).eval()
    assert model(torch.randn(3, bands, frames)).shape == (3, 10)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_learns_two_spectrograms_by_heart(family: str) -> None:
    torch.manual_seed(0)
    config = family_module(family).Config()
    model = Classifier(family, config, bands=32, genres=2).train()
    x = torch.randn(2, 32, 24).repeat(4, 1, 1)
    y = torch.tensor([0, 1] * 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert (model.eval()(x).argmax(1) == y).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_of_the_head_is_all_that_knows_the_genres(family: str) -> None:
    config = family_module(family).Config()
    few, many = (Classifier(family, config, bands=32, genres=n).network for n in (3, 5))
    x = torch.randn(2, 32, 24)
    assert few.eval()(x).equal(few.head(few.embed(x)))
    other = [n for n, p in few.named_parameters() if p.shape != many.get_parameter(n).shape]
    last = [n for n, part in few.named_modules() if isinstance(part, torch.nn.Linear)][-1]
    assert ".head." in f".{last}."
    assert other == [f"{last}.weight", f"{last}.bias"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_is_frozen_with_defaults(family: str) -> None:
    config = family_module(family).Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, next(iter(config_fields(family))), 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_sample_of_the_space_gives_a_model_that_runs(family: str) -> None:
    suggest = load_space(family)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(8):
        config, _ = configure(family, suggest(study.ask()))
        model = Classifier(family, config, bands=128, genres=10).eval()
        assert model(torch.randn(1, 128, 38)).shape == (1, 10)


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

    with pytest.raises(RequestError, match="lr must be above 0"):
        check_space("gru", suggest)


def test_a_space_without_the_defaults_is_refused() -> None:
    def suggest(trial: optuna.Trial) -> dict[str, object]:
        return {"dropout": trial.suggest_float("dropout", 0.5, 0.9)}

    with pytest.raises(RequestError, match=r"must contain the family's defaults.*dropout"):
        default_params("gru", suggest)


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"one of .*gru.*, not 'grü'"):
        family_module("grü")


def test_the_classifier_standardises_each_band() -> None:
    model = Classifier("cnn", family_module("cnn").Config(), bands=2, genres=2)
    model.mean.copy_(torch.tensor([10.0, -5.0]))
    model.deviation.copy_(torch.tensor([2.0, 0.5]))
    x = torch.tensor([[[12, 8], [-5, -4]]], dtype=torch.int16)
    assert model.standardise(x).tolist() == [[[1.0, -1.0], [0.0, 2.0]]]


def test_prediction_goes_over_a_chunk_in_overlapping_windows() -> None:
    config = family_module("cnn").Config(blocks=1, channels=2, hidden=4)
    model = Classifier("cnn", config, bands=8, genres=3, crop=0.4, overlap=0.5).eval()
    x = torch.randn(2, 8, 10)
    assert model.length(10) == 4
    windows = [model(x[:, :, start : start + 4]).softmax(1) for start in (0, 2, 4, 6)]
    assert torch.allclose(model.probs(x).float(), torch.stack(windows).mean(0), atol=1e-6)
    whole = Classifier("cnn", config, bands=8, genres=3).eval()
    assert torch.allclose(whole.probs(x).float(), whole(x).softmax(1), atol=1e-6)
