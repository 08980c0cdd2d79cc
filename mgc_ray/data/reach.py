"""How a task on any node of a cluster reaches the tracks that the command was given.

On a path that all nodes share, as it is. Else, with a storage, the driver brings the files there
once, and each task takes a copy for as long as it reads it.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mgc_ray.data.storage import Storage, scratch


@dataclass(frozen=True)
class Reach:
    """`storage` None: paths are what they are on every node."""

    storage: Storage | None = None
    key: str = ""

    @contextmanager
    def __call__(self, path: str) -> Iterator[str]:
        """Where this node finds the file, for the length of the block."""
        if self.storage is None or os.path.exists(path):
            yield path
            return
        with tempfile.TemporaryDirectory(dir=scratch()) as folder:
            copy = Path(folder) / f"track{Path(path).suffix}"  # the ending tells what is in it
            yield str(copy) if self.storage.get(self._key_of(path), copy) else path

    def send(self, paths: Sequence[str], advance: Callable[[int], None]) -> None:
        """Bring the files to the storage, but for those that are there already.

        What cannot be read is left out: the task that looks for it will say so.
        """
        assert self.storage
        there = set(self.storage.files(self.key))

        def send(path: str) -> None:
            key = self._key_of(path)
            if key not in there and os.path.isfile(path) and os.access(path, os.R_OK):
                assert self.storage
                self.storage.put(Path(path), key)

        with ThreadPoolExecutor(8) as pool:
            for done, _ in enumerate(pool.map(send, paths), start=1):
                advance(done)

    def end(self) -> None:
        """Delete the copies in the storage."""
        if self.storage:
            self.storage.delete(self.key)

    def _key_of(self, path: str) -> str:
        name = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        return f"{self.key}/{name}{Path(path).suffix}"
