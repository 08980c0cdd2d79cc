"""Write docs/commands: one page per command, from its docstring and its `--help`.

PYTHONPATH=. python tests/make_docs.py
"""

import contextlib
import importlib
import io
import re
from pathlib import Path

from mgc_ray.terminal.main import commands

PAGES = Path(__file__).parents[1] / "docs" / "commands"


def page(name: str) -> str:
    """A command's page, from the module's docstring and the text that `--help` prints."""
    module = importlib.import_module(f"mgc_ray.{name}")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        module.main(["--help"])
    title, _, rest = module.__doc__.strip().partition("\n")
    rest = re.sub(r"^(?=mgc-ray )", "    ", rest, flags=re.MULTILINE)  # code in Markdown
    return "\n".join(
        [
            f"# {name}",
            "",
            "Written by `PYTHONPATH=. python tests/make_docs.py` from the command's own help.",
            "",
            title,
            rest.rstrip(),
            "",
            "```",
            printed.getvalue().rstrip(),
            "```",
            "",
        ]
    )


def main() -> None:
    """Write the pages of all commands, and delete those of former ones."""
    PAGES.mkdir(parents=True, exist_ok=True)
    pages = {f"{name}.md": page(name) for name in commands()}
    for path in PAGES.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (PAGES / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
