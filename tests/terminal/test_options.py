"""Command lines: options, --set, --config, help pages and refusals."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.config import (
    CompareConfig,
    DatasetConfig,
    PredictConfig,
    PreprocessConfig,
    PretrainConfig,
    SearchConfig,
    ServeConfig,
    SynthConfig,
    TrainCommandConfig,
    TuneConfig,
)
from mgc_ray.models import checked_params
from mgc_ray.pipeline.request import search_defaults
from mgc_ray.terminal.options import Parsed, as_toml, parse, write_config


def parsed(config: Any, *argv: object, json_help: str = "") -> Parsed[Any]:
    return parse(config, [str(arg) for arg in argv], "command", "What it does.", json_help)


def config_of(config: Any, *argv: object) -> Any:
    return parsed(config, *argv).config


def refusal(config: Any, *argv: object) -> str:
    with pytest.raises(RequestError) as error:
        parsed(config, *argv)
    assert "\n" not in str(error.value)
    return str(error.value)


def help_of(config: Any, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parsed(config, *argv, "--help", json_help="Print a line.")
    assert not ended.value.code
    return capsys.readouterr().out


def toml(folder: Path, text: str) -> Path:
    path = folder / "search.toml"
    path.write_text(text)
    return path


# --- options ---


def test_without_options_all_settings_have_their_defaults() -> None:
    assert config_of(SearchConfig) == SearchConfig()


def test_options_set_values_in_their_sections() -> None:
    config = config_of(
        SearchConfig,
        *("--seed", 3, "--tracks", "music", "--split-seed=4"),
        *("--trials", 5, "--gpus-per-trial", 0.5, "--top-k", 2, "--address", "head:6379"),
    )
    assert config == SearchConfig(
        seed=3,
        dataset={"tracks": "music", "split_seed": 4},
        tuning={"trials": 5, "gpus_per_trial": 0.5},
        ensemble={"top_k": 2},
        cluster={"address": "head:6379"},
    )


def test_lists_take_several_values() -> None:
    config = config_of(SearchConfig, "--family", "gru", "cnn", "--features", "log_mel", "mfcc")
    assert config.family == ("gru", "cnn")
    assert config.dataset.features == ("log_mel", "mfcc")
    assert config_of(SearchConfig, "--family", "gru").family == ("gru",)


def test_only_files_may_have_names_that_are_not_utf_8() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert config_of(PredictConfig, name).files == (name,)
    rule = r"must be UTF-8 text, but it is caf\xe9: rename it"
    assert refusal(SearchConfig, "--results", name) == f"--results {rule}"
    assert refusal(SearchConfig, "--warm-start", "a", name) == f"--warm-start {rule}"
    assert refusal(PredictConfig, "a.wav", "--out", name) == f"--out {rule}"


def test_a_boolean_takes_no_value() -> None:
    assert config_of(SearchConfig, "--smoke").smoke is True
    assert config_of(SearchConfig, "--smoke", "--set", "smoke=false").smoke is False
    assert config_of(PreprocessConfig, "--dataset", "data", "--overwrite").overwrite is True


def test_an_option_may_be_called_otherwise_than_its_setting() -> None:
    assert config_of(PreprocessConfig, "--dataset", "data").folder == Path("data")


def test_values_without_an_option_name_are_positional() -> None:
    for argv in (["a", "b", "--out", "t"], ["--out", "t", "a", "b"]):
        config = config_of(CompareConfig, *argv)
        assert config == CompareConfig(searches=("a", "b"), out="t")


def test_a_negative_number_is_a_value() -> None:
    assert refusal(SearchConfig, "--seed", -1) == (
        "--seed must be a whole number from 0 to 2147483647, but it is -1"
    )


def test_the_last_of_repeated_options_is_used() -> None:
    assert config_of(SearchConfig, "--seed", 1, "--seed", 2).seed == 2


def test_json_is_an_option_of_commands_that_print_it() -> None:
    assert parsed(SearchConfig, "--json", json_help="Print a line.").as_json
    assert not parsed(SearchConfig, json_help="Print a line.").as_json
    assert not parsed(SearchConfig).as_json
    assert refusal(SearchConfig, "--json").startswith("no option --json")


# --- --set ---


def test_any_setting_can_be_set() -> None:
    config = config_of(
        SearchConfig,
        *("--set", "tuning.grace_period=2", "--set", "dataset.synthetic=7"),
        *("--set", "seed=3", "--set", "tuning.trials=4"),
    )
    assert config == SearchConfig(
        seed=3, dataset={"synthetic": 7}, tuning={"grace_period": 2, "trials": 4}
    )


def test_lists_are_set_with_commas() -> None:
    config = config_of(SearchConfig, "--set", "dataset.features=log_mel,mfcc", "--set", "family=")
    assert config.dataset.features == ("log_mel", "mfcc")
    assert config.family == ()


def test_a_value_may_hold_an_equals_sign() -> None:
    assert config_of(SearchConfig, "--set", "name=a=b").name == "a=b"


@pytest.mark.parametrize("config", [SearchConfig, TrainCommandConfig, PretrainConfig])
def test_settings_of_a_family_and_of_training_go_into_train(config: Any) -> None:
    given = {"--family": "gru", "--dataset": "data", "--out": "out"}
    known = {"--family"} if config is SearchConfig else set(given)
    options = [part for item in given.items() if item[0] in known for part in item]
    argv = [*options, "--set", "dropout=0.2", "--set", "train.lr=0.01", "--set", "max_epochs=3"]
    # with text as it was typed: the family's own bounds are checked with the family
    assert config_of(config, *argv).train == {"dropout": "0.2", "lr": "0.01", "max_epochs": "3"}


def test_none_is_no_value_where_a_setting_is_optional() -> None:
    argv = ["--time-limit", "none", "--set", "tuning.concurrent=None", "--name", "none"]
    config = config_of(SearchConfig, *argv)
    assert (config.tuning.time_limit, config.tuning.concurrent, config.name) == (None, None, "none")
    assert refusal(SearchConfig, "--trials", "none").endswith("1 or more, but it is 'none'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dropout", "--set takes NAME=VALUE, but it is 'dropout'"),
        ("", "--set takes NAME=VALUE, but it is ''"),
        (
            "tuning.graze_period=2",
            "--set tuning.graze_period=2: there is no setting 'tuning.graze_period' (nearest: "
            "tuning.grace_period)",
        ),
        ("trials=3", "--set trials=3: there is no setting 'trials' (nearest: tuning.trials)"),
        ("train=3", "--set train=3: there is no setting 'train'"),
        ("train.lr.x=3", "--set train.lr.x=3: there is no setting 'train.lr.x'"),
        (
            "dataset.synthetic=-1",
            "dataset.synthetic must be a whole number, 0 or more, but it is -",
        ),
        ("tuning.keep=", "tuning.keep must be a whole number, 1 or more, but it is ''"),
    ],
)
def test_a_wrong_set_is_refused(text: str, message: str) -> None:
    assert refusal(SearchConfig, "--set", text).startswith(message)


def test_a_command_without_training_refuses_a_setting_of_training() -> None:
    assert refusal(PreprocessConfig, "--set", "lr=3").startswith("--set lr=3: there is no setting")
    assert refusal(ServeConfig, "--set", "lr=3").startswith("--set lr=3: there is no setting")
    assert refusal(PreprocessConfig, "--dataset", "d", "--set", "synthetic=3") == (
        "--set synthetic=3: there is no setting 'synthetic' (nearest: dataset.synthetic)"
    )


# --- --config ---


def test_values_come_from_a_file(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        'seed = 3\nfamily = ["gru", "cnn"]\n[tuning]\ntrials = 7\ntime_limit = 2.5\n'
        '[dataset]\nfeatures = "mfcc"\n[train]\nlr = 0.01\n',
    )
    assert config_of(SearchConfig, "--config", path) == SearchConfig(
        seed=3,
        family=("gru", "cnn"),
        tuning={"trials": 7, "time_limit": 2.5},
        dataset={"features": "mfcc"},
        train={"lr": 0.01},
    )


def test_options_take_precedence_over_the_file_and_set_over_options(tmp_path: Path) -> None:
    path = toml(tmp_path, "seed = 1\n[tuning]\ntrials = 1\nmax_epochs = 1\nkeep = 1\n")
    argv = ["--set", "tuning.trials=3", "--config", path, "--trials", 2, "--max-epochs", 2]
    config = config_of(SearchConfig, *argv)
    assert config.tuning == TuneConfig(trials=3, max_epochs=2, keep=1)
    assert config.seed == 1


def test_a_positional_value_takes_precedence_over_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, 'searches = ["a"]\n')
    assert config_of(CompareConfig, "--config", path).searches == (Path("a"),)
    assert config_of(CompareConfig, "b", "--config", path).searches == (Path("b"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = [", "search.toml cannot be read as TOML: Invalid value"),
        ("tuning = 3", "search.toml: tuning must be settings by name, but it is 3"),
        ('train = "lr"', "search.toml: train must be settings by name, but it is 'lr'"),
        ("[tuning]\ntrails = 3", "there is no setting 'tuning.trails' (nearest: tuning.trials)"),
        ("trials = 3", "there is no setting 'trials' (nearest: tuning.trials)"),
        ("[tuning]\ntrials = 0", "--trials must be a whole number, 1 or more, but it is 0"),
        ("[dataset]\nchunk_seconds = nan", "--chunk-seconds must be a number from 1 to 60"),
        ("seed = 1979-05-27", "--seed must be a whole number from 0 to 2147483647, but it is date"),
        # TOML has types: what only a command line gives as text, or another type, is a mistake
        ('[tuning]\ntrials = "3"', "--trials must be a whole number, 1 or more, but it is '3'"),
        ("[tuning]\ntrials = true", "--trials must be a whole number, 1 or more, but it is True"),
        ("[tuning]\ntrials = 2.5", "--trials must be a whole number, 1 or more, but it is 2.5"),
        ('[tuning]\ntrials = "none"', "--trials must be a whole number, 1 or more, but it is 'no"),
        ('[tuning]\nkeep = "3"', "tuning.keep must be a whole number, 1 or more, but it is '3'"),
        ('[tuning]\ntime_limit = "9"', "--time-limit must be a number above 0, but it is '9'"),
        ("[tuning]\ntime_limit = false", "--time-limit must be a number above 0, but it is False"),
        ('smoke = "true"', "--smoke must be true or false, but it is 'true'"),
        ("smoke = 1", "--smoke must be true or false, but it is 1"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = toml(tmp_path, text)
    assert message in refusal(SearchConfig, "--config", path, "--top-k", 3, "--max-epochs", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('lr = "0.01"', "lr must be a number above 0, but it is '0.01'"),
        ("max_epochs = true", "max_epochs must be a whole number, 1 or more, but it is True"),
        ('bidirectional = "false"', "bidirectional must be true or false, but it is 'false'"),
    ],
)
def test_settings_of_a_family_in_a_file_have_types_too(
    tmp_path: Path, text: str, message: str
) -> None:
    path = toml(tmp_path, f"[train]\n{text}\n")
    given = config_of(SearchConfig, "--family", "gru", "--config", path).train
    with pytest.raises(RequestError) as error:
        checked_params("gru", given)
    assert str(error.value) == message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert refusal(SearchConfig, "--config", missing).startswith(
        f"--config {missing} cannot be read as TOML: [Errno 2] No such file"
    )
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    assert "'utf-8' codec" in refusal(SearchConfig, "--config", tmp_path / "latin.toml")


def test_a_written_configuration_is_read_as_it_was(tmp_path: Path) -> None:
    config = SearchConfig(
        family=("gru", "cnn"),
        name='a "quoted" nåme',
        dataset={"tracks": "music", "features": ("log_mel", "mfcc")},
        train={"lr": 0.01, "cell": "gru"},
        tuning={"time_limit": 2.5},
    )
    path = tmp_path / "config.toml"
    write_config(path, config)
    assert list(tmp_path.iterdir()) == [path]
    assert config_of(SearchConfig, "--config", path) == config
    assert path.read_text("utf-8") == as_toml(config)


def test_a_value_that_was_unset_stays_unset(tmp_path: Path) -> None:
    # without tracks a search has a time limit, unless it is said to have none
    config = parse(
        SearchConfig, ["--set", "tuning.time_limit=none"], "search", "", "", search_defaults
    ).config
    assert config.tuning.time_limit is None
    assert config.tuning.trials == 8
    write_config(tmp_path / "config.toml", config)
    assert tomllib.loads((tmp_path / "config.toml").read_text())["tuning"]["time_limit"] == "none"
    argv = ["--config", str(tmp_path / "config.toml")]
    again = parse(SearchConfig, argv, "search", "", "", search_defaults).config
    assert again == config


@given(
    trials=st.integers(1, 10**6),
    limit=st.none() | st.floats(0.001, 1e9),
    seconds=st.floats(1, 60),
    lr=st.floats(1e-9, 1),
)
def test_any_numbers_survive_a_file(
    tmp_path_factory: pytest.TempPathFactory,
    trials: int,
    limit: float | None,
    seconds: float,
    lr: float,
) -> None:
    config = SearchConfig(
        dataset=DatasetConfig(chunk_seconds=seconds),
        tuning=TuneConfig(trials=trials, time_limit=limit),
        train={"lr": lr},
    )
    path = tmp_path_factory.getbasetemp() / "any.toml"
    write_config(path, config)
    assert config_of(SearchConfig, "--config", path) == config


# --- refusals ---


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--famly", "gru"], "no option --famly (nearest: --family) (see --help)"),
        (["--famly=gru"], "no option --famly (nearest: --family) (see --help)"),
        (["--fam", "gru"], "no option --fam (nearest: --family) (see --help)"),
        (["--grace-period", "2"], "no option --grace-period"),
        (["-x"], "no option -x (see --help)"),
        (["gru"], "unexpected argument 'gru' (see --help)"),
        (["--trials"], "argument --trials: expected one argument (see --help)"),
        (["--trials", "many"], "--trials must be a whole number, 1 or more, but it is 'many'"),
        (["--trials="], "--trials must be a whole number, 1 or more, but it is ''"),
        (["--smoke=yes"], "argument --smoke: ignored explicit argument 'yes' (see --help)"),
        (
            ["--metric", "macro_f2"],
            "--metric must be one of track_accuracy, macro_f1, log_loss, but it is 'macro_f2' "
            "(nearest: macro_f1)",
        ),
    ],
)
def test_a_wrong_option_is_refused_with_the_nearest(argv: list[str], message: str) -> None:
    assert refusal(SearchConfig, *argv).startswith(message)


def test_what_is_needed_is_asked_for() -> None:
    assert (
        refusal(TrainCommandConfig)
        == "--family is needed: a model family, or the path of your own."
    )
    assert refusal(CompareConfig).startswith(
        "RESULTS is needed: finished searches, by name or folder"
    )
    assert refusal(SynthConfig) == "--out is needed: where to write it."


def test_a_file_whose_name_begins_with_a_dash_needs_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-song.wav").touch()
    assert refusal(PredictConfig, "-song.wav") == (
        "no option -song.wav; write a file whose name begins with - as ./-song.wav (see --help)"
    )
    assert config_of(PredictConfig, "./-song.wav").files == ("./-song.wav",)
    assert config_of(PredictConfig, "--", "-song.wav").files == ("-song.wav",)
    assert refusal(PredictConfig, "-other.wav") == "no option -other.wav (see --help)"


# --- help ---


def test_the_help_page_lists_options_with_defaults_and_all_other_settings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = help_of(SearchConfig, capsys)
    assert page.startswith("usage: mgc-ray command [--family NAME [NAME ...]]")
    flat = " ".join(page.split())
    assert "What it does." in flat
    assert "--trials TRIALS Trials in total; a whole number, 1 or more (default: 20)." in flat
    assert (
        "--chunk-seconds SECONDS Length of a chunk of audio, in seconds; a number from 1 to 60 "
        "(default: 2.9932)." in flat
    )
    assert "this time, and start no more; a number above 0. --concurrent" in flat
    assert "--metric {track_accuracy,macro_f1,log_loss}" in flat
    assert "--json Print a line." in flat
    assert "tuning.grace_period: a whole number, 1 or more; default 1 Epochs before ASHA" in flat
    assert "tuning.trial_timeout: a number above 0 or none End a trial that takes longer" in flat
    assert "tuning.trials" not in flat  # it has an option
    assert "--family NAME --help lists them, with bounds" in flat


def test_with_a_family_the_help_page_lists_its_settings_with_bounds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = help_of(SearchConfig, capsys, "--family", "gru", "cnn")
    flat = " ".join(page.split())
    assert "settings of the family gru for --set and --config" in flat
    assert "dropout: a number from 0 to below 1" in flat
    assert "lr: a number above 0; default 0.001 Learning rate at its highest." in flat
    assert "settings of the family cnn for --set and --config" in flat
    assert "settings of the family lstm" not in flat


def test_the_help_page_of_an_unknown_family_is_refused() -> None:
    with pytest.raises(RequestError, match="--family must be one of .*'grru' .nearest: gru."):
        parsed(TrainCommandConfig, "--family", "grru", "--help")


def test_the_help_page_needs_nothing_that_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    page = help_of(PredictConfig, capsys)
    assert "[FILE_OR_FOLDER ...]" in page
    assert "settings of a family" not in page
