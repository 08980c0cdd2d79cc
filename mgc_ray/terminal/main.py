"""`mgc-ray NAME …`: the same as `python -m mgc_ray.NAME …`."""

import pkgutil
import runpy
import sys
from difflib import get_close_matches

import mgc_ray
from mgc_ray.terminal.command import console


def commands() -> list[str]:
    """The names of all commands: the files beside this package's rooms."""
    modules = pkgutil.iter_modules(mgc_ray.__path__)
    return sorted(m.name for m in modules if not m.ispkg and m.name != "__main__")


def main() -> None:
    """Run the command that is named first; never returns."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in commands():
        sys.argv = [f"mgc-ray {name}", *sys.argv[2:]]
        runpy.run_module(f"mgc_ray.{name}", run_name="__main__", alter_sys=True)
        sys.exit(0)
    if name == "--version":
        print(mgc_ray.__version__)
        sys.exit(0)
    if name in ("", "-h", "--help"):
        print("usage: mgc-ray COMMAND …; each has --help\ncommands: " + ", ".join(commands()))
        sys.exit(0 if name else 2)
    near = get_close_matches(name, commands(), 1)
    console.print(
        f"mgc-ray: error: the command must be one of {', '.join(commands())}, not {name!r}"
        f"{f' (nearest: {near[0]})' if near else ''}",
        style="red",
        markup=False,
    )
    sys.exit(2)
