"""Build one ensemble of the best trials of several searches, of any families, and test it once.

mgc-ray ensemble results/cnn-001 results/gru-001 --out results/both
"""

from collections.abc import Sequence

from mgc_ray.config import EnsembleCommandConfig
from mgc_ray.pipeline.checks import check_ensemble, register_files
from mgc_ray.settings import as_json
from mgc_ray.terminal.command import console, print_json, run
from mgc_ray.terminal.options import parse
from mgc_ray.terminal.stopping import on_stop, start_again


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, build, print the figures."""
    parsed = parse(
        EnsembleCommandConfig,
        argv,
        "ensemble",
        "Build one ensemble of the best trials of searches over one dataset.",
        json_help="Print ensemble.json on standard output.",
    )
    config = parsed.config
    register_files(config.family, config.feature_files)
    check_ensemble(config.searches, config.out)
    on_stop(start_again)
    from mgc_ray.pipeline.ensemble import ensemble_of_searches
    from mgc_ray.pipeline.summary import print_ensemble

    info = ensemble_of_searches(config)
    print_ensemble(info)
    console.print(f"saved in {config.out}")
    if parsed.as_json:
        print_json(as_json(info))
    return 0


if __name__ == "__main__":
    run("mgc-ray ensemble", main)
