"""Where the nodes of a cluster exchange files that they do not see on a path they share.

A bucket (`s3://bucket/prefix`, `gs://...`) or a folder, through pyarrow's file systems. Keys are
relative paths with `/`. A file is there whole or not at all: buckets write objects so, and in a
folder it is written under another name, then renamed.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from mgc_ray import RequestError
from mgc_ray.data.files import written_whole

_THREADS = 8  # a transfer waits for the network most of the time


class Storage:
    """A bucket or folder, by its URI or path. Sent to another process, it connects anew there.

    So it holds no key to the bucket: each node finds its own in its environment or role, and a URI
    with one in it is refused, as it would stand in files and logs. Raises RequestError where there
    is nothing of that name to write into.
    """

    def __init__(self, uri: str, check: bool = True) -> None:
        self.uri = uri if "://" in uri else os.path.abspath(uri)
        if urlsplit(self.uri).username:
            raise RequestError(
                "--storage must not hold an access key, as its name stands in results and logs: "
                "give it by the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a role"
            )
        try:
            self._fs, self._root = fs.FileSystem.from_uri(self.uri)
            if isinstance(self._fs, fs.LocalFileSystem):
                self._fs.create_dir(self._root)
            if check:  # now, and not after an hour of preprocessing
                with self._fs.open_output_stream(self._path(".writable")) as stream:
                    stream.write(b"yes")
                self._fs.delete_file(self._path(".writable"))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise RequestError(
                f"--storage {self.uri} cannot be used ({str(error).splitlines()[0]}): name a "
                "folder, or a bucket that this machine may read and write, e.g. s3://bucket/prefix"
            ) from None

    def __reduce__(self) -> tuple[type["Storage"], tuple[str, bool]]:
        return Storage, (self.uri, False)

    def put(self, path: Path, key: str) -> None:
        """Send a file, or a folder with all in it, hidden files left out."""
        sent = _files(path)
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._put_file, sent, [_join(key, one, path) for one in sent]))

    def get(self, key: str, path: Path) -> bool:
        """Fetch a file or folder to `path`, over what is there; False where the key has nothing."""
        found = self.files(key)
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._get_file, found, [path / one[len(key) + 1 :] for one in found]))
        return bool(found)

    def files(self, key: str) -> list[str]:
        """The keys of the file `key`, or of all files under it, sorted."""
        info = self._fs.get_file_info(self._path(key))
        if info.type == fs.FileType.File:
            return [key]
        selector = fs.FileSelector(self._path(key), allow_not_found=True, recursive=True)
        start = len(self._path("")) if self._root else 0
        keys = (
            one.path[start:].lstrip("/")
            for one in self._fs.get_file_info(selector)
            if one.type == fs.FileType.File
        )
        return sorted(one for one in keys if not one.rsplit("/", 1)[-1].startswith("."))

    def exists(self, key: str) -> bool:
        """Whether the file `key` is there."""
        found: bool = self._fs.get_file_info(self._path(key)).type == fs.FileType.File
        return found

    def delete(self, key: str) -> None:
        """Delete the file `key`, or all files under it."""
        for one in self.files(key):
            self._fs.delete_file(self._path(one))

    def _put_file(self, path: Path, key: str) -> None:
        place = self._path(key)
        if isinstance(self._fs, fs.LocalFileSystem):
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            with written_whole(Path(place)) as temporary:
                shutil.copyfile(path, temporary)
        else:
            with path.open("rb") as source, self._fs.open_output_stream(place) as target:
                shutil.copyfileobj(source, target, 1 << 20)

    def _get_file(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            written_whole(path) as temporary,
            self._fs.open_input_stream(self._path(key)) as source,
            temporary.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/") if key else self._root


class Exchange:
    """A folder that several nodes work in: one that all see, or a copy on each and a storage.

    `folder` is where files are on this node. `send` and `fetch` bring a file or folder in it, named
    relative to it, to the storage and from there; where all nodes share the folder they do nothing.
    """

    def __init__(self, folder: Path, storage: Storage | None, key: str = "") -> None:
        self.folder = folder.resolve()
        self.storage = storage
        self.key = key

    def elsewhere(self) -> "Exchange":
        """The same for a task, which may run on any node: with a folder of that node."""
        if self.storage is None:
            return Exchange(self.folder, None)
        name = hashlib.sha256(f"{self.storage.uri} {self.key}".encode()).hexdigest()[:16]
        return Exchange(scratch() / name, self.storage, self.key)

    def inner(self, name: str) -> "Exchange":
        """A folder in it."""
        return Exchange(self.folder / name, self.storage, f"{self.key}/{name}")

    def send(self, name: str) -> None:
        """Bring what lies here to the storage, over what is there."""
        if self.storage and (self.folder / name).exists():
            self.storage.put(self.folder / name, f"{self.key}/{name}")

    def lacking(self, names: Sequence[str]) -> list[str]:
        """Which of these files the storage does not have; none where all share the folder."""
        if self.storage is None:
            return []
        there = set(self.storage.files(self.key))
        return [name for name in names if f"{self.key}/{name}" not in there]

    def fetch(self, name: str) -> None:
        """Bring what the storage has here, over what is here; nothing where it has nothing."""
        if self.storage:
            self.storage.get(f"{self.key}/{name}", self.folder / name)

    def delete(self, name: str) -> None:
        """Delete it here and in the storage."""
        _delete(self.folder / name)
        if self.storage:
            self.storage.delete(f"{self.key}/{name}")

    def clear(self, name: str) -> None:
        """Delete a task's copy of what it has sent; never what others see."""
        if self.storage:
            _delete(self.folder / name)


_copies: dict[str, str] = {}


def stand_in(path: str, copy: Path) -> None:
    """From now on this process finds what others call `path` in `copy`; see `located`."""
    _copies[path] = str(copy)


def located(path: str) -> str:
    """Where this process finds what was named as `path`: there, or in a copy of it."""
    return _copies.get(path, path)


def scratch() -> Path:
    """A folder for copies on this node, for this user alone."""
    folder = Path(tempfile.gettempdir()) / f"mgc_ray-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RequestError(f"{folder} belongs to somebody else: name another place by TMPDIR")
    return folder


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]


def _join(key: str, path: Path, root: Path) -> str:
    return key if path == root else f"{key}/{path.relative_to(root).as_posix()}"
