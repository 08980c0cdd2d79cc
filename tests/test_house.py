"""The house keeps its order: imports go one way, and only the rooms that should know Ray do."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mgc_ray"
# room -> rooms that it may import from; a command may import from all
ALLOWED = {
    "terminal": set(),
    "data": {"terminal"},  # options.py: what a command line says of a dataset
    "models": {"data"},
    "training": {"data", "models"},
    "ensembling": {"data", "models", "training"},
    "tuning": {"data", "models", "training", "ensembling", "terminal"},
    "reporting": {"data", "models", "training", "ensembling", "tuning", "terminal"},
    "serving": {"data", "ensembling", "tuning"},
    "jobs": {"data", "models", "training", "ensembling", "tuning", "reporting", "terminal"},
}
KNOW_RAY = {"tuning", "serving"}
KNOW_OPTUNA = {"tuning"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _room(path: Path) -> str:
    """`data` for mgc_ray/data/audio.py, `search.py` for mgc_ray/search.py."""
    return path.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = _room(path)
    if room not in ALLOWED:  # a command
        return
    parts = [name.split(".") for name in _imports(path) if name.startswith("mgc_ray.")]
    commands = {file.stem for file in PACKAGE.glob("*.py")}
    for used in (part[1] for part in parts):
        assert used in ALLOWED[room] | {room} or used not in ALLOWED.keys() | commands


@pytest.mark.parametrize(("library", "known_to"), [("ray", KNOW_RAY), ("optuna", KNOW_OPTUNA)])
def test_only_the_rooms_that_should_know_a_library_do(library: str, known_to: set[str]) -> None:
    users = {
        _room(path)
        for path in MODULES
        if any(name.split(".")[0] == library for name in _imports(path))
    }
    assert users <= known_to


def test_every_folder_is_a_room_and_every_family_has_its_space() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(ALLOWED)
    models = {path.stem for path in (PACKAGE / "models").glob("[a-z]*.py")}
    spaces = {path.stem for path in (PACKAGE.parent / "search_spaces").glob("[a-z]*.py")}
    assert spaces == models | {"common"}
