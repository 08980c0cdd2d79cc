"""Apply a function to many items on all CPUs of a cluster, by Ray Data."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import ray
import ray.data

T = TypeVar("T")
R = TypeVar("R")

_TASKS = 4000  # about as many, at most


def parallel_map(
    items: Sequence[T], function: Callable[[T], R], at_least: int, at_most: int
) -> Iterator[R]:
    """Apply a function to items on all CPUs of the cluster; results as they come, in any order.

    A task takes `at_least` to `at_most` items.
    """
    if not items:
        return
    # Else Ray Data reserves CPUs for other operators, which do not exist: of two, one is idle.
    ray.data.DataContext.get_current().op_resource_reservation_enabled = False
    cpus = max(1, ray.cluster_resources().get("CPU", 1))  # none while the last worker is away
    # twice as many as run at a time, so that pieces become smaller before the end
    pieces = pieces_of(items, 2 * cpus, at_least, at_most)
    # bytes, as Arrow would make columns of its own types of Python's objects, or try and fail
    source = ray.data.from_items(
        [{"items": pickle.dumps(piece)} for piece in pieces], override_num_blocks=len(pieces)
    )

    def apply(row: dict[str, Any]) -> dict[str, Any]:
        try:
            results: Any = [function(item) for item in pickle.loads(row["items"])]
        except Exception as error:  # raised, Ray would wrap it, or run the task again for ever
            results = error
        return {"results": pickle.dumps(results)}

    for row in source.map(apply).iter_rows():
        results = pickle.loads(row["results"])
        if isinstance(results, Exception):
            raise results
        yield from results


class Shared(Generic[T]):
    """A large object, such as a model, that each process of the cluster fetches once.

    `key` distinguishes it from others; a process keeps the last one that it fetched.
    """

    def __init__(self, key: str, value: T) -> None:
        self._key, self._reference = key, ray.put(value)

    def get(self) -> T:
        if self._key not in _fetched:
            _fetched.clear()
            _fetched[self._key] = ray.get(self._reference)
        value: T = _fetched[self._key]
        return value


_fetched: dict[str, Any] = {}


def pieces_of(items: Sequence[T], tasks: float, at_least: int, at_most: int) -> list[Sequence[T]]:
    """Items in pieces for tasks: each takes the `tasks`-th part of what remains.

    Large pieces, as each task costs 20 ms of Ray's own, but smaller ones towards the end, which all
    CPUs so reach together. More than `_TASKS * at_most` items make larger ones, as the driver
    plans all of them at once.
    """
    at_most = max(at_most, len(items) // _TASKS)
    pieces, start = [], 0
    while start < len(items):
        size = max(at_least, min(at_most, int((len(items) - start) / tasks)))
        pieces.append(items[start : start + size])
        start += size
    return pieces
