"""The documentation as a site: `make site`.

Its sources are the Markdown files as they are on the project's page: docs/ and the pages elsewhere
that it links to. The table of contents is the list of links in docs/README.md, and in a few pages
below it, see INDEXES. A page that none of them lists, or a link that leads nowhere, is an error.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = {"docs", "cluster", "results"}  # folders with pages
INDEXES = {  # pages with others below them: those that their links with this beginning lead to
    "docs/README": "",
    "docs/commands": "commands/",
    "docs/clusters": "../cluster/",
    "docs/trust": "../SECURITY",
    "docs/benchmarks": "../results/",
}

project = "mgc_ray"
copyright = "the authors of mgc_ray, Apache-2.0"
(release,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "mgc_ray/__init__.py").read_text(), re.M)

extensions = ["myst_parser"]
root_doc = "docs/README"
include_patterns = ["*.md", "docs/**.md", "cluster/*.md", "results/*.md", "results/gtzan/*.md"]
exclude_patterns = [  # which are not even looked into: environments, caches, searches
    *(path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in PAGES),
    *(f"results/{path.name}" for path in ROOT.glob("results/*/") if path.name != "gtzan"),
]
myst_heading_anchors = 3  # levels of headings that links lead to
highlight_language = "text"  # of code without a language: mostly command lines

html_theme = "furo"
html_title = f"mgc_ray {release}"
html_copy_source = False


def add_table_of_contents(app: Any, docname: str, source: list[str]) -> None:
    """Append the pages that an index links to, in its order, as the site's navigation."""
    if docname in INDEXES:
        links = dict.fromkeys(re.findall(r"\]\(([^)#:]+)\.md\)", source[0]))
        pages = [link for link in links if link.startswith(INDEXES[docname])]
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", "", *pages, "```", ""])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_table_of_contents)
