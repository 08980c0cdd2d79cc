"""A limit for calls that may never end, such as those of libraries that wait for a network."""

import queue
import threading
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


def keep(thing: object) -> None:
    """Keep something to the end of the process, which must not be closed when it is dropped."""
    _kept.append(thing)


def waits() -> bool:
    """Whether something was left alone or kept, for which a library might wait at the end."""
    return bool(_kept)
