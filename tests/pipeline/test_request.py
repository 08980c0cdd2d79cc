"""What a search is asked for on the command line, and what is refused before any work."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from mgc_ray import RequestError, models
from mgc_ray.config import DatasetConfig, SearchConfig
from mgc_ray.data.features import _own, own_features
from mgc_ray.data.own_files import write_copies
from mgc_ray.models import default_families, full_params, kinds_read
from mgc_ray.pipeline.request import (
    complete_search,
    read_request,
    reason_for_families,
    search_defaults,
)
from mgc_ray.pipeline.search import search
from mgc_ray.results import SearchResult, load_search
from mgc_ray.terminal.options import parse
from tests.data.features.made_own import write_encoder
from tests.made_models import OWN_FAMILY

DATASET = [
    *("--tracks", "music.csv", "--protocol", "cross-validation", "--fold", "2/5"),
    *("--split-seed", "3", "--features", "log_mel", "chroma", "--chunk-seconds", "5"),
    *("--set", "dataset.synthetic=7"),
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _requested(argv: Sequence[str]) -> SearchConfig:
    parsed = parse(SearchConfig, argv, "search", "", complete=search_defaults)
    return complete_search(parsed.config)


def test_the_dataset_is_described_by_the_same_options_as_for_preprocess() -> None:
    assert _requested(["--family", "gru", *DATASET]).dataset == DatasetConfig(
        tracks="music.csv",
        protocol="cross-validation",
        split_seed=3,
        fold="2/5",
        features=("log_mel", "chroma"),
        chunk_seconds=5.0,
        synthetic=7,
    )
    argv = [
        "--family",
        "gru",
        "--tracks",
        "a",
        "--chunks-per-track",
        "1",
        "--set",
        "dataset.array_recipe=gtzan",
    ]
    expected = DatasetConfig(tracks="a", chunks_per_track=1, array_recipe="gtzan")
    assert _requested(argv).dataset == expected


def test_the_split_of_folders_is_used_unless_another_protocol_is_given(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        (tmp_path / "music" / part / "rock").mkdir(parents=True)
        (tmp_path / "music" / part / "rock" / "a.wav").touch()
    music = ["--family", "gru", "--tracks", "music"]
    assert _requested(music).dataset.protocol == "given"
    assert _requested([*music, "--protocol", "grouped"]).dataset.protocol == "grouped"
    assert _requested(["--family", "gru", "--tracks", "other"]).dataset.protocol == "grouped"
    given = search_defaults({"family": ("gru",), "dataset": {"tracks": tmp_path / "music"}})
    assert given["dataset"]["protocol"] == "given"  # of run_search
    dataset = DatasetConfig(tracks="music")
    assert search_defaults({"family": ("gru",), "dataset": dataset})["dataset"] == dataset


def test_a_search_without_music_is_shorter_and_a_smoke_search_is_the_shortest() -> None:
    def sizes(*argv: str) -> tuple[int, int, float | None]:
        tuning = _requested(["--family", "gru", *argv]).tuning
        return tuning.trials, tuning.max_epochs, tuning.time_limit

    assert sizes("--tracks", "music") == (20, 30, None)
    assert sizes() == (8, 14, 200.0)
    assert sizes("--smoke") == (2, 2, None)
    assert sizes("--smoke", "--trials", "5") == (5, 2, None)


def test_a_name_is_the_family_and_the_next_free_number(tmp_path: Path) -> None:
    assert _requested(["--family", "gru"]).name == "gru-001"
    (tmp_path / "results/gru-001").mkdir(parents=True)
    assert _requested(["--family", "gru"]).name == "gru-002"
    assert _requested(["--family", "gru", "cnn"]).name == "gru-cnn-001"
    assert _requested(["--family", "all"]).name == "all-001"


@pytest.mark.parametrize(
    ("options", "families"),
    [
        ([], ("discriminant",)),
        (["--features", "chroma", "mfcc"], ("discriminant",)),
        (["--features", "musicnn"], ("linear",)),
        (["--features", "musicnn:MTT_vgg", "log_mel"], ("discriminant", "linear")),
        (["--init-from", "weights"], ("discriminant", "transfer")),
        (["--features", "musicnn", "--init-from", "weights"], ("linear", "transfer")),
        # a setting says which of the features are read
        (["--features", "log_mel", "musicnn", "--set", "features=log_mel"], ("discriminant",)),
        (["--features", "log_mel", "musicnn", "--set", "features=musicnn[mean,tags]"], ("linear",)),
        (
            ["--features", "log_mel", "musicnn", "--set", "features=log_mel+musicnn[tags]"],
            ("discriminant", "linear"),
        ),
    ],
)
def test_without_a_family_those_are_searched_that_are_best_for_the_features(
    options: list[str], families: tuple[str, ...]
) -> None:
    config = parse(SearchConfig, options, "search", "", complete=search_defaults).config
    assert complete_search(config).family == families
    assert complete_search(config).name == "-".join([*families, "001"])
    reason = reason_for_families(config)
    for family in families:
        (why,) = default_families()[family].values()
        assert f"{family} ({why})" in reason
    assert reason_for_families(complete_search(config)) == ""


def test_without_a_family_a_warm_start_searches_those_that_were_searched_before() -> None:
    _begin(_requested(["--family", "gru", "lstm", "--name", "earlier"]))
    assert _requested(["--warm-start", "earlier"]).family == ("gru", "lstm")
    assert _requested(["--warm-start", "earlier", "--family", "cnn"]).family == ("cnn",)
    given = parse(SearchConfig, ["--warm-start", "earlier"], "search", "").config
    assert "searching gru (searched by earlier) and lstm (" in reason_for_families(given)
    weights = ["--warm-start", "earlier", "--init-from", "weights"]
    assert _requested(weights).family == ("gru", "lstm", "transfer")
    # none of them reads the features
    assert _requested(["--warm-start", "earlier", "--features", "musicnn"]).family == ("linear",)
    with pytest.raises(RequestError, match=r"results/nothing is no search: search.json is missing"):
        _requested(["--warm-start", "nothing"])


def test_a_feature_of_ones_own_is_taken_by_the_families_for_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_versions", "_current"):
        monkeypatch.setattr(_own, name, {})
    write_encoder(tmp_path)
    assert _requested(["--features", "./my_encoder.py"]).family == ("linear",)


def test_a_family_that_does_not_say_what_for_is_searched_only_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_own", {})
    (tmp_path / "my_family.py").write_text(OWN_FAMILY)
    models.register_family("my_family.py")
    assert _requested([]).family == ("discriminant",)
    assert _requested(["--family", "./my_family.py"]).family == ("my_family",)
    declared = 'DEFAULT_FOR = {"spectrogram": "better still"}\n'
    (tmp_path / "better.py").write_text(OWN_FAMILY + declared)
    models.register_family("better.py")
    assert _requested([]).family == ("better", "discriminant")


def test_each_family_that_is_searched_unasked_reads_what_it_is_searched_for() -> None:
    declared = default_families()
    assert {"linear", "discriminant"} <= declared.keys()
    for family, reasons in declared.items():
        assert reasons.keys() <= {*kinds_read(family), "init_from"}, family


def test_why_it_has_its_families_is_kept_when_a_search_is_resumed() -> None:
    given = parse(SearchConfig, ["--name", "mine"], "search", "").config
    request = read_request(complete_search(given), reason_for_families(given))
    assert request.why_families.startswith("no --family is given: searching discriminant (the most")
    _begin(request.config, request.why_families)
    resumed = parse(SearchConfig, ["--resume", "mine"], "search", "", complete=search_defaults)
    again = read_request(complete_search(resumed.config), reason_for_families(resumed.config))
    assert again.why_families == request.why_families
    assert again.config.family == ("discriminant",)


def test_names_that_a_storage_has_are_taken(tmp_path: Path) -> None:
    for name in ("gru-001", "mine", "datasets"):
        (tmp_path / "storage" / name).mkdir(parents=True)
        (tmp_path / "storage" / name / "file").touch()
    options = ["--family", "gru", "--storage", str(tmp_path / "storage")]
    assert _requested(options).name == "gru-002"
    with pytest.raises(RequestError, match="has mine already: continue it by --resume mine --stor"):
        _requested([*options, "--name", "mine"])


def test_a_search_that_was_renamed_is_resumed_under_its_new_name() -> None:
    folder = _begin(_requested(["--family", "gru", "--name", "first"])).parent
    folder.rename("results/second")
    config = _requested(["--resume", "second"])
    assert (config.name, config.folder) == ("second", Path("results/second"))
    assert load_search("results/second").name == "second"


def test_all_families_leave_out_transfer_where_there_are_no_weights(tmp_path: Path) -> None:
    assert "transfer" not in _requested(["--family", "all"]).family
    assert "transfer" in _requested(["--family", "all", "--init-from", "weights"]).family


def _begin(config: SearchConfig, why_families: str = "") -> Path:
    """Write what an interrupted search leaves; its search.json."""
    config.folder.mkdir(parents=True)
    tracks = config.dataset.tracks
    SearchResult(config.name, config, "command", tracks, {}, why_families=why_families).write()
    return config.folder / "search.json"


def test_an_interrupted_search_is_resumed_with_the_same_settings() -> None:
    options = ["--set", "lr=0.01", "--metric", "macro_f1", "--trials", "7", "--seed", "4"]
    config = _requested(["--family", "gru", "--name", "mine", *options, *DATASET])
    _begin(config)
    assert _requested(["--resume", "mine"]) == config
    assert config.train == {"lr": 0.01}


def test_what_a_resumed_search_may_change_is_changed_and_nothing_else() -> None:
    argv = ["--family", "gru", "--name", "mine", "--trials", "7", "--set", "lr=0.01"]
    _begin(_requested(argv))
    more = ["--trials", "20", "--concurrent", "1", "--memory", "2", "--set", "tuning.keep=3"]
    resumed = _requested(["--resume", "mine", *more])
    assert (resumed.tuning.trials, resumed.tuning.concurrent) == (20, 1)  # 20 is the default
    assert (resumed.memory, resumed.tuning.keep) == (2.0, 3)
    assert resumed.train == {"lr": 0.01}
    same = ["--family", "gru", "--seed", "0", "--set", "lr=0.01", "--metric", "track_accuracy"]
    assert _requested(["--resume", "mine", *same]).tuning.trials == 7


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--seed", "3"], "as it was begun, with seed 0, but 3 is given: leave it out, or"),
        (["--family", "cnn"], "with family 'gru', but 'cnn' is given"),
        (["--metric", "log_loss"], "with metric 'track_accuracy', but 'log_loss' is given"),
        (["--max-epochs", "3"], "with tuning.max_epochs 14, but 3 is given"),
        (["--tracks", "elsewhere"], "with dataset.tracks '', but '.*elsewhere' is given"),
        (["--set", "lr=0.1"], "with lr 0.01, but 0.1 is given"),
        (["--set", "hidden=64"], "with hidden 'searched', but 64 is given"),
        (["--name", "other"], "with name 'mine', but 'other' is given"),
        (["--set", "nonsense=0.1"], "there is no setting 'nonsense'"),
        (["--family", "grru"], "--family must be one of"),
        (["--trials", "0"], "--trials must be a whole number, 1 or more"),
    ],
)
def test_a_search_is_not_resumed_with_other_settings(options: list[str], reason: str) -> None:
    _begin(_requested(["--family", "gru", "--name", "mine", "--set", "lr=0.01"]))
    with pytest.raises(RequestError, match=reason):
        _requested(["--resume", "mine", *options])


def test_a_search_is_resumed_with_the_family_and_the_encoder_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_own", {})
    for name in ("_versions", "_current"):
        monkeypatch.setattr(_own, name, {})
    family, encoder = tmp_path / "my_family.py", write_encoder(tmp_path)
    family.write_text(OWN_FAMILY)
    files = ["--family", "linear", "./my_family.py", "--features", "log_mel", "./my_encoder.py"]
    config = _requested([*files, "--name", "mine"])
    assert config.dataset.features == ("log_mel", "my_encoder")
    paths = {"family_files": (str(family),), "feature_files": (str(encoder),)}
    result = SearchResult("mine", config, "command", "", {}, **paths)  # type: ignore[arg-type]
    (tmp_path / "results/mine").mkdir(parents=True)
    result.write()
    assert _requested(["--resume", "mine", *files]) == config  # as it was before there were copies
    for kind, path in (("families", family), ("features", encoder)):
        write_copies(result.folder, kind, {path.stem: path.read_text()})
    hidden = full_params("my_family", {})["hidden"]
    models._own.clear()
    _own._current.clear()
    family.write_text(OWN_FAMILY.replace(f"setting({hidden}", f"setting({hidden + 1}"))
    encoder.unlink()
    assert _requested(["--resume", "mine"]) == config
    assert full_params("my_family", {})["hidden"] == hidden
    assert own_features()["my_encoder"][0] == str(encoder)
    with pytest.raises(
        RequestError, match=r"with the my_family.py that it began with, but the one"
    ):
        _requested(["--resume", "mine", *files[:3]])


def test_a_resumed_search_may_run_on_another_cluster() -> None:
    argv = ["--family", "gru", "--name", "mine", "--address", "here:1", "--storage", "bucket"]
    _begin(_requested(argv))
    resumed = _requested(["--resume", "mine", "--address", "there:2"])
    assert resumed.cluster.address == "there:2"
    assert resumed.cluster.storage == "bucket"
    elsewhere = _requested(["--resume", "mine", "--storage", "other"])
    assert (elsewhere.cluster.address, elsewhere.cluster.storage) == ("here:1", "other")


def test_a_search_of_another_version_is_refused() -> None:
    path = _begin(_requested(["--family", "gru", "--name", "mine"]))
    content = json.loads(path.read_text())
    content["config"]["learning"] = content["config"].pop("train")
    path.write_text(json.dumps(content))
    with pytest.raises(RequestError, match="written by another version of this program .*learning"):
        _requested(["--resume", "mine"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--protocol", "unlabelled"], "a search needs genres to learn, but --protocol unlabelled"),
        (
            ["--fold", "1/5"],
            "--fold 1/5 is for --protocol cross-validation, but the protocol is",
        ),
        (["--features", "chromo"], r"but it is 'chromo' \(nearest: chroma\)"),
        (["--tracks", "nowhere"], "but nowhere does not exist"),
        (["--warm-start", "nothing"], "results/nothing is no search: search.json is missing"),
        (["--init-from", "weights"], "--init-from MODEL and --family transfer need one another"),
        (["--name", "datasets"], "--name must be one folder name other than datasets and corpora"),
        (["--set", "train.seed=3"], "--set seed=3: use --seed instead"),
        (["--set", "max_epochs=3"], "--set max_epochs=3: use --max-epochs instead"),
        (["--set", "lrr=1"], r"there is no setting 'lrr' \(nearest: lr\)"),
        (["--set", "dropout=2"], "dropout must be a number from 0 to below 1, but it is 2"),
        (["--chunk-seconds", "100"], "must be a number from 1.* to 60.*, but it is 100"),
        (["--refit-folds", "1"], "--refit-folds must be 2 or more"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_is_made(
    options: list[str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=reason):
        search(read_request(_requested(["--family", "gru", *options])))
    assert not list(tmp_path.iterdir())


def test_a_search_that_was_killed_as_it_began_leaves_its_name_free(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.lock").write_text("process 1 on host")
    argv = ["--family", "gru", "--results", str(tmp_path), "--name", "a"]
    assert _requested(argv).name == "a"
    (tmp_path / "a/search.json").write_text("{}")
    with pytest.raises(RequestError, match="exists already"):
        _requested(argv)


def test_the_built_in_corpus_has_smaller_spectrograms_unless_others_are_asked_for() -> None:
    def asked(*options: str) -> SearchConfig:
        return parse(SearchConfig, options, "search", "", complete=search_defaults).config

    assert asked().dataset.features == ("log_mel_small",)
    assert asked().tuning.time_limit == 200.0
    assert asked("--features", "log_mel", "--trials", "3").dataset.features == ("log_mel",)
    assert asked("--trials", "3").tuning.time_limit == 200.0
    assert asked("--tracks", "music").dataset.features == ("log_mel",)
    assert asked("--tracks", "music").tuning.time_limit is None
