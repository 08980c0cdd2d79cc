"""`mgc-ray NAME ...`: the same as `python -m mgc_ray.NAME ...`."""

import pkgutil
import runpy
import sys

import mgc_ray
from mgc_ray.settings import nearest
from mgc_ray.terminal.command import console

_NOT_COMMANDS = ("__main__", "config", "results", "settings", "task")


def commands() -> list[str]:
    """The names of all commands: the files in the package's own folder."""
    modules = pkgutil.iter_modules(mgc_ray.__path__)
    return sorted(m.name for m in modules if not m.ispkg and m.name not in _NOT_COMMANDS)


def main() -> None:
    """Run the command that the first argument names; never returns."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in commands():
        sys.argv = [f"mgc-ray {name}", *sys.argv[2:]]
        runpy.run_module(f"mgc_ray.{name}", run_name="__main__", alter_sys=True)
        sys.exit(0)
    if name == "--version":
        print(mgc_ray.__version__)
        sys.exit(0)
    if name in ("", "-h", "--help"):
        print("usage: mgc-ray COMMAND ...; each has --help\ncommands: " + ", ".join(commands()))
        sys.exit(0 if name else 2)
    console.print(
        f"mgc-ray: error: the command must be one of {', '.join(commands())}, but it is "
        f"{name!r}{nearest(name, commands())}",
        style="red",
    )
    sys.exit(2)
