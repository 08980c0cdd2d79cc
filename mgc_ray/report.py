"""One page of one or several searches: figures, plots, what went wrong, how to make it again.

    python -m mgc_ray.report results/gru-001 --out report.html

The page needs no network and no other file. A search that still runs can be looked at, too.
"""

from pathlib import Path

from mgc_ray.terminal.command import Parser, console, run


def main() -> int:
    """Parse the command line, write the page, say where it is."""
    parser = Parser(
        prog="python -m mgc_ray.report",
        description="Write one self-contained HTML page of one or several searches.",
    )
    parser.add_argument("searches", nargs="+", type=Path, metavar="RESULTS", help="results/NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="e.g. report.html")
    args = parser.parse_args()
    from mgc_ray.reporting.page import write_report

    for note in write_report(args.searches, args.out):
        console.print(note, markup=False, style="yellow")
    console.print(f"report: {args.out}", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    run("mgc_ray.report", main)
