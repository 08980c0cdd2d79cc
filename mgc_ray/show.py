"""A search on the terminal, finished or not; or all settings and epochs of some of its trials.

    mgc-ray show gru-001
    mgc-ray show gru-001 gru-0002

The search is given by its name, where it is in the folder results, or by its folder; a trial also
by its own folder, results/gru-001/trials/gru-0002.
"""

from collections.abc import Sequence
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.config import ShowConfig
from mgc_ray.results import load_search
from mgc_ray.settings import as_json, nearest
from mgc_ray.terminal.command import print_json, run
from mgc_ray.terminal.options import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, print the search or its trials."""
    parsed = parse(
        ShowConfig,
        argv,
        "show",
        "Show a search, finished or not, or all settings and epochs of some of its trials.",
        json_help="Print search.json, or a list of the trials, on standard output.",
    )
    config = parsed.config
    result = load_search(config.search)
    names = list(config.trials)
    place = Path(config.search)
    if not names and place.parent.name == "trials":
        names = [place.name]
    records = {record.trial: record for record in result.records}
    for name in names:
        if name not in records:
            raise RequestError(
                f"{result.folder} has no trial {name!r} that has ended{nearest(name, [*records])}: "
                f"its leaderboard has the names"
            )
    from mgc_ray.pipeline.summary import print_summary, print_trial

    for name in names:
        print_trial(records[name], result)
    if not names:
        print_summary(result)
    if parsed.as_json:
        print_json(as_json([records[name] for name in names]) if names else as_json(result))
    return 0


if __name__ == "__main__":
    run("mgc-ray show", main)
