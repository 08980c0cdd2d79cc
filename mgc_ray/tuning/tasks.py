"""Apply a function to many items on all CPUs of a cluster, and on its GPUs, by Ray Data."""

import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import ray
import ray.data

from mgc_ray.tuning.cluster import stderr_into

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")

PER_GPU = 4  # processes that share one: while one decodes or waits, another computes
_TASKS = 4000  # about as many, at most


def free_gpus() -> int:
    """How many GPUs of the cluster nothing else holds."""
    return int(ray.available_resources().get("GPU", 0.0))


def parallel_map(
    items: Sequence[T], function: Callable[[T], R], at_least: int, at_most: int
) -> Iterator[R]:
    """Apply a function to items on all CPUs of the cluster; results as they come, in any order.

    A task takes `at_least` to `at_most` items.
    """
    cpus = max(1, ray.cluster_resources().get("CPU", 1))  # none while the last worker is away
    # twice as many as run at a time, so that pieces become smaller before the end
    pieces = pieces_of(items, 2 * cpus, at_least, at_most)
    if items:
        yield from _results(_on_cpus(pieces, function, len(pieces)))


def parallel_map_on_gpus(
    items: Sequence[T], prepare: Callable[[T], S], finish: Callable[[S], R], gpus: int
) -> Iterator[R]:
    """Apply `finish(prepare(item))` to items; results as they come, in any order.

    `prepare` runs on all CPUs of the cluster, and `finish` in processes that each hold a share of
    one of so many GPUs, and no CPU. What goes from one to the other must be smaller than 2 GB.
    """
    if not items:
        return iter(())
    _quieten_pools()
    prepared = _on_cpus([[item] for item in items], prepare, min(len(items), _TASKS))
    processes = min(len(items), PER_GPU * gpus)
    # all of them at once, as Ray fills one GPU before it uses the next
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=processes, initial_size=processes)
    finished = prepared.map(
        _Finish,  # type: ignore[arg-type]
        fn_constructor_args=(finish,),
        compute=pool,
        num_gpus=1 / PER_GPU,
        num_cpus=0,
    )
    return _results(finished)


def _quieten_pools() -> None:
    """Let Ray say unseen what it says once of processes that it can start again, as all of a pool.

    That such a process cannot if its arguments are lost, which live as long as this one.
    """
    noted = ray.remote(num_cpus=0, max_restarts=1)(_Noted)
    with tempfile.TemporaryFile() as file, stderr_into(file):
        ray.kill(noted.remote(ray.put(None)))  # type: ignore[arg-type]


class _Noted:
    def __init__(self, argument: None) -> None:
        pass


def _on_cpus(
    pieces: Sequence[Sequence[T]], function: Callable[[T], Any], tasks: int
) -> ray.data.Dataset:
    """Apply a function to pieces of items, in so many tasks; a row of results for each piece."""
    # Else Ray Data reserves CPUs for other operators, which need none: of two, one is idle.
    ray.data.DataContext.get_current().op_resource_reservation_enabled = False
    # bytes, as Arrow would make columns of its own types of Python's objects, or try and fail
    source = ray.data.from_items(
        [{"items": pickle.dumps(piece)} for piece in pieces], override_num_blocks=tasks
    )
    return source.map(lambda row: _applied(function, lambda: pickle.loads(row["items"])))


def _applied(function: Callable[[Any], Any], read: Callable[[], Sequence[Any]]) -> dict[str, Any]:
    """The row of what a function makes of the items that are read."""
    try:
        results: Any = [function(item) for item in read()]
    except Exception as error:  # raised, Ray would wrap it, or run the task again for ever
        results = error
    return {"results": pickle.dumps(results)}


def _read_results(row: dict[str, Any]) -> list[Any]:
    """What a row holds; raises what went wrong instead."""
    results: Any = pickle.loads(row["results"])
    if isinstance(results, Exception):
        raise results
    return list(results)


def _results(rows: ray.data.Dataset) -> Iterator[Any]:
    for row in rows.iter_rows():
        yield from _read_results(row)


class _Finish:
    """A process that works on results of others; it keeps what it loads, such as a network."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _applied(self._function, lambda: _read_results(row))


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
