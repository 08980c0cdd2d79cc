"""From a folder of music to a tested classifier: the main job.

    mgc-ray search --tracks FOLDER_OR_CSV

Dataset, trials, ensemble and test figure, all under results/NAME; without --tracks on the built-in
corpus. results/NAME/config.toml repeats the search: --config results/NAME/config.toml --name NEW.
"""

import shlex
import sys
from collections.abc import Sequence

from mgc_ray.config import SearchConfig
from mgc_ray.pipeline.request import (
    complete_search,
    read_request,
    reason_for_families,
    search_defaults,
)
from mgc_ray.results import SEARCH, SearchResult
from mgc_ray.settings import as_json, configured_by
from mgc_ray.terminal.command import console, print_json, run, typed
from mgc_ray.terminal.options import parse
from mgc_ray.terminal.process import prepare_process
from mgc_ray.terminal.stopping import on_stop


@configured_by(SearchConfig, search_defaults)
def run_search(config: SearchConfig) -> SearchResult:
    """Search as the command does: `run_search(family="gru", dataset={"tracks": "MUSIC"})`.

    The ensemble is in `result.folder / "ensemble"`. Raises RequestError for what the command
    refuses, and SearchFailedError where no trial gave a model.
    """
    prepare_process()
    request = read_request(complete_search(config), reason_for_families(config))
    from mgc_ray.pipeline.search import search  # imports Ray and PyTorch, which takes seconds

    return search(request, "mgc_ray.run_search")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, search, print the results."""
    description = (
        "Search architectures and hyperparameters, build one ensemble of the best trials and test "
        "it once. Without --tracks: on the built-in corpus, in a few minutes."
    )
    parsed = parse(
        SearchConfig,
        argv,
        "search",
        description,
        json_help="Print search.json on standard output.",
        complete=search_defaults,
    )
    config = complete_search(parsed.config)
    on_stop(lambda: _how_to_continue(config))
    request = read_request(config, reason_for_families(parsed.config))
    from mgc_ray.pipeline.search import SearchFailedError, search
    from mgc_ray.pipeline.summary import print_summary

    typed = sys.argv[1:] if argv is None else argv
    try:
        result = search(request, shlex.join(["python", "-m", "mgc_ray.search", *typed]))
    except SearchFailedError as error:
        console.print(f"mgc-ray search: {error}", style="red")
        return 1
    on_stop(lambda: f"; the search has finished: {result.folder}")
    print_summary(result)
    if parsed.as_json:
        print_json(as_json(result))
    return 0


def _how_to_continue(config: SearchConfig) -> str:
    if not (config.folder / SEARCH).exists():
        return "; nothing was made yet: start it by the same command"
    results = "" if config.results == "results" else f" --results {shlex.quote(config.results)}"
    return (
        f"; what is finished is kept. Continue with:\n  {typed('search')} --resume "
        f"{shlex.quote(config.name)}{results}"
    )


if __name__ == "__main__":
    run("mgc-ray search", main)
