"""How a command starts and ends, the same for all of them.

Standard output carries results (`--json`: one line of JSON), standard error all that is meant for a
person. Exit status: 0 done, 1 failed or partly done, 2 the request was refused, 130 ended by Ctrl-C
or by SIGTERM, which schedulers, containers and `kill` send: what is finished is kept, and the
command says how to continue. A second one ends the process at once, whatever it is doing.
"""

import codecs
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from mgc_ray import RequestError
from mgc_ray.data.names import as_text, for_terminal, one_line
from mgc_ray.terminal.process import prepare_process


class _Console(Console):
    """Shows all text as it is: a name of a file or genre is no markup and controls no terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(for_terminal(text), **options)


# A terminal gets lines broken between words, a file or pipe gets each message as one line. What is
# to be copied (commands, paths) is printed with soft_wrap=True.
console = _Console(
    stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=not sys.stderr.isatty()
)


def run(name: str, main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Call a command's `main` and end the process with its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):  # not ignored
            signal.signal(number, _interrupt)
    sys.exit(status_of(name, main))


def status_of(
    name: str,
    main: Callable[[Sequence[str] | None], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Call a command's `main`; its exit status, with a line on standard error for a failure."""
    prepare_process()
    try:
        status = main(argv)
        sys.stdout.flush()
    except RequestError as error:
        console.print(one_line(f"{name}: error: {error}"), style="red", markup=False)
        status = 2
    except KeyboardInterrupt:
        console.print(f"{name}: stopped by {stopped_by()}", markup=False)
        status = 130
    except BrokenPipeError:  # the reader of the output went away, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:  # a full disk, a folder that is a file, no permission
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        console.print(one_line(f"{name}: error: {where}{error.strerror}"), style="red")
        status = 1
    return status


def _interrupt(number: int, _: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) == _interrupt:
            signal.signal(each, _end_at_once)
    _stopped_by.append(number)
    raise KeyboardInterrupt


_stopped_by: list[int] = []  # not in the exception, as Ray may raise one of its own instead


def stopped_by() -> str:
    """What raised the KeyboardInterrupt: "Ctrl-C" or "SIGTERM"."""
    return "SIGTERM" if signal.SIGTERM in _stopped_by else "Ctrl-C"


def _end_at_once(*_: object) -> None:
    # no clean-up of any kind, except that a terminal must get its cursor back
    os.write(sys.stderr.fileno(), b"\x1b[?25h\n" if sys.stderr.isatty() else b"")
    os._exit(130)


def count_of(number: int, noun: str) -> str:
    """1 epoch, 2 epochs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_warnings(warnings: Sequence[str]) -> None:
    """One line each, which nobody misses."""
    for warning in warnings:
        console.print(one_line(f"WARNING: {warning}"), style="bold yellow")


def print_line(text: str) -> None:
    """Print a result on standard output as one line, whatever is in the names that it has."""
    encoding = sys.stdout.encoding or "utf-8"
    print(one_line(text).encode(encoding, "backslashreplace").decode(encoding), flush=True)


def print_json(content: Any) -> None:
    """Print one line of JSON on standard output.

    NaN and infinity become null, bytes of names that are not UTF-8 become \\xNN.
    """
    takes_all = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    print(json.dumps(_plain(content), ensure_ascii=not takes_all), flush=True)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {_plain(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float) and content - content != 0:
        return None
    if isinstance(content, str | Path):
        return as_text(content)
    return content
