"""How the nodes of a cluster exchange files where they share no path.

A bucket (`s3://bucket/prefix`, `gs://...`) or a folder, through pyarrow's file systems. Keys are
relative paths with `/`. A file is complete or absent: buckets write objects that way, and in a
folder a file is written under another name, then renamed.
"""

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from mgc_ray import RequestError
from mgc_ray.data.files import atomic_write, delete

_SECRET = re.compile("key|secret|token|passw|sas|sig|cred|auth", re.IGNORECASE)
_THREADS = 8  # a transfer waits for the network most of the time


def _has_secret(uri: str) -> bool:
    """Whether a URI has a key in it, in any of the places where it may be."""
    try:
        parts = urlsplit(uri)
        named = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:  # of brackets that are no address: pyarrow says so
        return "@" in uri
    # abfss://CONTAINER@ACCOUNT/: the container is no secret, and the usual form
    user = parts.username if parts.scheme not in ("abfs", "abfss") else ""
    return bool(user or parts.password or any(map(_SECRET.search, named)))


class Storage:
    """A bucket or folder, by its URI or path; in another process it connects again.

    So it holds no access key: each node finds its own in its environment or role, and a URI with a
    key in it is refused, as it would be written into files and logs. Raises RequestError where
    nothing can be written there.
    """

    def __init__(self, uri: str, check: bool = True) -> None:
        self.uri = uri if "://" in uri else os.path.abspath(uri)
        if _has_secret(self.uri):
            raise RequestError(
                "--storage must not contain an access key, as it is written into results and logs: "
                "give it by the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
                "AZURE_CLIENT_SECRET, ...) or a role"
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
                f"--storage {self.uri} cannot be used ({str(error).splitlines()[0]}): give a "
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
        keys = [
            one.path[start:].lstrip("/")
            for one in self._fs.get_file_info(selector)
            if one.type == fs.FileType.File
        ]
        if outside := next((one for one in keys if ".." in one.split("/")), None):
            raise RequestError(
                f"names in --storage must not lead out of it, but {outside!r} does: delete it"
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
            with atomic_write(Path(place)) as temporary:
                shutil.copyfile(path, temporary)
        else:
            with path.open("rb") as source, self._fs.open_output_stream(place) as target:
                shutil.copyfileobj(source, target, 1 << 20)

    def _get_file(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_write(path) as temporary,
            self._fs.open_input_stream(self._path(key)) as source,
            temporary.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/") if key else self._root


class SharedFolder:
    """A folder that several nodes work in: one that all see, or a copy on each and a storage.

    `folder` is where files are on this node. `send` and `fetch` copy a file or folder in it, by its
    relative path, to the storage and from there; where all nodes see the folder they do nothing.
    """

    def __init__(self, folder: Path, storage: Storage | None, key: str = "") -> None:
        self.folder = folder.resolve()
        self.storage = storage
        self.key = key

    def on_this_node(self) -> "SharedFolder":
        """The same for a task, which may run on any node: with a scratch folder of that node."""
        if self.storage is None:
            return SharedFolder(self.folder, None)
        name = hashlib.sha256(f"{self.storage.uri} {self.key}".encode()).hexdigest()[:16]
        return SharedFolder(scratch() / name, self.storage, self.key)

    def subfolder(self, name: str) -> "SharedFolder":
        """A folder in it."""
        return SharedFolder(self.folder / name, self.storage, f"{self.key}/{name}")

    def send(self, name: str) -> None:
        """Copy what is here to the storage, over what is there."""
        if self.storage and (self.folder / name).exists():
            self.storage.put(self.folder / name, f"{self.key}/{name}")

    def missing(self, names: Sequence[str]) -> list[str]:
        """Which of these files the storage does not have; none without a storage."""
        if self.storage is None:
            return []
        there = set(self.storage.files(self.key))
        return [name for name in names if f"{self.key}/{name}" not in there]

    def fetch(self, name: str) -> None:
        """Copy what the storage has to here, over what is here; nothing where it has nothing."""
        if self.storage:
            self.storage.get(f"{self.key}/{name}", self.folder / name)

    def delete(self, name: str) -> None:
        """Delete it here and in the storage."""
        delete(self.folder / name)
        if self.storage:
            self.storage.delete(f"{self.key}/{name}")

    def clear(self, name: str) -> None:
        """Delete this node's copy of what it has sent; never what others see."""
        if self.storage:
            delete(self.folder / name)


_copies: dict[str, str] = {}


def use_copy(path: str, copy: Path) -> None:
    """From now on this process reads `copy` where others read `path`; see `local_path`."""
    _copies[path] = str(copy)


def local_path(path: str) -> str:
    """Where this process reads `path`: there, or a copy of it."""
    return _copies.get(path, path)


def scratch() -> Path:
    """A folder for copies on this node that only this user can read."""
    folder = Path(tempfile.gettempdir()) / f"mgc_ray-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()  # not of what a link points at, which someone else may have put there
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
        raise RequestError(f"{folder} belongs to another user: set TMPDIR to another folder")
    return folder


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]


def _join(key: str, path: Path, root: Path) -> str:
    return key if path == root else f"{key}/{path.relative_to(root).as_posix()}"
