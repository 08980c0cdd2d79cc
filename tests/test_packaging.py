"""What others install: the source distribution, the wheel, the image's context; one version."""

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

import mgc_ray
from mgc_ray.corpus.files import write_track
from mgc_ray.ensembling.saved import load_ensemble, shipped_model

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
_OFFLINE = ("--no-deps", "--no-index")


def _run(*args: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, args)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("which files belong to the project is known in a checkout alone")
    names = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return [name for name in names.splitlines() if (ROOT / name).exists()]


def _copy(names: list[str], folder: Path) -> Path:
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return folder


def _wheel(source: Path, folder: Path) -> Path:
    _run(*_PIP, "wheel", *_OFFLINE, "--no-build-isolation", "-w", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Built:
    """The source distribution of this folder, and the wheel that is built from it."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    source = _copy(_tracked(), folder / "source")
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    _run(sys.executable, "-c", code, folder, cwd=source)
    (sdist,) = folder.glob("*.tar.gz")
    return Built(sdist, _wheel(sdist, folder))


def _files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_source_distribution_has_all_files_of_the_project(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    added = {name for name in files if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert files - added == set(_tracked())


def test_the_wheel_has_the_code_and_what_it_reads_and_nothing_else(built: Built) -> None:
    model = {f"mgc_ray/gtzan_model/{name}" for name in _below(shipped_model())}
    read = {
        *("mgc_ray/py.typed", "mgc_ray/data/split/gtzan_fault_filtered.csv"),
        *("mgc_ray/reporting/page.html", "mgc_ray/serving/page.html"),
    }
    code = {name for name in _tracked() if re.match(r"(mgc_ray|search_spaces)/.*\.py$", name)}
    assert _files(built.wheel) >= code | read
    assert model - _files(built.wheel) == {"mgc_ray/gtzan_model/predictions.parquet"}
    others = _files(built.wheel) - code - model
    assert {Path(name).suffix for name in others} <= {".typed", ".csv", ".html", ".js", ".css"}


def _below(folder: Path) -> Iterator[str]:
    return (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_it_runs_in_an_empty_environment(built: Built, tmp_path: Path) -> None:
    """With only the packages that it depends on, which are taken from this environment."""
    environment = tmp_path / "environment"
    _run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    _run(*_PIP, "--python", python, "install", *_OFFLINE, built.wheel, cwd=tmp_path)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(_run(python, "-c", code, cwd=tmp_path).strip())
    # Python follows no .pth in a folder that a .pth adds, so not the one of this checkout
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    where = _run(python, "-c", "import mgc_ray; print(mgc_ray.__file__)", cwd=tmp_path)
    assert where.startswith(str(environment))

    command = environment / "bin" / "mgc-ray"
    assert _run(command, "--version", cwd=tmp_path) == f"{mgc_ray.__version__}\n"
    song = tmp_path / "song.wav"
    write_track(song, "metal", 0, seed=0, seconds=6)
    predicted = _run(command, "predict", "--json", song, cwd=tmp_path)
    expected = load_ensemble(shipped_model()).predict(song)
    (printed,) = json.loads(predicted)
    assert printed["genres"] == pytest.approx(expected)
    assert "usage: mgc-ray search" in _run(command, "search", "--help", cwd=tmp_path)


def test_the_image_gets_what_it_takes_to_install_the_same_package(
    built: Built, tmp_path: Path
) -> None:
    """Docker's context by .dockerignore, and the step that installs the program, without Docker."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert lines[1] == "*"
    taken = [line[1:] for line in lines if line.startswith("!")]
    names = [n for n in _tracked() if any(n == one or n.startswith(f"{one}/") for one in taken)]
    context = _copy(names, tmp_path / "context")
    assert {path.name for path in context.iterdir()} == {one.split("/")[0] for one in taken}
    assert _files(_wheel(context, tmp_path)) == _files(built.wheel)


# --- what the files say ---


def test_every_folder_of_code_is_listed_for_installation() -> None:
    folders = {
        path.parent
        for name in ("mgc_ray", "search_spaces")
        for path in ROOT.glob(f"{name}/**/*.py")
    }
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    code = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(listed) == code | {"mgc_ray.gtzan_model"}


def _normal(requirement: str) -> str:
    """`ray` of `ray[data,tune]==2.60.0`."""
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


def test_all_that_the_code_imports_is_a_dependency() -> None:
    project = PYPROJECT["project"]
    extras = [
        one
        for name, some in project["optional-dependencies"].items()
        for one in some
        if name not in ("dev", "docs", "dist")
    ]
    declared = {_normal(one) for one in (*project["dependencies"], *extras)}
    brought = {  # by the package that decides on the version
        *("fastapi", "starlette", "uvicorn"),  # ray[serve]
        *("huggingface-hub", "markupsafe", "pydantic-core"),  # transformers, jinja2, pydantic
        "mlflow",  # mlflow-skinny, which is not in the lock
    }
    packages = packages_distributions()
    imported = set()
    for path in (*ROOT.glob("mgc_ray/**/*.py"), *ROOT.glob("search_spaces/*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    ours = {"mgc_ray", "search_spaces", *sys.stdlib_module_names}
    unknown = {
        name
        for name in imported - ours
        if not {_normal(one) for one in packages.get(name, [name])} & (declared | brought)
    }
    assert unknown == set()


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements.lock", ("hf", "cluster", "serve", "onnx", "dev")),
        ("requirements-publish.lock", ("docs", "dist")),
    ],
)
def test_a_lock_file_pins_all_that_it_is_for(lock: str, extras: tuple[str, ...]) -> None:
    lines = (ROOT / lock).read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    names = {_normal(name) for name in pinned}
    optional = PYPROJECT["project"]["optional-dependencies"]
    wanted = {_normal(one) for extra in extras for one in optional[extra]} - {"mgc-ray"}
    if lock == "requirements.lock":
        wanted |= {_normal(one) for one in PYPROJECT["project"]["dependencies"]}
        wanted |= {"fastapi", "uvicorn"}
    assert wanted <= names


def test_both_lock_files_have_the_same_versions_of_what_both_have() -> None:
    def pinned(name: str) -> set[str]:
        lines = (ROOT / name).read_text("utf-8").lower().splitlines()
        return {line for line in lines if not line.startswith("#")}

    main, publish = pinned("requirements.lock"), pinned("requirements-publish.lock")
    names = {line.split("==")[0] for line in main}
    assert {line for line in publish - main if line.split("==")[0] in names} == set()


def test_all_files_give_one_version() -> None:
    version = mgc_ray.__version__
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert first
    assert first[1] == version
    for path in (ROOT / "cluster").iterdir():
        if path.is_file():
            assert set(re.findall(r"/mgc_ray:([\d.]+\d)", path.read_text("utf-8"))) <= {version}


def test_the_citation_has_what_the_format_requires() -> None:
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(content)
    assert content["license"] == PYPROJECT["project"]["license"]


def test_make_alone_lists_its_targets_and_does_nothing() -> None:
    listed = re.findall(r"^make ([\w-]+) ", _run("make", cwd=ROOT), re.M)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.M)
    assert set(listed) == set(phony.split()) - {"help"}


@pytest.mark.parametrize("folder", [".venv-publish", ".venv", "site", "dist", "build"])
def test_what_is_built_is_ignored(folder: str) -> None:
    lines = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert any(fnmatch(folder, line.strip("/")) for line in lines)
