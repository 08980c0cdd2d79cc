"""What is put around a space: groups of bands, settings that are fixed."""

import optuna
import pytest

from mgc_ray import RequestError
from mgc_ray.training.config import check_given, given_settings
from mgc_ray.tuning.space import default_params, load_space, with_fixed, with_groups


def test_a_dataset_of_one_group_leaves_the_space_as_it_is() -> None:
    suggest = load_space("cnn")
    assert with_groups(suggest, ["log_mel"]) is suggest


def test_groups_are_all_or_the_first_with_others_or_one_alone() -> None:
    suggest = with_groups(load_space("cnn"), ["log_mel", "chroma", "mfcc"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = {suggest(study.ask())["groups"] for _ in range(60)}
    assert found == {"all", "log_mel", "log_mel+chroma", "log_mel+mfcc", "chroma", "mfcc"}
    assert default_params("cnn", suggest)["groups"] == "all"


def test_what_is_fixed_is_not_suggested_and_branches_go_by_it() -> None:
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


def test_a_default_outside_of_a_branch_that_is_fixed_names_the_remedy() -> None:
    with pytest.raises(RequestError, match="--set this one too"):
        default_params("gru", with_fixed(load_space("gru"), {"optimizer": "adamw"}))


def test_each_family_takes_the_settings_that_it_has() -> None:
    check_given(["gru", "statistics"], ["bidirectional=false", "crops=2"])
    assert given_settings("gru", ["bidirectional=false", "crops=2"]) == {
        "bidirectional": False,
        "crops": 2,
    }
    assert given_settings("statistics", ["bidirectional=false", "crops=2"]) == {"crops": 2}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_epochs=3", "by --max-epochs instead"),
        ("seed=3", "by --seed instead"),
        ("crops", "--set crops needs a value, as in --set crops=1"),
        ("crop=two", "must be a number, not 'two'"),
        ("crop=2", "share of the frames"),
        ("heads=4", "not 'heads=4'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        check_given(["gru", "statistics"], [text])
