"""A limit for calls that may never end, such as those of libraries that wait for a network."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_kept: list[object] = []


def within(seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    """What a function returns or raises; TimeoutError where it takes longer, and is left alone."""
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def call() -> None:
        try:
            answers.put((function(*arguments), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        keep(answers)  # what it may still return
        raise TimeoutError(f"no answer for {seconds:.0f} s") from None
    if error:
        raise error
    answer: T = result
    return answer


class RunningTime:
    """Seconds for which this process has run, as it looks at them every few seconds.

    A pause, by Ctrl-Z or with the whole machine, counts as no more than `look` seconds: who is
    waited for may have been paused as well, or has had no chance to be heard.
    """

    def __init__(self, look: float = 60.0) -> None:
        self._look, self._seconds, self._last = look, 0.0, time.monotonic()

    def now(self) -> float:
        now = time.monotonic()
        self._seconds += min(now - self._last, self._look)
        self._last = now
        return self._seconds


def keep(thing: object) -> None:
    """Keep something to the end of the process, which must not be closed when it is dropped."""
    _kept.append(thing)


def waits() -> bool:
    """Whether something was left alone or kept, for which a library might wait at the end."""
    return bool(_kept)
