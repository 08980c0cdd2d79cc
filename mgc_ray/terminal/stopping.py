"""How a command is stopped: by Ctrl-C, SIGTERM, or SIGHUP, which the end of its terminal sends.

The first signal raises KeyboardInterrupt, so that the command ends in order and says how to
continue. A second one ends the process at once, whatever it is doing. A thread sees to that, and to
the end of a process in which the first has no effect in time, as code that is not Python's may be
busy or hang. What was finished is on disk, whichever way the process ends.
"""

import functools
import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from mgc_ray.data.waiting import waits

STATUS = 130
_SIGNALS: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_HANG_UP = getattr(signal, "SIGHUP", 0)  # 0 on Windows
if _HANG_UP:
    _SIGNALS[_HANG_UP] = "the end of its terminal (SIGHUP)"
_ONE_REQUEST = 0.1  # seconds in which `timeout` and shells send a signal twice, by pid and by group
_PATIENCE = 9.0  # seconds until a process is ended that was asked to; Docker kills it after ten
_LOST = 0  # no signal: a KeyboardInterrupt had no effect
_LATER = 0.01  # seconds after which it is raised again


class _Process:
    """What has come to this process. `raised`: whether a KeyboardInterrupt is on its way."""

    stopped_by = 0  # the first signal
    raised = False
    held = False  # by `uninterrupted`
    how_to_continue: Callable[[], str] | None = None


def obey_signals(name: str) -> None:
    """From now on signals stop this process, the command `name`; those that are ignored stay so."""
    for number in _SIGNALS:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _interrupt)
    if not _HANG_UP:  # nor can a thread wait for signals there
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    sys.unraisablehook = functools.partial(_notice_loss, writer)
    threading.Thread(target=_watch, args=(reader, os.dup(2), name), daemon=True).start()


def on_stop(how_to_continue: Callable[[], str] | None) -> None:
    """What is to be printed behind `stopped by SIGTERM`: how to continue; None: nothing."""
    _Process.how_to_continue = staticmethod(how_to_continue) if how_to_continue else None


def start_again() -> str:
    """How to continue with what writes nothing before its end."""
    return ": nothing was written, the same command starts again"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What must be done whole: a first signal raises at its end. Later ones end the process."""
    _Process.held = True
    try:
        yield
    finally:
        _Process.held = False
    if _Process.stopped_by:
        _raise_once()


def stop_message(name: str) -> str:
    """What the command `name` prints when it was stopped."""
    stopped_by = f"stopped by {_SIGNALS[_Process.stopped_by or signal.SIGINT]}"
    how_to_continue = _Process.how_to_continue
    return stopped_by + how_to_continue() if how_to_continue else f"{name}: {stopped_by}"


def end_if_stopped(status: int) -> None:
    """End a process that was stopped and has said so, without what libraries do at their end.

    That takes seconds, and may crash where they were interrupted. Nor do they wait then for a
    network that does not answer.
    """
    if _Process.stopped_by or waits():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(status)


def _interrupt(number: int, _: object) -> None:
    _Process.stopped_by = _Process.stopped_by or number
    if number == _HANG_UP:
        _leave_terminal()
    if not _Process.held:
        _raise_once()


def _raise_once() -> None:
    if not _Process.raised:
        _Process.raised = True
        raise KeyboardInterrupt


def _notice_loss(watch: int, unraisable: "sys.UnraisableHookArgs") -> None:
    """Have it raised again where it was ignored: in a destructor, or a callback of a library."""
    if _Process.raised and issubclass(unraisable.exc_type, KeyboardInterrupt):
        _Process.raised = False
        os.write(watch, bytes([_LOST]))
    else:
        sys.__unraisablehook__(unraisable)


def _leave_terminal() -> None:
    """Write to nowhere from now on, where the terminal is gone: writing to it would be an error."""
    for number in (1, 2):
        if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _watch(signals: int, stderr: int, name: str) -> None:
    """Wait for signals, which the system notes here even where Python's handlers do not run."""
    first, own = 0.0, 0
    while True:
        patience = max(0.0, first + _PATIENCE - time.monotonic()) if first else None
        if not select.select([signals], [], [], patience)[0]:
            with suppress(OSError):
                os.write(stderr, f"{stop_message(name)}\n".encode("utf-8", "replace"))
            _end_at_once()
        for number in os.read(signals, 64):
            if number == _LOST:
                time.sleep(_LATER)
                own += 1  # it is noted here too
                signal.pthread_kill(threading.main_thread().ident or 0, _Process.stopped_by)
            elif number in _SIGNALS and own:
                own -= 1
            elif number in _SIGNALS:
                if first and time.monotonic() - first > _ONE_REQUEST:
                    _end_at_once()
                first = first or time.monotonic()
                _Process.stopped_by = _Process.stopped_by or number  # the handler may never run


def _end_at_once() -> NoReturn:
    # no clean-up of any kind, except that a terminal must get its cursor back
    os.write(2, b"\x1b[?25h\n" if sys.stderr.isatty() else b"")
    os._exit(STATUS)
