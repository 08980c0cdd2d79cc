"""Calls that may never end."""

import threading
import time

import pytest

from mgc_ray.data.waiting import waits, within


def test_a_call_in_time_gives_what_it_returns_or_raises() -> None:
    assert within(10, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        within(10, divmod, 7, 0)


def test_a_call_that_takes_longer_is_left_alone() -> None:
    released = threading.Event()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer for 0 s"):
        within(0.1, released.wait, 60)
    assert time.monotonic() - started < 10
    assert waits()
    released.set()
