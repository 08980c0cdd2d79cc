"""Files that are never seen half-written: written under another name, then renamed.

What is written this way is on the disk when it is renamed, and stays through a loss of power. And
whether a place can be written at all, which is found out before any work.
"""

import csv
import ctypes
import errno
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from mgc_ray import RequestError
from mgc_ray.data.names import to_cell
from mgc_ray.data.untrusted import parse_json, read_text
from mgc_ray.settings import Params, validated

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")


class MissingFileError(RequestError):
    """A dataset or model needs a file of somebody's own, which was not given."""


LOCK = ".lock"
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux's renameat2
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)  # file systems that know no such thing


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` if the block succeeds."""
    temporary = partial_path(path)
    create_new(temporary)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def create_new(path: Path) -> None:
    """Make an empty file in place of whatever is there: a link that somebody has put there, e.g."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    if os.name == "nt":  # syncs only what is open for writing
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(file)


def replace_folder(new: Path, folder: Path) -> None:
    """Put the folder `new` in the place of `folder`, which holds the old or the new at any time."""
    for path in (*new.rglob("*"), new):
        sync(path)
    if folder.exists() and not _exchanged(new, folder):
        old = partial_path(folder.with_name(f"{folder.name}.old"))
        os.rename(folder, old)
        os.rename(new, folder)
        os.rename(old, new)
    elif not folder.exists():
        os.rename(new, folder)
    sync(folder.parent)
    delete(new)


def _exchanged(a: Path, b: Path) -> bool:
    """Exchange two folders at once, where the system can (Linux, on most file systems)."""
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    names = os.fsencode(a), os.fsencode(b)
    return hasattr(library, "renameat2") and not library.renameat2(
        _HERE, names[0], _HERE, names[1], _EXCHANGE
    )


def delete(path: Path) -> None:
    """Delete a file or folder, if it is there; a folder is there whole, or not at all."""
    if path.is_dir() and not path.is_symlink():
        gone = path if path.name.endswith(".tmp") else partial_path(path)
        with suppress(FileNotFoundError):
            os.replace(path, gone)
        shutil.rmtree(gone, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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

    The lock ends with the process, however that ends; the file `.lock` stays, unless the holder
    deletes the folder, which is made again for the next one. Windows has no such lock.
    """
    while True:
        folder.mkdir(exist_ok=True)
        with open(folder / LOCK, "a+", encoding="utf-8") as file:
            if fcntl:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.seek(0)
                    in_use(file.read().strip() or "another process")
                    fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file.fileno(), folder / LOCK):
                continue
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
            return


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def user_id() -> int:
    """Of the user whose process this is, as `st_uid` has it of files; 0 on Windows, for all."""
    return os.getuid() if hasattr(os, "getuid") else 0


# ---- places to write ----

_CANNOT_WRITE = {  # by the system's error; {} is the folder or file that was tried
    errno.EACCES: "no permission to write to {}: change its permissions, or give another place",
    errno.EPERM: "no permission to write to {}: change its permissions, or give another place",
    errno.EROFS: "{} is on a read-only file system: give a place on another one",
    errno.ENOSPC: "the disk of {} is full: free some space, or give a place on another disk",
    errno.EDQUOT: "your quota on the disk of {} is used up: free some space, or give another place",
    errno.ENAMETOOLONG: "a name in it is too long: give a shorter one",
}


def check_output_folder(option: str, folder: Path) -> None:
    """Raise RequestError where nothing can be written into a folder, which need not exist yet.

    A file is written and deleted in the nearest folder that exists, as permissions do not tell of
    full disks and read-only file systems. `option`: what gave the folder.
    """
    place = nearest_that_exists(folder)
    try:
        if not place.is_dir():
            kind = "a file" if place.exists() else "a link to nothing"
            raise RequestError(f"{option} must be a folder, but {place} is {kind}: give another")
        longest = os.pathconf(place, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
        if any(len(os.fsencode(name)) > longest for name in folder.relative_to(place).parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        try_to_write(place / "writable")
    except OSError as error:
        raise _cannot_write(option, folder, place, error) from None


def check_output_file(option: str, path: Path, *endings: str) -> None:
    """Raise RequestError where a file cannot be written, or has none of the `endings`.

    Its folder must exist. What the file holds already is not changed.
    """
    if endings and path.suffix.lower() not in endings:
        raise RequestError(
            f"{option} must end in {' or '.join(endings)}, but it is {path}: give such a file"
        )
    rule = f"{option} {path} must be a file in a folder that exists"
    place = path.absolute().parent
    try:
        if not place.is_dir():
            wrong = "is a file: give" if place.exists() else "does not exist: make it, or give"
            raise RequestError(f"{rule}, but {path.parent} {wrong} another")
        if path.exists() and not path.is_file():
            kind = "a folder: give a file in it" if path.is_dir() else "a device: give another"
            raise RequestError(f"{rule}, but it is {kind}")
        try_to_write(path)
        if path.exists():
            place = path
            os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        raise _cannot_write(option, path, place, error) from None


def nearest_that_exists(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def try_to_write(path: Path) -> None:
    """Write a temporary file beside `path`; OSError where that is not possible."""
    create_new(partial_path(path))
    with partial_path(path).open("wb") as file:
        try:
            file.write(bytes(4096))
        finally:
            os.unlink(file.name)


def _cannot_write(option: str, path: Path, place: Path, error: OSError) -> RequestError:
    known = _CANNOT_WRITE.get(error.errno or 0, f"{error.strerror}: give another place")
    return RequestError(f"{option} {path} cannot be written: {known.format(place)}")


# ---- formats ----


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, keys in the order given."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path, what: str, remedy: str) -> Params:
    """Read a JSON object, or raise RequestError: the folder is no `what`, and the remedy."""
    try:
        content = parse_json(read_text(path))
    except FileNotFoundError:
        raise RequestError(
            f"{path.parent} is no {what}: {path.name} is missing; {remedy}"
        ) from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{path.parent} is no {what}: {path.name}: {error}; {remedy}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{path.parent} is no {what}: {path.name} holds no object; {remedy}")
    return content


def read_typed(cls: type[T], path: Path, what: str, remedy: str) -> T:
    """A typed record from its JSON file; RequestError for one that is missing or damaged."""
    content = read_json(path, what, remedy)
    try:
        return validated(cls, content)
    except MissingFileError as error:
        raise MissingFileError(f"{path.parent}: {error}") from None
    except RequestError as error:
        raise RequestError(
            f"{path} is damaged, or it was written by another version of this program ({error}): "
            f"{remedy}"
        ) from None


def is_damaged(path: Path) -> bool:
    """Whether a file is there that holds no JSON object, as after a loss of power."""
    try:
        read_json(path, "file", "")
    except RequestError:
        return path.exists()
    return False


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV with a header line."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(map(to_cell, header))
        writer.writerows([*map(to_cell, row)] for row in rows)
