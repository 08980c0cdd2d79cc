"""The library's functions have real signatures: for an editor, for help() and for mypy."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mgc_ray
from mgc_ray.config import CompareConfig, EvaluateConfig, SearchConfig, SimilarConfig
from mgc_ray.settings import options

RIGHT = """
from pathlib import Path

import mgc_ray
from mgc_ray import DatasetConfig, TuneConfig

result = mgc_ray.run_search(
    family=("gru",),
    dataset=DatasetConfig(tracks="music", protocol="given"),
    tuning=TuneConfig(trials=3, time_limit=60.0),
    metric="macro_f1",
)
accuracy: float = mgc_ray.evaluate(tracks="t.csv", split="test").metrics.track_accuracy
rank: int = mgc_ray.similar(song="a.mp3", table=Path("t.parquet"), count=3).songs[0].rank
rows = mgc_ray.compare(searches=(Path("a"), Path("b")), out=Path("c")).rows
if result.test:
    accuracy = result.test.track_accuracy
if best := mgc_ray.load_search("results/gru-001").best:
    epochs: int = best.epochs
genres: dict[str, float] = mgc_ray.load_ensemble(result.folder / "ensemble").predict("song.mp3")
"""
WRONG = {  # line -> code of the error
    'mgc_ray.run_search(famly=("gru",))': "call-arg",
    "mgc_ray.run_search(family=3)": "arg-type",
    'mgc_ray.run_search(metric="accuracy")': "arg-type",
    'TuneConfig(trials="many")': "arg-type",
    'DatasetConfig(protocol="groupd")': "arg-type",
    'mgc_ray.evaluate(tracks="t.csv", split="tests")': "arg-type",
    'mgc_ray.compare(searches="a")': "arg-type",
    'mgc_ray.similar(song="a.mp3", table=Path("t"), count="3")': "arg-type",
    "mgc_ray.load_search(3)": "arg-type",
    "result.tset": "attr-defined",
}


@pytest.mark.parametrize(
    ("function", "config"),
    [
        (mgc_ray.run_search, SearchConfig),
        (mgc_ray.evaluate, EvaluateConfig),
        (mgc_ray.compare, CompareConfig),
        (mgc_ray.similar, SimilarConfig),
    ],
)
def test_a_function_takes_the_settings_of_its_command(function: object, config: type) -> None:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    assert list(parameters) == [option.name for option in options(config)]
    for option in options(config):
        parameter = parameters[option.name]
        assert parameter.kind == parameter.KEYWORD_ONLY
        required = option.default is ...
        assert parameter.default == (parameter.empty if required else option.default)
    assert function.__doc__


def test_load_search_takes_a_folder() -> None:
    assert list(inspect.signature(mgc_ray.load_search).parameters) == ["folder"]


@pytest.mark.slow  # mypy reads the whole package first
def test_mypy_accepts_right_arguments_and_refuses_wrong_ones(tmp_path: Path) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(RIGHT + "\n".join(WRONG) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "--strict", str(path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    first = len(RIGHT.splitlines()) + 1
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    found = {int(line.split(":")[1]): line.rpartition("[")[2].rstrip("]") for line in errors}
    assert found == dict(enumerate(WRONG.values(), start=first)), done.stdout
