"""From a folder of music to a tested classifier: the main job.

    python -m mgc_ray.search --family gru --tracks FOLDER_OR_CSV

Dataset, trials, ensemble and test figure, all under results/NAME; without --tracks on the built-in
corpus. `mgc_ray.jobs.search.search` is the same as a function call.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgc_ray import RequestError
from mgc_ray.data.files import LOCK
from mgc_ray.data.options import STORAGE_HELP, add_dataset_options, dataset_request
from mgc_ray.data.storage import Storage
from mgc_ray.jobs.request import SearchRequest, resumed_request
from mgc_ray.models import check_family, families
from mgc_ray.terminal.command import (
    Parser,
    console,
    gibibytes,
    positive_int,
    print_json,
    run,
    seed,
    stopped_by,
)
from mgc_ray.tuning.settings import TuneSettings

# The defaults where no music is named: the whole road within five minutes on two cores.
BUILT_IN_SETTINGS = {"trials": 8, "max_epochs": 9, "time_limit": 180.0}
SMOKE_SETTINGS = {"trials": 2, "max_epochs": 2, "grace_period": 1}
RESULTS = "results"
_SHARED_FOLDERS = ("datasets", "corpora")  # beside the searches in the results folder


def _unused_name(results: Path, families: Sequence[str]) -> str:
    """gru-001, or the next number that no folder has."""
    stem = "-".join(families) if len(families) <= 3 else "all"
    taken = {path.name for path in results.iterdir()} if results.is_dir() else set()
    return next(n for i in range(1, 100_000) if (n := f"{stem}-{i:03d}") not in taken)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m mgc_ray.search",
        description="Search architectures and hyperparameters, gather the best trials into one "
        "ensemble and test it once. Without --tracks: on the built-in corpus, in a few minutes.",
    )
    settings = TuneSettings()
    add = parser.add_argument
    add("--family", nargs="+", metavar="NAME", help=f"{', '.join(families())}, several, or all")
    add_dataset_options(parser)
    add("--trials", type=positive_int, help=f"trials in all (default: {settings.trials})")
    add("--max-epochs", type=positive_int, help=f"of a trial (default: {settings.max_epochs})")
    add("--time-limit", type=positive_int, metavar="SECONDS", help="stop the trials after that")
    add(
        "--trial-timeout",
        type=positive_int,
        metavar="SECONDS",
        help="end a trial that takes longer as failed, as one that hangs would hold up the search",
    )
    add("--seed", type=seed, default=0, help="seed of the sampler and of training")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting that all trials of the families with it have; repeatable",
    )
    add("--concurrent", type=positive_int, help="trials at once (default: what there is room for)")
    add("--gpus-per-trial", type=float, help="may be a fraction (default: 1 where there are GPUs)")
    add("--keep", type=positive_int, default=settings.keep, help="trials that keep their weights")
    add("--top-k", type=positive_int, default=5, help="trials that the ensemble is selected from")
    add("--results", default=RESULTS, metavar="DIR", help="where searches are written")
    add("--name", help="folder of this search (default: the family and a number)")
    add("--resume", metavar="NAME", help="go on with an interrupted search")
    add(
        "--warm-start",
        nargs="+",
        default=[],
        metavar="NAME",
        help="earlier searches whose outcomes this one knows; their spaces may be others",
    )
    add(
        "--refit-folds",
        type=positive_int,
        metavar="K",
        help="train the best configurations again on K folds of train + validation, so that no "
        "track is given up (5 is usual)",
    )
    add("--storage", metavar="URI", help=STORAGE_HELP)
    add("--address", help="a Ray cluster, e.g. ray-head:6379 (default: $RAY_ADDRESS, else here)")
    add(
        "--memory",
        type=gibibytes,
        metavar="GIB",
        help="spectrograms that take more are streamed from disk (default: a quarter of memory)",
    )
    add("--smoke", action="store_true", help="the smallest run that goes through everything")
    add("--json", action="store_true", help="print search.json on standard output")
    return parser


def parse_request(argv: Sequence[str] | None = None) -> tuple[SearchRequest, str | None, bool]:
    """The request, Ray's address and whether to print JSON; RequestError for what is wrong."""
    parser = _parser()
    args = parser.parse_args(argv)
    results = Path(args.results)
    if args.resume:
        if args.storage and not (results / args.resume / "search.json").exists():
            Storage(args.storage).get(args.resume, results / args.resume)  # from another machine
        return resumed_request(results, args.resume), args.address, args.json
    if not args.family:
        parser.error("--family is needed, e.g. --family gru (or --resume NAME)")
    chosen = list(dict.fromkeys(args.family))
    if chosen == ["all"]:
        chosen = [name for name in families() if name != "transfer" or args.init_from]
    for family in chosen:
        check_family(family)
    if args.refit_folds == 1:
        raise RequestError("--refit-folds must be 2 or more, as each model leaves one out, not 1")
    if args.gpus_per_trial is not None and args.gpus_per_trial < 0:
        raise RequestError(f"--gpus-per-trial must be 0 or more, but it is {args.gpus_per_trial:g}")
    name = args.name or _unused_name(results, chosen)
    if Path(name).name != name or name in (*_SHARED_FOLDERS, ".", ".."):
        raise RequestError(
            f"--name must be one folder name other than {' and '.join(_SHARED_FOLDERS)}, "
            f"but it is {name!r}"
        )
    if results.exists() and not results.is_dir():
        raise RequestError(f"--results must be a folder, but {results} is a file: name another")
    if _is_taken(results / name):
        raise RequestError(
            f"{results / name} exists already: go on with it by --resume {name}, or take another "
            "--name"
        )
    given = {
        "trials": args.trials,
        "max_epochs": args.max_epochs,
        "time_limit": args.time_limit,
        "trial_timeout": args.trial_timeout,
        "seed": args.seed,
        "concurrent": args.concurrent,
        "gpus_per_trial": args.gpus_per_trial,
        "keep": max(args.keep, args.top_k),
        "fixed": tuple(args.set),
    }
    defaults = SMOKE_SETTINGS if args.smoke else {} if args.tracks else BUILT_IN_SETTINGS
    settings = TuneSettings(**defaults | {k: v for k, v in given.items() if v is not None})
    request = SearchRequest(
        families=tuple(chosen),
        name=name,
        results=str(results),
        dataset=dataset_request(args),
        top_k=args.top_k,
        smoke=args.smoke,
        warm_start=tuple(args.warm_start),
        init_from=str(Path(args.init_from).resolve())
        if args.init_from and Path(args.init_from).exists()
        else args.init_from,
        refit_folds=args.refit_folds,
        storage=args.storage,
        memory=args.memory,
        settings=settings,
    )
    return request, args.address, args.json


def _is_taken(folder: Path) -> bool:
    """Whether there is more than the lock that a search leaves which was killed as it began."""
    if not folder.is_dir():
        return folder.exists()
    return any(path.name != LOCK for path in folder.iterdir())


def run_search(**options: Any) -> dict[str, Any]:
    """Search as the command does; the content of search.json.

    `options` are the command's, with underscores: run_search(tracks="MUSIC", family="gru",
    trials=50), a list where it takes several, True for one without a value. The ensemble lies in
    `Path(results) / name / "ensemble"`. Raises RequestError for what the command refuses, and
    SearchFailedError where no trial gave anything.
    """
    argv = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        values = list(value) if isinstance(value, list | tuple) else [value]
        for each in [[v] for v in values] if name == "set" else [values]:
            argv.append(f"--{name.replace('_', '-')}")
            argv += [] if value is True else map(str, each)
    request, address, _ = parse_request(argv)
    from mgc_ray.jobs.search import search

    call = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return search(request, address, f"mgc_ray.run_search({call})")


def main() -> int:
    """Parse the command line, search, print what came out."""
    request, address, as_json = parse_request()
    # they load Ray and PyTorch, which takes seconds: a wrong flag should not
    from mgc_ray.jobs.ending import print_ending
    from mgc_ray.jobs.search import SearchFailedError, search

    try:
        command = shlex.join(["python", "-m", "mgc_ray.search", *sys.argv[1:]])
        content = search(request, address, command)
    except KeyboardInterrupt:
        where = "" if request.results == RESULTS else f" --results {shlex.quote(request.results)}"
        console.print(
            f"\nstopped by {stopped_by()}; what is finished is kept. Go on with:\n  python -m "
            f"mgc_ray.search --resume {shlex.quote(request.name)}{where}",
            soft_wrap=True,
            markup=False,
        )
        return 130
    except SearchFailedError as error:
        console.print(f"mgc_ray.search: {error}", style="red", markup=False)
        return 1
    print_ending(content, request)
    if as_json:
        print_json(content)
    return 0


if __name__ == "__main__":
    run("mgc_ray.search", main)
