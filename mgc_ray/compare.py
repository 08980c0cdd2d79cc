"""Finished searches side by side: figures over seeds and folds, and which differences are real.

    mgc-ray compare results/gru-0 results/gru-1 results/all-0 --out comparison

    DIR/comparison.md       the tables, the differences of all pairs, and how both were computed
    DIR/comparison.csv      one line per row of the tables
    DIR/comparison.json     all of it, with the figures of each seed
    DIR/comparison.parquet  what each model predicted for each track

The last is enough to make all of it again without the searches (`mgc_ray.compare DIR`), and to
continue: `mgc_ray.compare DIR results/gru-2 --out DIR`.

A row is one model - the ensemble, or the best of one family alone - under one protocol, over all
searches that differ only in seeds and folds. Shares are 0..1 in JSON and CSV, % in tables.
"""

from collections.abc import Sequence

from mgc_ray.config import CompareConfig
from mgc_ray.data.files import check_output_folder
from mgc_ray.evaluation.compare import Comparison, compare_searches
from mgc_ray.pipeline.comparison import print_comparison, save_comparison
from mgc_ray.settings import as_json, configured_by
from mgc_ray.terminal.command import console, print_json, run
from mgc_ray.terminal.options import parse


@configured_by(CompareConfig)
def compare(config: CompareConfig) -> Comparison:
    """The comparison of finished searches, saved in `out` where that is given.

    Raises RequestError for what is no finished search, and for searches that do not belong into one
    table.
    """
    if config.out:
        check_output_folder("--out", config.out)
    comparison, models = compare_searches(config.searches)
    if config.out:
        save_comparison(comparison, models, config.out)
    return comparison


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, compare, print and save."""
    parsed = parse(
        CompareConfig,
        argv,
        "compare",
        "A table of the models of finished searches, over seeds and folds, with intervals and "
        "paired differences.",
        json_help="Print comparison.json on standard output.",
    )
    config = parsed.config
    if config.out:
        check_output_folder("--out", config.out)
    comparison, models = compare_searches(config.searches)
    print_comparison(comparison)
    if config.out:
        save_comparison(comparison, models, config.out)
        console.print(f"\nsaved in {config.out}", soft_wrap=True)
    if parsed.as_json:
        print_json(as_json(comparison))
    return 0


if __name__ == "__main__":
    run("mgc-ray compare", main)
