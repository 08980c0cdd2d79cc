"""Callbacks: what hears of a search as it runs. TensorBoard is one, MLflow another, or your own.

A callback of one's own is an object (`run_search(callbacks=[Mine()])`), a file (`--callbacks
./mine.py`) or an entry point of an installed package in the group `mgc_ray.callbacks`. It runs in a
thread of its own and gets copies, so that whatever it does, the search is not harmed.
"""

import copy
import importlib
import inspect
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from mgc_ray import RequestError
from mgc_ray.data.own_files import execute, is_path, own_code, read_source
from mgc_ray.results import SearchResult, TrialRecord
from mgc_ray.settings import Params, nearest
from mgc_ray.terminal.command import console, print_warnings

_GROUP = "mgc_ray.callbacks"  # of entry points
_SHIPPED = {"mlflow": "mgc_ray.tuning.mlflow:MLflowCallback"}
_LAST_SECONDS, _STOP_SECONDS = 60.0, 2.0  # for what a callback still has to do
_QUIET_SECONDS = 3.0  # after which it is said that it is waited for
_LONGEST = 200  # characters of an error that are shown
_objects: dict[str, object] = {}  # given to `run_search`, by the names that its configuration has


class Callback:
    """Derive from it and define the methods that you need.

    They are called in the process that the search was started in. `search` is what is known of it
    by then: name, folder, config; at its end also best trial, ensemble and test. `trial` has its
    settings, and `curve` with the metrics of each epoch so far.
    """

    def on_search_start(self, search: SearchResult) -> None:
        """Before the first trial; `search.resumed` has `search.records` of earlier trials."""

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Also when a trial starts again, as after its machine failed; it reports all epochs."""

    def on_epoch(self, trial: TrialRecord) -> None:
        """The newest epoch is `trial.curve[-1]`, and its number `trial.epochs`."""

    def on_trial_end(self, trial: TrialRecord) -> None:
        """`trial.status` and `trial.reason` state why, `trial.best` its best epoch."""

    def on_search_end(self, search: SearchResult) -> None:
        """The search has finished, or failed (`search.failure`); not where it can be resumed."""


METHODS = tuple(name for name in vars(Callback) if name.startswith("on_"))


# ---- those that a search is given ----


def with_names(given: Params) -> Params:
    """With the names of callbacks in place of objects, and whole paths of files."""
    callbacks = given.get("callbacks")
    if not callbacks:
        return given
    several = isinstance(callbacks, Sequence) and not isinstance(callbacks, str)
    return given | {"callbacks": [_name(one) for one in (callbacks if several else [callbacks])]}


def _name(given: Any) -> str:
    if isinstance(given, str | Path):
        return str(Path(given).resolve()) if is_path(str(given)) else str(given)
    name = (given if inspect.isclass(given) else type(given)).__name__
    while _objects.get(name, given) is not given:
        name += "_"
    _objects[name] = given
    return name


def load_callbacks(names: Sequence[str], resumed: bool = False) -> dict[str, Any]:
    """The callbacks of these names; RequestError for one that cannot be used.

    Of a search that is resumed, that is a warning: it may have been begun elsewhere.
    """
    loaded = {}
    for name in names:
        try:
            loaded[name] = _load(name)
        except RequestError as error:
            if not resumed:
                raise
            print_warnings([f"the search continues without the callback {name}: {error}"])
    return loaded


def _load(name: str) -> Any:
    if name in _objects:
        made, where = _objects[name], f"the callback {name}"
    elif is_path(name):
        made, where = _class_in(name), name
    else:
        made, where = _installed(name), f"the callback {name}"
    _check(made, where)
    if inspect.isclass(made):
        with own_code(name):
            made = made()
    return made


def _installed(name: str) -> Any:
    points = {point.name: point.value for point in entry_points(group=_GROUP)} | _SHIPPED
    if name not in points:
        raise RequestError(
            f"--callbacks must be {', '.join(sorted(points))}, or the path of a file, but it is "
            f"{name!r}{nearest(name, list(points))}"
        )
    module, _, part = points[name].partition(":")
    with own_code(name):
        return getattr(importlib.import_module(module), part)


def _class_in(path: str) -> type:
    """The one class in a file that is a callback."""
    name = f"mgc_ray_callback_{Path(path).stem}"
    module = execute(name, path, read_source(Path(path), "--callbacks"), (), "")
    found = [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and one.__module__ == name and _hears(one)
    ]
    if len(found) != 1:
        raise RequestError(
            f"{path} must have one class with {' or '.join(METHODS)}, but it has {len(found)}: "
            "see the documentation, tracking.md"
        )
    return found[0]


def _hears(made: Any) -> list[str]:
    return [name for name in dir(made) if name.startswith("on_")]


def _check(made: Any, where: str) -> None:
    """Refuse what would never be called: a method whose name is misspelt, or none."""
    heard = _hears(made)
    unknown = [name for name in heard if name not in METHODS]
    if unknown or not heard:
        method = f"{unknown[0]!r}{nearest(unknown[0], METHODS)}" if unknown else "none of them"
        raise RequestError(
            f"{where} must be an object with some of {', '.join(METHODS)}, but it has {method}"
        )


# ---- how they are called ----


@contextmanager
def apart(callbacks: dict[str, Any]) -> Iterator[list[Callback]]:
    """Each callback in a thread of its own; at the end each has some time for what is left."""
    started = [_Apart(name, callback) for name, callback in callbacks.items()]
    seconds = _STOP_SECONDS
    try:
        yield list(started)
        seconds = _LAST_SECONDS
    finally:
        deadline = time.monotonic() + seconds
        for one in started:
            one.close(deadline)


class _Apart(Callback):
    """Hands all that it hears on to a callback in a thread; an error of that is said once."""

    def __init__(self, name: str, callback: Any) -> None:
        self._name, self._callback = Path(name).stem, callback
        self._heard: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._has_failed = False
        self._thread = threading.Thread(target=self._call, daemon=True, name=f"callback {name}")
        self._thread.start()

    def on_search_start(self, search: SearchResult) -> None:
        self._put("on_search_start", search)

    def on_trial_start(self, trial: TrialRecord) -> None:
        self._put("on_trial_start", trial)

    def on_epoch(self, trial: TrialRecord) -> None:
        self._put("on_epoch", trial)

    def on_trial_end(self, trial: TrialRecord) -> None:
        self._put("on_trial_end", trial)

    def on_search_end(self, search: SearchResult) -> None:
        self._put("on_search_end", search)

    def close(self, deadline: float) -> None:
        """Wait for what is left to do, until then at the latest."""
        self._heard.put(("", None))
        left = max(0.0, deadline - time.monotonic())
        self._thread.join(min(left, _QUIET_SECONDS))
        if self._thread.is_alive() and left > _QUIET_SECONDS:
            console.print(f"waiting for the callback {self._name}, {left:.0f} s at most")
            self._thread.join(left - _QUIET_SECONDS)
        if self._thread.is_alive():
            print_warnings([f"the callback {self._name} has not come to its end: it is left alone"])

    def _put(self, method: str, heard: SearchResult | TrialRecord) -> None:
        # a copy, as trials go on, and as the callback may change what it gets
        self._heard.put((method, copy.deepcopy(heard)))

    def _call(self) -> None:
        while True:
            method, heard = self._heard.get()
            if not method:
                return
            try:
                getattr(self._callback, method, _nothing)(heard)
            except (Exception, SystemExit) as error:  # whatever its author wrote
                self._say(method, error)

    def _say(self, method: str, error: BaseException) -> None:
        if self._has_failed:
            return
        self._has_failed = True
        reason = (str(error).strip() or "no message").splitlines()[0][:_LONGEST]
        print_warnings(
            [
                f"the callback {self._name} failed in {method} ({type(error).__name__}: {reason}). "
                "The search goes on, and so does the callback; this is said only once"
            ]
        )


def _nothing(_: Any) -> None:
    """What a callback does of which it has no method."""
