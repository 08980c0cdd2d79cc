"""How a command starts and ends, the same for all of them.

Standard output carries results (`--json`: one line of JSON), standard error all that is meant for a
person. Exit status: 0 done, 1 failed or done in part, 2 the request was refused, 130 ended by
Ctrl-C, or by SIGTERM, which schedulers, containers and `kill` send: what is finished is kept, and
how to go on is told. A second one ends the process at once, whatever it is still putting in order.
"""

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from mgc_ray import RequestError

# A terminal gets lines broken between words, a file or pipe gets each message as one line. What is
# to be copied (commands, paths) is printed with soft_wrap=True.
console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except where there is none worth showing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, [], argparse.SUPPRESS) or action.required:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Refuses what is wrong in one line, as all other requests are, instead of with its usage."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        for name in sys.argv[1:]:
            if name.startswith("-") and Path(name).exists():
                message += f"; a file whose name begins with - is named ./{name}"
        raise RequestError(f"{message} (see --help)")


def run(name: str, main: Callable[[], int]) -> None:
    """Call a command's `main` and end the process with its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):  # not ignored
            signal.signal(number, _interrupt)
    try:
        status = main()
        sys.stdout.flush()
    except RequestError as error:
        console.print(f"{name}: error: {error}", style="red", markup=False)
        status = 2
    except KeyboardInterrupt:
        console.print(f"{name}: stopped by {stopped_by()}", markup=False)
        status = 130
    except BrokenPipeError:  # the reader of our output went away, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:  # a full disk, a folder that is a file, no permission
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        console.print(f"{name}: error: {where}{error.strerror}", style="red", markup=False)
        status = 1
    sys.exit(status)


def _interrupt(number: int, _: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) == _interrupt:
            signal.signal(each, _end_at_once)
    _stopped_by.append(number)
    raise KeyboardInterrupt


_stopped_by: list[int] = []  # not in the exception, in whose place Ray may raise one of its own


def stopped_by() -> str:
    """What raised the KeyboardInterrupt: "Ctrl-C" or "SIGTERM"."""
    return "SIGTERM" if signal.SIGTERM in _stopped_by else "Ctrl-C"


def _end_at_once(*_: object) -> None:
    # no clean-up of any kind, but what a terminal should not be left with: a hidden cursor
    os.write(sys.stderr.fileno(), b"\x1b[?25h\n" if sys.stderr.isatty() else b"")
    os._exit(130)


def count_of(number: int, noun: str) -> str:
    """1 epoch, 2 epochs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_json(content: Any) -> None:
    """Print one line of JSON on standard output; NaN and infinity become null."""
    print(json.dumps(_finite(content), ensure_ascii=False), flush=True)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and content - content != 0:
        return None
    return content


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, but it is {text!r}") from None


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, but it is {number}")
    return number


def port(text: str) -> int:
    """An argparse type: where a server listens, 1 to 65535."""
    number = positive_int(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"must be at most 65535, but it is {number}")
    return number


def gibibytes(text: str) -> int:
    """An argparse type: GiB, a fraction too, as bytes."""
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 <= size < 2**30:
        raise argparse.ArgumentTypeError(f"must be a number of GiB, 0 or more, but it is {text!r}")
    return int(size * 2**30)


def seed(text: str) -> int:
    """An argparse type: a seed, 0 to 2**31 - 1."""
    number = _whole(text)
    if not 0 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"must be from 0 to {2**31 - 1}, but it is {number}")
    return number
