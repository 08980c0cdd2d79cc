"""How the nodes of a cluster exchange files where they share no path.

A bucket (`s3://bucket/prefix`, `gs://...`) or a folder, through pyarrow's file systems. Keys are
relative paths with `/`. A file is complete or absent: buckets write objects that way, and in a
folder a file is written under another name, then renamed.

What a bucket does not answer, or answers by an error, is tried again for a while. Then a
StorageError says so: an error of the machine, never of the trial or track that it occurred with.
"""

import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from mgc_ray import RequestError
from mgc_ray.data.files import atomic_write, delete, user_id
from mgc_ray.data.waiting import keep, within

_SECRET = re.compile("key|secret|token|passw|sas|sig|cred|auth", re.IGNORECASE)
_THREADS = 8  # a transfer waits for the network most of the time
_PATIENCE = 40.0  # seconds for which what fails is tried again
_SILENCE = 15.0  # seconds after which a bucket does not answer
_SLOWEST = 100_000  # bytes per second, at which something is still being sent
_PIECE = 1 << 20
_LARGE = 64 << 20  # bytes of a file of which only one is sent at a time
_one_large_file = threading.Lock()


class StorageError(OSError):
    """A storage that cannot be used for now: what is finished is kept, and continues later."""

    def __init__(self, number: int, reason: str, uri: str) -> None:
        super().__init__(number, reason, uri)


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
            self._fs, self._root = within(_SILENCE, fs.FileSystem.from_uri, _limited(self.uri))
            self._is_folder = isinstance(self._fs, fs.LocalFileSystem)
            if isinstance(self._fs, fs.LocalFileSystem):
                self._fs.create_dir(self._root)
            if check:  # now, and not after an hour of preprocessing
                self._upload(b"yes", self._path(".writable"))
                self._call(self._fs.delete_file, self._path(".writable"))
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
        self.get_files({one: path / one[len(key) + 1 :] for one in found})
        return bool(found)

    def get_files(self, places: Mapping[str, Path]) -> None:
        """Fetch the files with these keys to these places."""
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._get_file, places.keys(), places.values()))

    def files(self, key: str) -> list[str]:
        """The keys of the file `key`, or of all files under it, sorted."""
        return list(self.sizes(key))

    def sizes(self, key: str) -> dict[str, int]:
        """The same with their sizes in bytes."""
        info = self._tried(self._fs.get_file_info, self._path(key))
        if info.type == fs.FileType.File:
            return {key: info.size}
        selector = fs.FileSelector(self._path(key), allow_not_found=True, recursive=True)
        start = len(self._path("")) if self._root else 0
        found = {
            one.path[start:].lstrip("/"): one.size
            for one in self._tried(self._fs.get_file_info, selector)
            if one.type == fs.FileType.File and not one.base_name.startswith(".")
        }
        if outside := next((one for one in found if ".." in one.split("/")), None):
            raise RequestError(
                f"names in --storage must not lead out of it, but {outside!r} does: delete it"
            )
        return dict(sorted(found.items()))

    def folders(self) -> list[str]:
        """The names of the folders at its top."""
        selector = fs.FileSelector(self._path(""), allow_not_found=True)
        found = self._tried(self._fs.get_file_info, selector)
        return [one.base_name for one in found if one.type == fs.FileType.Directory]

    def exists(self, key: str) -> bool:
        """Whether the file `key` is there."""
        info = self._tried(self._fs.get_file_info, self._path(key))
        return bool(info.type == fs.FileType.File)

    def delete(self, key: str) -> None:
        """Delete the file `key`, or all files under it."""
        for one in self.files(key):
            with suppress(FileNotFoundError):
                self._tried(self._fs.delete_file, self._path(one))

    def _put_file(self, path: Path, key: str) -> None:
        place = self._path(key)
        if self._is_folder:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(Path(place)) as temporary:
                shutil.copyfile(path, temporary)
            return
        with _one_large_file if path.stat().st_size > _LARGE else nullcontext():
            # read before the object is begun: closing it after an error would leave a part of it
            content = path.read_bytes()
            self._tried(self._upload, content, place)

    def _get_file(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            self._tried(self._download, self._path(key), temporary)

    def _upload(self, content: bytes, place: str) -> None:
        stream = self._call(self._fs.open_output_stream, place)
        try:
            self._call(stream.write, content)
            self._call(stream.close, seconds=_SILENCE + len(content) / _SLOWEST)
        except BaseException:
            keep(stream)  # dropped, it would be closed, and a part of the content would be whole
            raise

    def _download(self, place: str, path: Path) -> None:
        source = self._call(self._fs.open_input_file, place)
        size = self._call(source.size)
        with path.open("wb") as target:
            while piece := self._call(source.read, _PIECE):
                target.write(piece)
            if target.tell() != size:
                raise OSError(f"it ended after {target.tell()} of {size} bytes")

    def _tried(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, again where that fails; StorageError where it does so for long."""
        ends, pause = time.monotonic() + _PATIENCE, 1.0
        own = function in (self._upload, self._download)
        while True:
            try:
                return function(*arguments) if own else self._call(function, *arguments)
            except (OSError, pa.ArrowException) as error:
                if getattr(error, "errno", None) is not None:
                    raise  # of a folder, which says what is wrong
                if time.monotonic() + pause > ends:
                    raise self._error(error) from None
            time.sleep(pause)
            pause *= 2

    def _error(self, error: Exception) -> StorageError:
        reason = next(iter(str(error).splitlines()), repr(error))
        return StorageError(
            errno.EIO,
            f"the storage cannot be used ({reason}), also when tried again for {_PATIENCE:g} s; "
            "what is finished is kept: see to its keys and the network, then continue (a search by "
            "--resume, all else by the same command)",
            self.uri,
        )

    def _call(self, function: Callable[..., Any], *arguments: Any, seconds: float = 0.0) -> Any:
        if self._is_folder:
            return function(*arguments)
        return within(seconds or _SILENCE, function, *arguments)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/") if key else self._root


def _limited(uri: str) -> str:
    """The URI with a limit for how long Google's library tries again: its own is 15 minutes."""
    if not uri.startswith(("gs://", "gcs://")) or "retry_limit_seconds" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}retry_limit_seconds={_SILENCE:g}"


# ---- who writes a search ----

CLAIMS = "owners"  # a folder in a search's folder in the storage
_RIVAL_SECONDS = 10.0  # for which a driver waits for one that has come at the same time


@dataclass(frozen=True)
class Claim:
    """That one driver writes the search `key` in a storage: the one with the latest claim.

    `name`: its number, from 1 on, and a random id. Each claim is an object of its own, so that none
    overwrites another, and of two that are made at once at most one finds itself alone: storages
    list each object that was written before.
    """

    storage: Storage
    key: str
    name: str

    def take(self, over: bool = False) -> None:
        """Make the claim; RequestError where another driver is first.

        `over`: take the search over from earlier drivers, else only one that nobody has.
        """
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "claim").write_text(f"process {os.getpid()} on {socket.gethostname()}")
            self.storage.put(Path(folder) / "claim", f"{self.key}/{CLAIMS}/{self.name}")
        ends = time.monotonic() + _RIVAL_SECONDS
        while True:
            rivals = [one for one in claims(self.storage, self.key) if one != self.name]
            if over:
                rivals = [one for one in rivals if _number(one) >= _number(self.name)]
            if not rivals:
                return
            # the smallest waits for the others to withdraw, which they do unless they were alone
            if min(rivals) < self.name or time.monotonic() > ends:
                self.storage.delete(f"{self.key}/{CLAIMS}/{self.name}")
                raise RequestError(
                    f"another driver has just taken {self.key} in {self.storage.uri}: choose "
                    "another --name"
                )
            time.sleep(0.5)

    def check(self) -> None:
        """Raise StorageError where another driver has taken the search since."""
        now = claims(self.storage, self.key)
        # others of the same number are about to withdraw
        if self.name not in now or _number(now[-1]) != _number(self.name):
            raise StorageError(
                errno.EIO,
                f"another driver has taken {self.key} over, by --resume, so this one stops",
                self.storage.uri,
            )


def claims(storage: Storage, key: str) -> list[str]:
    """The names of all claims on a search, the latest last."""
    return [one.rsplit("/", 1)[-1] for one in storage.files(f"{key}/{CLAIMS}")]


def next_claim(storage: Storage, key: str) -> Claim:
    """A claim behind all others, which has not been made yet."""
    number = 1 + max(map(_number, claims(storage, key)), default=0)
    return Claim(storage, key, f"{number:06d}-{uuid4().hex[:12]}")


def _number(claim: str) -> int:
    return int(claim.split("-")[0])


# ---- folders ----


class SharedFolder:
    """A folder that several nodes work in: one that all see, or a copy on each and a storage.

    `folder` is where files are on this node. `send` and `fetch` copy a file or folder in it, by its
    relative path, to the storage and from there; where all nodes see the folder they do nothing.
    `identity`: of what is in it; copies of something else on a node are deleted. With a `claim`
    only its holder writes to the storage.
    """

    def __init__(
        self,
        folder: Path,
        storage: Storage | None,
        key: str = "",
        claim: Claim | None = None,
        identity: str = "",
    ) -> None:
        self.folder = folder.resolve()
        self.storage = storage
        self.key = key
        self.claim = claim
        self.identity = claim.name if claim else identity

    def on_this_node(self) -> "SharedFolder":
        """The same for a task, which may run on any node: with a scratch folder of that node."""
        if self.storage is None:
            return SharedFolder(self.folder, None)
        name = hashlib.sha256(f"{self.storage.uri} {self.key}".encode()).hexdigest()[:16]
        folder = scratch() / f"{name}-{self.identity}"
        for other in scratch().glob(f"{name}-*"):
            if other != folder:  # of a search that was killed here, or of other music
                delete(other)
        return self._at(folder, self.key)

    def _at(self, folder: Path, key: str) -> "SharedFolder":
        return SharedFolder(folder, self.storage, key, self.claim, self.identity)

    def subfolder(self, name: str) -> "SharedFolder":
        """A folder in it."""
        return self._at(self.folder / name, f"{self.key}/{name}")

    def send(self, name: str) -> None:
        """Copy what is here to the storage, over what is there."""
        if self.storage and (self.folder / name).exists():
            self._check_claim()
            self.storage.put(self.folder / name, f"{self.key}/{name}")

    def send_missing(self, name: str) -> None:
        """Copy those files of a folder that the storage does not have, or of another size."""
        if self.storage and (self.folder / name).exists():
            self._check_claim()
            there = self.storage.sizes(f"{self.key}/{name}")
            for path in _files(self.folder / name):
                key = f"{self.key}/{path.relative_to(self.folder).as_posix()}"
                if there.get(key) != path.stat().st_size:
                    self.storage.put(path, key)

    def _check_claim(self) -> None:
        if self.claim:
            self.claim.check()

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
            self._check_claim()
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
    folder = Path(tempfile.gettempdir()) / f"mgc_ray-{user_id()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()  # not of what a link points at, which someone else may have put there
    if status.st_uid != user_id() or not stat.S_ISDIR(status.st_mode):
        raise RequestError(f"{folder} belongs to another user: set TMPDIR to another folder")
    return folder


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]


def _join(key: str, path: Path, root: Path) -> str:
    return key if path == root else f"{key}/{path.relative_to(root).as_posix()}"
