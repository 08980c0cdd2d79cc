"""How a command starts and ends, the same for all of them.

Standard output carries results (`--json`: one line of JSON), standard error all that is meant for a
person. Exit status: 0 done, 1 failed or partly done, 2 the request was refused, 130 stopped by a
signal (see stopping.py).
"""

import codecs
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from mgc_ray import RequestError
from mgc_ray.data.names import as_text, for_terminal, one_line
from mgc_ray.terminal.process import prepare_process
from mgc_ray.terminal.stopping import STATUS, end_if_stopped, obey_signals, on_stop, stop_message

# that JSON need not escape, and a terminal may obey
_CONTROL = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class _Console(Console):
    """Shows all text as it is: a name of a file or genre is no markup and controls no terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(for_terminal(text), **options)


# A terminal gets lines broken between words, a file or pipe gets each message as one line. What is
# to be copied (commands, paths) is printed with soft_wrap=True.
console = _Console(
    stderr=True,
    highlight=False,
    markup=False,
    emoji=False,
    soft_wrap=not sys.stderr.isatty(),
    width=None if sys.stderr.isatty() or "COLUMNS" in os.environ else 100,  # of tables in a file
)


def run(name: str, main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Call a command's `main` and end the process with its exit status."""
    obey_signals(name)
    status = status_of(name, main)
    end_if_stopped(status)
    sys.exit(status)


def status_of(
    name: str,
    main: Callable[[Sequence[str] | None], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Call a command's `main`; its exit status, with a line on standard error for a failure."""
    prepare_process()
    on_stop(None)
    try:
        status = main(argv)
        sys.stdout.flush()
    except RequestError as error:
        console.print(one_line(f"{name}: error: {error}"), style="red")
        status = 2
    except KeyboardInterrupt:
        print_stop(name)
        status = STATUS
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


def typed(name: str) -> str:
    """How a command is typed here: `mgc-ray NAME`, also where its environment is not active."""
    folder = Path(sys.executable).parent
    script = folder / "mgc-ray"
    found = shutil.which("mgc-ray")
    if found and Path(found) == script:
        return f"mgc-ray {name}"
    if script.exists() and folder.is_relative_to(Path.cwd()):
        return f"{script.relative_to(Path.cwd())} {name}"
    return f"python -m mgc_ray.{name}"


def print_stop(name: str) -> None:
    """Print how the command `name` was stopped, and how to continue."""
    with suppress(OSError):  # of a terminal that was closed
        start = "\n" if console.is_terminal else ""  # behind the ^C that a terminal shows
        console.print(start + stop_message(name), soft_wrap=True)


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
    text = json.dumps(_plain(content), ensure_ascii=not takes_all)
    print(_CONTROL.sub(lambda one: f"\\u{ord(one[0]):04x}", text), flush=True)


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
