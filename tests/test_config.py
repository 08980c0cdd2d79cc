"""All settings of the program: help, defaults, bounds, round trips and refusals."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mgc_ray.config
from mgc_ray import RequestError
from mgc_ray.config import (
    CHUNK_SECONDS,
    DatasetConfig,
    EnsembleConfig,
    Metric,
    PredictConfig,
    PreprocessConfig,
    Protocol,
    SearchConfig,
    TrainCommandConfig,
    TrainConfig,
    TuneConfig,
    memory_bytes,
)
from mgc_ray.models import families, family_class
from mgc_ray.settings import Option, Params, as_json, options, setting_names, validated

PROGRAM = [one for one in vars(mgc_ray.config).values() if dataclasses.is_dataclass(one)]
FAMILIES = {name: family_class(name)[0] for name in families()}
# values of the settings that must be given, which fit all configurations
GIVEN: Params = {
    "architecture": {},
    "backbone": "gru",
    "dataset": "data",
    "family": "gru",
    "files": ["a.wav"],
    "folder": "data",
    "onnx": "model.onnx",
    "out": "out",
    "search": "gru-001",
    "searches": ["results/gru-001"],
    "song": "song.mp3",
    "table": "genres.parquet",
    "tracks": "tracks.csv",
    "tracks_per_genre": 3,
}


def minimal(config: Any) -> Params:
    """Values of the settings that must be given."""
    return {o.name: GIVEN[o.name] for o in options(config) if o.default is ...}


def all_settings(config: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Option]]:
    """Every setting and its place, sections left out."""
    settings = []
    for option in options(config):
        place = (*path, option.name)
        settings += all_settings(option.type, place) if option.is_section else [(place, option)]
    return settings


def nested(place: tuple[str, ...], value: Any) -> Params:
    for name in reversed(place):
        value = {name: value}
    return value


programs = pytest.mark.parametrize("config", PROGRAM, ids=lambda config: config.__name__)
every = pytest.mark.parametrize(
    "config",
    [*PROGRAM, *FAMILIES.values()],
    ids=[*(config.__name__ for config in PROGRAM), *FAMILIES],
)


def test_all_configurations_are_tested() -> None:
    assert {SearchConfig, DatasetConfig, TuneConfig, TrainConfig, PredictConfig} < set(PROGRAM)
    assert len(PROGRAM) >= 15
    assert len(FAMILIES) >= 7


# --- every setting ---


@every
def test_every_setting_has_one_sentence_of_help(config: Any) -> None:
    assert config.__doc__
    for option in options(config):
        if option.is_section:
            assert option.help == "", f"{option.name}: its settings have the help"
            continue
        assert option.help.endswith("."), option.name
        assert option.help[0].isupper() or option.help[0].isdigit(), option.name
        sentence = option.help.replace("e.g.", "").removesuffix(".")
        assert ". " not in sentence, f"{option.name}: one sentence"
        assert "\n" not in option.help


@every
def test_every_default_is_within_its_bounds(config: Any) -> None:
    defaults = validated(config, minimal(config))
    for option in options(config):
        if option.default is not ...:
            assert getattr(defaults, option.name) == option.default
            # given by itself it is accepted too
            again = validated(config, minimal(config) | {option.name: option.default})
            assert getattr(again, option.name) == option.default


@every
def test_every_configuration_comes_back_from_json(config: Any) -> None:
    configured = validated(config, minimal(config))
    content = as_json(configured)
    assert validated(config, json.loads(json.dumps(content))) == configured


@programs
def test_flags_of_a_configuration_are_unique(config: Any) -> None:
    flags = [option.flag for _, option in all_settings(config) if option.flag]
    assert len(set(flags)) == len(flags)
    assert not {"--set", "--config", "--json", "--help"} & set(flags)
    assert all(flag == flag.lower() and flag.startswith("--") for flag in flags)


@programs
def test_numbers_have_bounds_and_all_types_are_known(config: Any) -> None:
    for place, option in all_settings(config):
        assert "a value" not in option.rule, place
        if option.rule.startswith(("a number", "a whole number")):
            assert option.bounds, place


# --- wrong values ---


@every
def test_an_unknown_setting_is_refused_by_name(config: Any) -> None:
    with pytest.raises(RequestError, match=r"^there is no setting 'no_such_setting'"):
        validated(config, minimal(config) | {"no_such_setting": 1})


@every
def test_a_misspelt_setting_is_refused_with_the_nearest_name(config: Any) -> None:
    for place, option in all_settings(config):
        if len(option.name) < 4:
            continue
        misspelt = (*place[:-1], option.name[:-1])
        if ".".join(misspelt) in setting_names(config):
            continue
        values = minimal(config)
        values.pop(place[0], None)
        with pytest.raises(RequestError) as error:
            validated(config, values | nested(misspelt, 1))
        assert str(error.value).startswith(f"there is no setting '{'.'.join(misspelt)}' (nearest: ")


@every
def test_a_value_beyond_a_bound_is_refused_with_rule_and_value(config: Any) -> None:
    for place, option in all_settings(config):
        for name, bound in option.bounds:
            step = 1 if option.type is int else 0.5
            wrong = {"ge": bound - step, "gt": bound, "le": bound + step, "lt": bound}[name]
            values = minimal(config)
            with pytest.raises(RequestError) as error:
                validated(config, values | nested(place, wrong))
            label = option.label or ".".join(place)
            assert str(error.value) == f"{label} must be {option.rule}, but it is {wrong!r}"


@every
def test_a_value_of_a_wrong_type_is_refused_with_its_place(config: Any) -> None:
    for place, option in all_settings(config):
        wrong: Any = 3 if option.is_list or option.is_table or option.choices else [None]
        with pytest.raises(RequestError) as error:
            validated(config, minimal(config) | nested(place, wrong))
        label = option.label or ".".join(place)
        assert str(error.value).startswith(f"{label} must be {option.rule}, but it is "), place


@every
def test_a_setting_that_is_needed_is_asked_for_by_its_help(config: Any) -> None:
    for option in options(config):
        if option.default is not ...:
            continue
        values = minimal(config)
        del values[option.name]
        with pytest.raises(RequestError) as error:
            validated(config, values)
        label = option.label or option.name
        assert str(error.value) == f"{label} is needed: {option.help[0].lower()}{option.help[1:]}"


# --- single settings ---


def test_the_default_chunk_is_that_of_the_baseline() -> None:
    assert CHUNK_SECONDS * 22_050 == 66_000
    assert DatasetConfig().chunk_seconds == CHUNK_SECONDS
    assert DatasetConfig().features == ("log_mel",)


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (DatasetConfig, {"protocol": "random"}, "--protocol must be one of grouped, given, fault-"),
        (
            DatasetConfig,
            {"protocol": "groupd"},
            "--protocol must be one of grouped, given, fault-filtered, cross-validation, "
            "random-chunks, unlabelled, but it is 'groupd' (nearest: grouped)",
        ),
        (
            DatasetConfig,
            {"chunk_seconds": 0.5},
            "--chunk-seconds must be a number from 1 to 60, but it is 0.5",
        ),
        (
            DatasetConfig,
            {"chunks_per_track": 0},
            "--chunks-per-track must be a whole number, 1 or more, but it is 0",
        ),
        (
            DatasetConfig,
            {"synthetic": -1},
            "synthetic must be a whole number, 0 or more, but it is -1",
        ),
        (
            DatasetConfig,
            {"array_recipe": "mine"},
            "array_recipe must be one of (nothing), gtzan, but it is 'mine'",
        ),
        (
            EnsembleConfig,
            {"refit_folds": 1},
            "--refit-folds must be 2 or more, as each model leaves one fold out, but it is 1",
        ),
        (
            SearchConfig,
            {"dataset": {"split_seed": 2**31}},
            "--split-seed must be a whole number from 0 to 2147483647, but it is 2147483648",
        ),
        (
            SearchConfig,
            {"tuning": {"trails": 3}},
            "there is no setting 'tuning.trails' (nearest: t",
        ),
        (SearchConfig, {"keep": 3}, "there is no setting 'keep' (nearest: tuning.keep)"),
        (TrainConfig, {"lr": 0}, "lr must be a number above 0, but it is 0"),
        (PreprocessConfig, {}, "--dataset is needed: where to write the dataset."),
    ],
)
def test_exact_refusals(config: Any, values: Params, message: str) -> None:
    with pytest.raises(RequestError) as error:
        validated(config, values)
    assert str(error.value).startswith(message)


def test_unlabelled_tracks_have_no_genres() -> None:
    for protocol in get_args(Protocol):
        assert DatasetConfig(protocol=protocol).labelled == (protocol != "unlabelled")


def test_memory_is_given_in_gib() -> None:
    assert memory_bytes(None) is None
    assert memory_bytes(1.5) == 3 * 2**29
    assert memory_bytes(0) == 0


def test_the_folder_of_a_search() -> None:
    assert SearchConfig(results="elsewhere", name="gru-001").folder == Path("elsewhere/gru-001")


def test_only_settings_that_change_the_outcome_distinguish_searches() -> None:
    compared = {".".join(place) for place, option in all_settings(SearchConfig) if option.compared}
    assert compared == {
        *("metric", "init_from", "smoke", "train"),
        *("dataset.features", "dataset.chunk_seconds", "dataset.chunks_per_track"),
        *("dataset.array_layout", "dataset.array_recipe"),
        *("dataset.more_tracks", "dataset.exclude_artists"),
        "dataset.synthetic",
        *("tuning.trials", "tuning.max_epochs", "tuning.grace_period", "tuning.reduction_factor"),
        *("tuning.time_limit", "tuning.warm_start"),
        *("ensemble.top_k", "ensemble.refit_folds"),
    }


# --- any search ---


def search_values() -> st.SearchStrategy[Params]:
    """Values of a search as a file may hold them."""
    seeds = st.integers(0, 2**31 - 1)
    dataset = st.fixed_dictionaries(
        {},
        optional={
            "tracks": st.sampled_from(["music", "music/tracks.csv"]),
            "protocol": st.sampled_from(get_args(Protocol)),
            "split_seed": seeds,
            "features": st.lists(st.sampled_from(["log_mel", "mfcc"]), max_size=2),
            "chunk_seconds": st.floats(1, 60),
        },
    )
    tuning = st.fixed_dictionaries(
        {},
        optional={
            "trials": st.integers(1, 1000),
            "time_limit": st.none() | st.just("none") | st.floats(0.1, 1e6),
            "gpus_per_trial": st.none() | st.floats(0, 1),
        },
    )
    return st.fixed_dictionaries(
        {},
        optional={
            "family": st.sampled_from(["gru", ["gru", "cnn"], []]),
            "seed": seeds,
            "metric": st.sampled_from(get_args(Metric)),
            "smoke": st.booleans(),
            "dataset": dataset,
            "tuning": tuning,
            "train": st.dictionaries(st.sampled_from(["lr", "hidden"]), st.floats(0, 1)),
        },
    )


@given(search_values())
def test_any_search_comes_back_from_json(values: Params) -> None:
    config = validated(SearchConfig, values)
    assert validated(SearchConfig, json.loads(json.dumps(as_json(config)))) == config
    assert SearchConfig(**values | _without_text(values)) == config


def _without_text(values: Params) -> Params:
    """The text `none` is for command lines and files."""
    tuning = {k: None if v == "none" else v for k, v in values.get("tuning", {}).items()}
    return {"tuning": tuning} if "tuning" in values else {}


def test_settings_of_training_stay_as_they_were_given() -> None:
    config = TrainCommandConfig(family="gru", dataset="data", train={"lr": "0.1", "hidden": 7})
    assert config.train == {"lr": "0.1", "hidden": 7}
