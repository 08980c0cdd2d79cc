"""What is put around a space: the choice of features, settings that are fixed."""

import sys
from pathlib import Path

import optuna
import pytest

import search_spaces
from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.features import FeatureSet, audio_features, hf, musicnn
from mgc_ray.models import params_of, second_kinds, shared_params
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


def test_a_network_on_spectrograms_is_offered_an_embedding_as_a_second_input() -> None:
    kinds = second_kinds("gru")
    suggest = with_features(load_space("gru"), features("log_mel", "musicnn"), kinds)
    assert suggested(suggest) == {"all", "log_mel"}
    assert default_params("gru", suggest)["features"] == "all"
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for params in (suggest(study.ask()) for _ in range(20)):
        assert ("embedding_dropout" in params) == (params["features"] == "all")
    several = features("log_mel", "mfcc", "musicnn", "musicnn:MTT_vgg")
    found = suggested(with_features(load_space("gru"), several, kinds))
    first = {"log_mel", "log_mel+mfcc", "mfcc"}
    besides = {"musicnn", "musicnn:MTT_vgg", "musicnn+musicnn:MTT_vgg"}
    both = {f"{one}+{beside}" for one in first for beside in besides}
    assert found == {"all"} | first | both - {"log_mel+mfcc+musicnn+musicnn:MTT_vgg"}
    check_space("gru", suggest)


def test_of_an_embedding_of_many_layers_a_second_input_is_all_or_one() -> None:
    columns = features("log_mel").columns | {"hf:tiny": hf.Feature(layers=5, width=4)}
    suggest = with_features(load_space("cnn"), FeatureSet(columns), second_kinds("cnn"))
    layers = {f"log_mel+hf:tiny[layer{number}]" for number in range(5)}
    assert suggested(suggest) == {"all", "log_mel"} | layers


def test_a_fixed_choice_of_features_decides_on_the_settings_of_a_second_input() -> None:
    kinds = second_kinds("gru")
    suggest = with_features(load_space("gru"), features("log_mel", "musicnn"), kinds)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for given, has in (("log_mel", False), ("log_mel+musicnn[mean,max]", True)):
        params = with_fixed(suggest, {"features": given})(study.ask())
        assert ("embedding_dropout" in params) == has
        assert params["features"] == given


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


def test_a_space_that_python_warns_of_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "gru.py").write_text("def suggest(trial) -> None[str, int]:\n    return {}\n")
    monkeypatch.setattr(search_spaces, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "search_spaces.gru", raising=False)
    with pytest.raises(RequestError, match=r"gru\.py.*cannot be imported"):
        load_space("gru")
    assert not recwarn.list


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
