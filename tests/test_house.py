"""The order of the package: imports go one way, and what only one module may know."""

import ast
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from mgc_ray import results
from mgc_ray.terminal.main import commands

PACKAGE = Path(__file__).parents[1] / "mgc_ray"
MODULES = sorted(PACKAGE.rglob("*.py"))

_BASE = {"config", "results", "settings", "task"}
_MODELS = {*_BASE, "data", "models"}
_TRAINED = {*_MODELS, "training", "evaluation", "ensembling"}
# a module or folder of the package -> those that it may import from; a command may from all
ALLOWED = {
    "settings": set(),
    "config": {"settings"},
    "results": {"config", "settings", "data.files", "data.untrusted", "task"},
    "task": {"config", "results", "evaluation.metrics", "evaluation.intervals"},
    "data": {"config", "settings"},
    "evaluation": {*_BASE, "data"},
    "models": {*_BASE, "data"},
    "training": {*_BASE, "data", "models"},
    "ensembling": _TRAINED,
    "tuning": {*_TRAINED, "terminal"},
    "terminal": _MODELS,
    "corpus": {"settings", "data"},
    "reporting": {*_TRAINED, "tuning", "terminal"},
    "serving": {*_TRAINED, "tuning", "terminal"},
    "pipeline": {*_TRAINED, "tuning", "terminal", "corpus", "reporting"},
}
KNOW_RAY = {"tuning", "serving"}
KNOW_OPTUNA = {"tuning", "reporting"}  # a report reads a search's journal
# which may read JSON, Parquet, CSV or NumPy files: each has formats of its own
READ_FILES = {
    "results.py",  # all that a search leaves, see its first lines
    "corpus/files.py",  # corpus.json
    "data/tables/csv_text.py",  # track tables
    "data/dataset.py",  # dataset.json, tracks.parquet, shards
    "data/features/array.py",  # spectrograms as .npy
    "data/files.py",
    "data/untrusted.py",  # what all formats have in common
    "data/hugging_face.py",  # config.json of others
    "data/split/gtzan.py",  # the published lists
    "data/tables/file.py",  # track tables, as Parquet
    "ensembling/refit.py",  # refit.json, held.npz
    "evaluation/runs.py",  # comparison.parquet
    "pipeline/library.py",  # the parts of a table that is not finished
    "pipeline/library_table.py",  # predictions for a library
    "terminal/options.py",  # --config
    "training/checkpoint.py",
    "training/initial.py",  # checkpoints
    "training/state.py",
    "tuning/searcher.py",  # the lines of Optuna's journal
    "tuning/tensorboard.py",  # what tuning/trial.py wrote
}
_READERS = {
    *("read_json", "loads", "load", "read_table", "ParquetFile", "read_schema"),
    *("DictReader", "reader", "read_csv", "read_parquet"),
}
_READING_LIBRARIES = {"", "json", "pq", "csv", "np", "pd", "tomllib"}


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _module(path: Path) -> str:
    """`mgc_ray.data.audio` of mgc_ray/data/audio.py."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


def _part(path: Path) -> str:
    """`data` of mgc_ray/data/audio.py, `search` of mgc_ray/search.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    """Full names of all that is imported, at any depth of the code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_go_one_way(path: Path) -> None:
    part = _part(path)
    if part not in ALLOWED:
        assert part in {*commands(), "__init__", "__main__"}
        return
    names = {name.removeprefix("mgc_ray.") for name in _imports(_tree(path)) if "mgc_ray." in name}
    ours = {name for name in names if name.split(".")[0] in {*ALLOWED, *commands()}}
    allowed = {part, *ALLOWED[part]}
    wrong = {n for n in ours if not any(n == one or n.startswith(f"{one}.") for one in allowed)}
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_all_is_printed_by_the_terminal_which_knows_what_names_may_hold(path: Path) -> None:
    if _part(path) != "terminal":
        calls = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
        assert "print" not in {one.func.id for one in calls if isinstance(one.func, ast.Name)}


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Where a module imports another as soon as it is imported itself."""
    modules = {_module(path): path for path in MODULES}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        top_level = [n for n in _tree(path).body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = set(_imports(ast.Module(top_level, [])))
        used = {n if n in modules else n.rpartition(".")[0] for n in names} & set(modules)
        graph[module] = used - {module, "mgc_ray"}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize(("library", "known_to"), [("ray", KNOW_RAY), ("optuna", KNOW_OPTUNA)])
def test_a_library_is_imported_only_where_it_belongs(library: str, known_to: set[str]) -> None:
    users = {
        _part(path)
        for path in MODULES
        if any(name.split(".")[0] == library for name in _imports(_tree(path)))
    }
    assert users <= known_to


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "predict",
        "evaluate",
        "synth",
        "ensemble",
        "pretrain",
        "compare",
        "report",
        "export",
        "similar",
    ],
)
def test_a_command_that_needs_no_cluster_does_not_import_ray(name: str) -> None:
    """Not even by what it imports when it runs; see also test_commands.py."""
    modules = {_module(path): path for path in MODULES}
    reached, waiting = set(), [f"mgc_ray.{name}"]
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        for imported in _imports(_tree(modules[module])):
            found = imported if imported in modules else imported.rpartition(".")[0]
            if found in modules and not _only_for_a_library(module, found):
                waiting.append(found)
    knows = {
        module
        for module in reached
        if any(n.split(".")[0] == "ray" for n in _imports(_tree(modules[module])))
    }
    assert not knows


def _only_for_a_library(module: str, imported: str) -> bool:
    """predict --out DIR is run on a cluster; the package's own functions are imported when used."""
    return module == "mgc_ray" or imported == "mgc_ray.pipeline.library"


def test_the_corpus_is_imported_only_where_music_is_generated() -> None:
    users = {
        _name(path)
        for path in MODULES
        if _part(path) != "corpus"
        and any(name.startswith("mgc_ray.corpus") for name in _imports(_tree(path)))
    }
    assert users == {
        "synth.py",
        "pipeline/export.py",  # songs to check on
        "pipeline/preprocess.py",  # synthetic tracks
        "pipeline/search.py",  # the built-in corpus
        "pipeline/tables.py",  # whether synthetic tracks can be generated
    }


def test_no_module_changes_the_environment_when_it_is_imported() -> None:
    """Ray reads variables when it is imported; commands set them, by terminal/process.py."""
    modules = [_module(path) for path in MODULES if path.stem != "__main__"]
    code = (
        "import importlib, json, os, sys\n"
        "import ray\n"  # which sets one itself
        "before = dict(os.environ)\n"
        "for module in sys.argv[1:]: importlib.import_module(module)\n"
        "print(json.dumps(sorted(set(os.environ.items()) ^ set(before.items()))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True
    )
    ours = [name for name, _ in json.loads(done.stdout) if name.startswith(("RAY", "TUNE"))]
    assert ours == []


# ---- files ----


def test_only_results_py_names_the_files_of_a_search() -> None:
    files = {
        *(results.SEARCH, results.CONFIG, results.TRIAL, results.ENSEMBLE_JSON),
        *(results.LEADERBOARD, results.JOURNAL, results.PREDICTIONS),
    }
    users = {
        _name(path)
        for path in MODULES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Constant) and node.value in files
    }
    assert users == {"results.py"}


def test_only_results_py_uses_the_keys_of_its_files() -> None:
    typed = (
        *(results.SearchResult, results.TrialRecord, results.TrialResources, results.Metrics),
        *(results.EnsembleInfo, results.Member, results.ModelResult),
    )
    keys = {field.name for one in typed for field in dataclasses.fields(one)}
    # whose files and dicts have keys that happen to be called the same
    own_formats = READ_FILES | {_name(path) for path in MODULES if _part(path) == "tuning"}
    found = {
        (_name(path), key)
        for path in MODULES
        if _name(path) not in own_formats
        for key in _keys(_tree(path))
        if key in keys
    }
    assert found == {
        ("ensembling/onnx.py", "chunks"),  # of the metadata of an ONNX file
        ("pipeline/request.py", "dataset"),  # of what was given on a command line
        ("pipeline/request.py", "tracks"),
        ("reporting/history.py", "trial"),  # of Optuna's journal
        ("reporting/parallel.py", "trial"),
        ("serving/metrics.py", "status"),  # of an ASGI message
    }


def _keys(tree: ast.AST) -> Iterator[str]:
    """Quoted keys that are looked up: `content["key"]`, `content.get("key")`."""
    for node in ast.walk(tree):
        key = None
        if isinstance(node, ast.Subscript):
            key = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            key = node.args[0] if node.func.attr in ("get", "pop") and node.args else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


def test_each_module_that_reads_files_has_formats_of_its_own() -> None:
    readers = set()
    for path in MODULES:
        for node in ast.walk(_tree(path)):
            if not isinstance(node, ast.Call):
                continue
            library, _, function = ast.unparse(node.func).rpartition(".")
            if function in _READERS and library in _READING_LIBRARIES:
                readers.add(_name(path))
    assert readers <= READ_FILES


# ---- folders ----


def test_every_folder_has_its_rule_and_every_family_has_its_space() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == {name for name in ALLOWED if (PACKAGE / name).is_dir()}
    models = {path.stem for path in (PACKAGE / "models").glob("[a-z]*.py")}
    spaces = {path.stem for path in (PACKAGE.parent / "search_spaces").glob("[a-z]*.py")}
    assert spaces == models | {"common"}
