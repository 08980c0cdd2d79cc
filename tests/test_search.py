"""What a search is asked for on the command line, and what it refuses before any work."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.request import DatasetRequest
from mgc_ray.jobs.request import SearchRequest
from mgc_ray.jobs.search import search
from mgc_ray.search import parse_request

DATASET = [
    *("--tracks", "music.csv", "--protocol", "cross-validation", "--fold", "2/5"),
    *("--split-seed", "3", "--features", "log_mel", "chroma", "--chunk-seconds", "5"),
    *("--synthetic", "7"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_the_dataset_is_to_be_is_asked_for_as_of_preprocess() -> None:
    request, _, _ = parse_request(["--family", "gru", *DATASET])
    assert request.dataset == DatasetRequest(
        "music.csv",
        "cross-validation",
        split_seed=3,
        fold="2/5",
        features=("log_mel", "chroma"),
        chunk_seconds=5.0,
        synthetic=7,
    )
    request, _, _ = parse_request(
        ["--family", "gru", "--chunks-per-track", "1", "--array-recipe", "gtzan"]
    )
    assert request.dataset == DatasetRequest("", chunks_per_track=1, array_recipe="gtzan")


def written(request: SearchRequest) -> Path:
    request.folder.mkdir(parents=True)
    path = request.folder / "search.json"
    path.write_text(json.dumps({"finished": False, "request": asdict(request)}))
    return path


def test_an_interrupted_search_goes_on_with_the_same_request() -> None:
    request, _, _ = parse_request(["--family", "gru", "--name", "mine", *DATASET])
    written(request)
    assert parse_request(["--resume", "mine"])[0] == request


def test_a_search_of_another_version_is_refused() -> None:
    path = written(parse_request(["--family", "gru", "--name", "mine"])[0])
    content = json.loads(path.read_text())
    content["request"]["tracks"] = content["request"].pop("dataset")["tracks"]
    path.write_text(json.dumps(content))
    with pytest.raises(RequestError, match="written by another version of this program .*dataset"):
        parse_request(["--resume", "mine"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--protocol", "unlabelled"], "a search needs genres to learn, but --protocol unlabelled"),
        (["--fold", "1/5"], "--fold 1/5 names a part of --protocol cross-validation"),
        (["--chunk-seconds", "100"], "must last 1 to 60 s, but 100 s is asked for"),
        (["--tracks", "nowhere"], "but nowhere does not exist"),
    ],
)
def test_a_dataset_that_cannot_be_is_refused_before_anything_is_made(
    options: list[str], told: str, tmp_path: Path
) -> None:
    request, _, _ = parse_request(["--family", "gru", *options])
    with pytest.raises(RequestError, match=told):
        search(request)
    assert not list(tmp_path.iterdir())


def test_a_search_that_was_killed_as_it_began_leaves_its_name_free(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.lock").write_text("process 1 on host")
    argv = ["--family", "gru", "--results", str(tmp_path), "--name", "a"]
    assert parse_request(argv)[0].name == "a"
    (tmp_path / "a/search.json").write_text("{}")
    with pytest.raises(RequestError, match="exists already"):
        parse_request(argv)
