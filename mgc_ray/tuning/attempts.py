"""Which run of a trial or fold may write: the latest one.

Ray takes a node for dead that has not answered for a while, and runs its work again elsewhere. If
the node was only frozen, as a paused virtual machine or behind a network that was cut, its process
goes on when it thaws, and would replace what the later run has written by weights and states that
belong to no record. So each run makes a claim first, and looks before it writes whether that is
still the latest one.
"""

from dataclasses import dataclass

from mgc_ray.data.files import delete
from mgc_ray.data.storage import Claim, SharedFolder, Storage, next_claim

ATTEMPTS = "attempts"  # a folder in a search's folder, or in the search's folder in the storage


@dataclass(frozen=True)
class Attempt:
    """One run of a trial or fold; `files` is where it writes, on this node."""

    claim: Claim
    files: SharedFolder

    def check(self) -> None:
        """Raise StorageError where a later run has begun, or the driver knows the end of this one.

        Between this and what is then written a process may freeze as well, but hardly ever does.
        """
        self.claim.check()

    def end(self) -> None:
        """Delete this node's copies of what the run has sent."""
        self.files.clear(".")


def begin_attempt(search: SharedFolder, part: str, job: str) -> Attempt:
    """Begin a run of the trial or fold `job`, whose files are in the search's folder `part`.

    An earlier run of it may no longer write. What it has left on this node is deleted.
    """
    storage = search.storage or Storage(str(search.folder), check=False)
    key = f"{search.key}/{ATTEMPTS}/{job}" if search.storage else f"{ATTEMPTS}/{job}"
    claim = next_claim(storage, key)
    claim.take(over=True)
    files = search.subfolder(part).on_this_node()
    if files.storage:
        own = f"{job.replace('/', '-')}.{claim.name}"
        for earlier in files.folder.glob(f"{job.replace('/', '-')}.*"):
            delete(earlier)
        files.folder /= own
    return Attempt(claim, files)


def end_attempts(search: SharedFolder, job: str = "") -> None:
    """Let no run of a trial or fold write any more, or none of any."""
    search.delete(f"{ATTEMPTS}/{job}".rstrip("/"))
