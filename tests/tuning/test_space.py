"""What is put around a space: the choice of features, settings that are fixed."""

import optuna
import pytest

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.features import FeatureSet, audio_features, musicnn
from mgc_ray.models import params_of, shared_params
from mgc_ray.tuning.space import (
    Suggest,
    check_space,
    default_params,
    load_space,
    with_features,
    with_fixed,
)


def test_a_dataset_of_one_feature_leaves_the_space_as_it_is() -> None:
    suggest = load_space("cnn")
    assert with_features(suggest, features("log_mel")) is suggest


def test_a_trial_reads_all_features_or_the_first_with_others_or_one_alone() -> None:
    suggest = with_features(load_space("cnn"), features("log_mel", "chroma", "mfcc"))
    assert suggested(suggest) == {
        *("all", "log_mel", "log_mel+chroma", "log_mel+mfcc", "chroma", "mfcc")
    }
    assert default_params("cnn", suggest)["features"] == "all"


def test_a_trial_reads_some_groups_of_outputs_of_an_embedding() -> None:
    suggest = with_features(load_space("linear"), features("musicnn"))
    found = suggested(suggest)
    assert len(found) == 2**4 - 1  # all groups, or any of them
    assert {"all", "musicnn[mean]", "musicnn[mean,max,tags]"} < found
    assert default_params("linear", suggest)["features"] == "all"
    found = suggested(with_features(load_space("linear"), features("musicnn", "musicnn:MTT_vgg")))
    assert {"all", "musicnn", "musicnn:MTT_vgg", "musicnn:MTT_vgg[mean,tags]"} < found
    assert len(found) == 3 + 2 * (2**4 - 2)


def features(*names: str) -> FeatureSet:
    every = {
        "musicnn": musicnn.Feature(),
        "musicnn:MTT_vgg": musicnn.Feature(model="MTT_vgg"),
        **audio_features(DatasetConfig(features=("log_mel", "chroma", "mfcc"))).columns,
    }
    return FeatureSet({name: every[name] for name in names})


def suggested(suggest: Suggest) -> set[str]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return {suggest(study.ask())["features"] for _ in range(300)}


def test_fixed_settings_are_not_suggested_and_branches_depend_on_them() -> None:
    fixed = {"optimizer": "adamw", "patience": 3}  # the second is no part of the space
    suggest = with_fixed(load_space("gru"), fixed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        params = suggest(trial)
        assert params["optimizer"] == "adamw"
        assert params["patience"] == 3
        assert "weight_decay" in trial.params
        assert "optimizer" not in trial.params
    assert len({tuple(t.params.items()) for t in study.get_trials()}) == 20


def test_the_defaults_of_a_space_leave_out_what_is_fixed() -> None:
    defaults = default_params("gru", with_fixed(load_space("gru"), {"crop": 0.4}))
    assert "crop" not in defaults
    assert defaults["lr"] == 1e-3


def test_a_default_outside_a_branch_that_is_fixed_is_refused_with_the_remedy() -> None:
    with pytest.raises(RequestError, match="--set this one too"):
        default_params("gru", with_fixed(load_space("gru"), {"optimizer": "adamw"}))


def test_a_space_that_suggests_what_is_no_setting_is_refused() -> None:
    def suggest(trial: optuna.Trial) -> dict[str, float]:
        return {"lrr": trial.suggest_float("lrr", 0.1, 0.2)}

    with pytest.raises(RequestError, match="suggests lrr, which is no field of gru's Config"):
        check_space("gru", suggest)


def test_each_family_takes_the_settings_that_it_has() -> None:
    shared = shared_params(["gru", "statistics"], {"bidirectional": "false", "crops": "2"})
    assert shared == {"bidirectional": False, "crops": 2}
    assert params_of("gru", shared) == {"bidirectional": False, "crops": 2}
    assert params_of("statistics", shared) == {"crops": 2}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("crop", "two", "crop must be a number above 0, at most 1, but it is 'two'"),
        ("crop", "2", "crop must be a number above 0, at most 1, but it is 2"),
        ("heads", "4", "there is no setting 'heads'"),
        ("dropuot", "0.1", "(nearest: dropout)"),
    ],
)
def test_a_setting_that_no_family_can_have_is_refused(name: str, value: str, reason: str) -> None:
    with pytest.raises(RequestError) as refused:
        shared_params(["gru", "statistics"], {name: value})
    assert reason in str(refused.value)
