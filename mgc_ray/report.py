"""One page about one or several searches: figures, plots, what went wrong, how to repeat it.

    mgc-ray report gru-001

The page needs no network and no other file. It also shows a search that is still running.
"""

from collections.abc import Sequence

from mgc_ray.config import ReportConfig
from mgc_ray.data.files import check_output_file
from mgc_ray.results import REPORT, load_search
from mgc_ray.terminal.command import console, run
from mgc_ray.terminal.options import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, write the page, print where it is."""
    description = "Write one self-contained HTML page about one or several searches."
    config = parse(ReportConfig, argv, "report", description).config
    if config.out:
        check_output_file("--out", config.out, ".html")
    searches = [load_search(search) for search in config.searches]
    out = config.out or searches[0].folder / REPORT
    from mgc_ray.reporting.page import write_report

    for note in write_report(searches, out):
        console.print(note, style="yellow")
    console.print(f"report: {out}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run("mgc-ray report", main)
