"""The model that comes with the program: small, explained, and used where none is named."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import soundfile

from mgc_ray.data.array_recipe import GTZAN_ARRAYS
from mgc_ray.data.spectrogram import Precomputed
from mgc_ray.data.synth import GENRES, synthesise
from mgc_ray.ensembling.artefact import load_ensemble, shipped_model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    soundfile.write(path, synthesise("classical", 3, 0, 12.0), 22050)
    return path


def test_it_has_at_most_8_mb_and_says_what_it_was_trained_on() -> None:
    folder = shipped_model()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 8e6
    content = json.loads((folder / "ensemble.json").read_text())
    assert tuple(content["genres"]) == GENRES
    sources = {one["source"] for one in content["trained_on"]}
    assert any("log_mel.csv" in source for source in sources)
    text = "".join(path.read_text() for path in folder.rglob("*.json"))
    assert str(Path.home()) not in text
    assert '": "/' not in text  # no path of the machine it was made on


def test_it_takes_audio_through_the_arrays_it_was_trained_on() -> None:
    features = load_ensemble(shipped_model()).features
    assert features == Precomputed(128, 387, "uint8", GTZAN_ARRAYS)


def _predict(*args: object, **options: object) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "mgc_ray.predict", "--json", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
        **options,  # type: ignore[call-overload]
    )
    answer = json.loads(done.stdout)
    assert sum(answer[0]["genres"].values()) == pytest.approx(1)
    return dict(answer[0]["genres"])


def test_predict_uses_it_where_no_model_is_named(song: Path, tmp_path: Path) -> None:
    assert _predict(song, cwd=tmp_path) == _predict("--model", shipped_model(), song)


def test_an_installed_wheel_has_it_and_all_packages(song: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("mgc_ray", "search_spaces", "results/gtzan"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--target", tmp_path / "site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *map(str, options), str(source)],
        check=True,
        timeout=200,
    )
    shutil.rmtree(source)
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    where = subprocess.run(
        [sys.executable, "-c", "import mgc_ray, search_spaces; print(mgc_ray.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=empty,
        env=environment,
    ).stdout
    assert where.startswith(str(tmp_path))
    assert _predict(song, cwd=empty, env=environment) == _predict(song)


def test_the_wheel_is_told_of_every_folder_of_code() -> None:
    folders = {
        path.parent
        for name in ("mgc_ray", "search_spaces")
        for path in ROOT.glob(f"{name}/**/*.py")
    }
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    code = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(named) == code | {"mgc_ray.gtzan_model"}
