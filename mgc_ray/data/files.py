"""Files that are never seen half-written: written under another name, then renamed."""

import csv
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgc_ray import RequestError
from mgc_ray.settings import Params

LOCK = ".lock"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` if the block succeeds."""
    temporary = partial_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Where this process writes what will be renamed to `path`; see `delete_partial_files`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def delete_partial_files(folder: Path) -> None:
    """Delete what killed processes left half written anywhere in FOLDER, which nobody else uses."""
    for path in list(folder.rglob(".*.tmp")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def exclusive_lock(folder: Path, in_use: Callable[[str], None]) -> Iterator[None]:
    """Hold FOLDER's lock; where another process holds it, call `in_use(holder)`, then wait.

    The lock ends with the process, however that ends; the file `.lock` stays.
    """
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            in_use(file.read().strip() or "another process")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, keys in the order given."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path, what: str, remedy: str) -> Params:
    """Read a JSON object, or raise RequestError: the folder is no `what`, and the remedy."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RequestError(
            f"{path.parent} is no {what}: {path.name} is missing; {remedy}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path.parent} is no {what}: {path.name}: {error}; {remedy}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{path.parent} is no {what}: {path.name} holds no object; {remedy}")
    return content


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV with a header line."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
