"""How a task on any node of a cluster reads the tracks of a track table.

Where all nodes see a track's path, from there. Else, with a storage, the driver uploads the files
once, and each task downloads a copy for as long as it reads it.
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
class TrackFetcher:
    """Without a `storage` paths are the same on every node."""

    storage: Storage | None = None
    key: str = ""

    @contextmanager
    def __call__(self, path: str) -> Iterator[str]:
        """Where this node reads the file, for the length of the block."""
        if self.storage is None or os.path.exists(path):
            yield path
            return
        with tempfile.TemporaryDirectory(dir=scratch()) as folder:
            copy = Path(folder) / f"track{Path(path).suffix}"  # the suffix says what is in it
            yield str(copy) if self.storage.get(self._key_of(path), copy) else path

    def upload(self, paths: Sequence[str], advance: Callable[[int], None]) -> None:
        """Copy the files to the storage, except those that are there already.

        A file that cannot be read is left out: the task that reads it will report it.
        """
        assert self.storage
        present = set(self.storage.files(self.key))

        def send(path: str) -> None:
            key = self._key_of(path)
            if key not in present and os.path.isfile(path) and os.access(path, os.R_OK):
                assert self.storage
                self.storage.put(Path(path), key)

        with ThreadPoolExecutor(8) as pool:
            for done, _ in enumerate(pool.map(send, paths), start=1):
                advance(done)

    def delete_uploads(self) -> None:
        """Delete the copies in the storage."""
        if self.storage:
            self.storage.delete(self.key)

    def _key_of(self, path: str) -> str:
        name = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        return f"{self.key}/{name}{Path(path).suffix}"
