"""Python files of one's own: a family or a feature in a file outside of this package.

Such a file is executed from its text, which goes to each process that needs it: other machines need
no file, and the file may change while a search runs. It is executed only where the user gives it;
the copies that a search and its ensemble keep (`code/`) are there to be given again.
"""

import ast
import hashlib
import sys
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.data.files import atomic_write

CODE = "code"  # folder of copies, with one folder per kind in it
FAMILIES, FEATURES = "families", "features"


def read_source(path: Path, option: str) -> str:
    """The text of a file; RequestError for one that cannot be read, or is no Python."""
    try:
        source = path.read_text("utf-8")
        ast.parse(source)
    except (OSError, ValueError, SyntaxError) as error:
        raise RequestError(f"{option} {path} cannot be read as Python: {error}") from None
    return source


def is_path(given: str) -> bool:
    """Whether an option that takes names is given a path."""
    return given.endswith(".py") or "/" in given


def execute(
    name: str, path: str, source: str, parts: Sequence[str], contract: str
) -> types.ModuleType:
    """The module of this source, called `name`; it must have the `parts` of its `contract`."""
    module = types.ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module  # so that it can be pickled within this process
    with own_code(path):
        exec(compile(source, path, "exec"), module.__dict__)
    for part in parts:
        if not hasattr(module, part):
            raise RequestError(f"{path} must have a class {part}: see {contract}")
    return module


@contextmanager
def own_code(path: str, *meant: type[Exception]) -> Iterator[None]:
    """Turn what goes wrong in a user's file into one line with its place, unless it is `meant`."""
    try:
        yield
    except Exception as error:  # whatever its author wrote
        if isinstance(error, (RequestError, *meant)):
            raise
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        place = f", line {lines[-1]}" if lines else ""
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise RequestError(
            f"{path} cannot be used: {type(error).__name__}: {reason}{place}"
        ) from None


def content_hash(source: str) -> str:
    """Sixteen digits that change with the file."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def write_copies(folder: Path, kind: str, sources: Mapping[str, str]) -> None:
    """Write the files NAME.py of a kind (FAMILIES, FEATURES) into FOLDER/code."""
    for name, source in sources.items():
        place = folder / CODE / kind / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(place) as temporary:
            temporary.write_text(source, "utf-8")


def source_of(folder: Path, kind: str, path: str, option: str) -> str:
    """The source of a search's file: as it was when the search began, where there is a copy."""
    copy = folder / CODE / kind / Path(path).name
    return read_source(copy if copy.exists() else Path(path), option)
