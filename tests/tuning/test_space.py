"""Groups of bands as part of the space."""

import optuna

from mgc_ray.tuning.space import default_params, load_space, with_groups


def test_a_dataset_of_one_group_leaves_the_space_as_it_is() -> None:
    suggest = load_space("cnn")
    assert with_groups(suggest, ["log_mel"]) is suggest


def test_groups_are_all_or_the_first_with_others_or_one_alone() -> None:
    suggest = with_groups(load_space("cnn"), ["log_mel", "chroma", "mfcc"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = {suggest(study.ask())["groups"] for _ in range(60)}
    assert found == {"all", "log_mel", "log_mel+chroma", "log_mel+mfcc", "chroma", "mfcc"}
    assert default_params("cnn", suggest)["groups"] == "all"
