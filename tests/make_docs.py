"""Write mgc_ray/docs/commands, a page a command, from what the commands say of themselves.

PYTHONPATH=. python tests/make_docs.py
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from mgc_ray.terminal.main import commands

PAGES = Path(__file__).parents[1] / "mgc_ray" / "docs" / "commands"


def page(name: str) -> str:
    """What a command's own help and docstring say."""
    spec = importlib.util.find_spec(f"mgc_ray.{name}")
    assert spec
    assert spec.origin
    code = compile(Path(spec.origin).read_text("utf-8"), spec.origin, "exec")
    first = code.co_consts[0]
    done = subprocess.run(
        [sys.executable, "-m", f"mgc_ray.{name}", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"},
    )
    title, _, rest = str(first).strip().partition("\n")
    return "\n".join(
        [
            f"# {name}",
            "",
            "Made by `PYTHONPATH=. python tests/make_docs.py` from the command itself.",
            "",
            title,
            rest.rstrip(),
            "",
            "```",
            done.stdout.rstrip(),
            "```",
            "",
        ]
    )


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name in commands():
        (PAGES / f"{name}.md").write_text(page(name), "utf-8")


if __name__ == "__main__":
    main()
