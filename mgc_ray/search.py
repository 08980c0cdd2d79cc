"""From a folder of music to a tested classifier: the main job.

    python -m mgc_ray.search --family gru --tracks FOLDER_OR_CSV

Dataset, trials, ensemble and test figure, all under results/NAME; without --tracks on the built-in
corpus. `search()` is the same as a function call.
"""

import dataclasses
import platform
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mgc_ray import RequestError, __version__
from mgc_ray.data.chunks import ChunkTable, StreamedChunks, open_chunks
from mgc_ray.data.corpus import write_corpus
from mgc_ray.data.dataset import DatasetInfo, read_info, read_track_rows
from mgc_ray.data.files import LOCK, delete_half_written, only_one, read_json, write_json
from mgc_ray.data.options import STORAGE_HELP, add_dataset_options, dataset_request
from mgc_ray.data.request import (
    DatasetRequest,
    check_request,
    read_more,
    read_table,
    request_from_json,
)
from mgc_ray.data.split import draw_folds
from mgc_ray.data.storage import Exchange, Storage
from mgc_ray.ensembling.figures import also_trained_on, in_words
from mgc_ray.ensembling.gather import candidates_of, gather, gather_refitted
from mgc_ray.models import families, family_module
from mgc_ray.preprocess import dataset_key, preprocess
from mgc_ray.terminal.command import Parser, console, gibibytes, positive_int, print_json, run, seed
from mgc_ray.terminal.progress import progress
from mgc_ray.training.config import check_given, full_params
from mgc_ray.training.initial import check_features, initial_params
from mgc_ray.training.loop import METRIC
from mgc_ray.tuning.cluster import connected
from mgc_ray.tuning.display import best_table, clock, settings_in_words
from mgc_ray.tuning.records import FAILED, TrialRecord, ranked, read_records
from mgc_ray.tuning.refit import refit
from mgc_ray.tuning.run import TuneSettings, run_trials, share_resources
from mgc_ray.tuning.searcher import JOURNAL, Earlier
from mgc_ray.tuning.trainable import STATE

BUILT_IN = "built-in corpus"
# The defaults where no music is named: the whole road within five minutes on two cores.
BUILT_IN_TRACKS, BUILT_IN_SECONDS = 30, 6.0  # a genre; of two chunks each
BUILT_IN_SETTINGS = {"trials": 8, "max_epochs": 9, "time_limit": 180.0}
SMOKE_SETTINGS = {"trials": 2, "max_epochs": 2, "grace_period": 1}
_SHARED_FOLDERS = ("datasets", "corpora")  # beside the searches in the results folder


@dataclass(frozen=True)
class SearchRequest:
    """What a search is asked to do; the same request gives the same search."""

    families: tuple[str, ...]
    name: str
    results: str
    dataset: DatasetRequest  # tracks "": the built-in corpus
    top_k: int = 5
    smoke: bool = False
    warm_start: tuple[str, ...] = ()  # names of earlier searches
    init_from: str | None = None  # weights that the family transfer starts from
    refit_folds: int | None = None  # None: members are the trials themselves
    storage: str | None = None  # by which nodes exchange files that share no path
    memory: int | None = None  # bytes that spectrograms may take; more are streamed from disk
    settings: TuneSettings = field(default_factory=TuneSettings)

    @property
    def folder(self) -> Path:
        return Path(self.results) / self.name

    @property
    def exchange(self) -> Exchange:
        """The search's folder, as the nodes of a cluster reach it."""
        storage = Storage(self.storage) if self.storage else None
        return Exchange(self.folder, storage, self.name)


def search(request: SearchRequest, address: str | None = None) -> dict[str, Any]:
    """Run a search, or go on with an interrupted one; the content of its search.json.

    Raises RequestError before any work for what cannot be done. KeyboardInterrupt passes through;
    the same request then goes on where it stopped.
    """
    started = time.monotonic()
    for family in request.families:
        family_module(family)
    check_given(request.families, request.settings.fixed)
    initial = _initial(request)
    _check_dataset(request.dataset)  # before Ray starts: a wrong name should not take seconds
    for name in request.warm_start:
        candidates_of(Path(request.results) / name)  # refuses a name that is no search
    folder, exchange = request.folder, request.exchange
    resumed = (folder / "search.json").exists()
    content: dict[str, Any] = {
        "name": request.name,
        "finished": False,
        "resumed": resumed,
        "request": dataclasses.asdict(request),
        "dataset": None,
        "tracks": request.dataset.tracks or BUILT_IN,
        "metric": METRIC,
        "versions": _versions(),
        "commit": _commit(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder, partial(_refuse_second, folder)):
        delete_half_written(folder)
        try:
            records = _run(request, address, content, initial, exchange)
        except RequestError:
            if not resumed and not (folder / "trials").exists():
                shutil.rmtree(folder)  # nothing has come of it, and its name is free again
            raise
        content["trials"] = dict(Counter(record.status for record in records))
        content["epochs"] = sum(record.epochs for record in records)
        if not any(_usable(record) for record in records):
            reasons = [record.reason for record in records if record.reason]
            write_json(folder / "search.json", content | {"failure": reasons[:1]})
            raise SearchFailedError(
                f"all {len(records)} trials failed; the first: {reasons[0]}; all reasons are in "
                f"{folder / 'trials'}"
                if reasons
                else f"no trial came to the end of its first epoch within the time limit of "
                f"{request.settings.time_limit:g} s: give more by --time-limit"
            )
        best = ranked(records)[0]
        dataset = Path(content["dataset"])
        if request.refit_folds:
            ensemble = gather_refitted(dataset, [folder / "refit"], folder / "ensemble")
        else:
            _, candidates = candidates_of(folder)
            ensemble = gather(dataset, candidates, folder / "ensemble", request.top_k)
        content |= {
            "best_trial": {"trial": best.trial, "params": best.params, **best.best},
            "ensemble": ensemble,
            "seconds": round(time.monotonic() - started, 1),  # of this run, where resumed
            "finished": True,
        }
        write_json(folder / "search.json", content)
        for name in ("leaderboard.csv", JOURNAL, "ensemble", "search.json"):
            exchange.send(name)
    return content


def _run(
    request: SearchRequest,
    address: str | None,
    content: dict[str, Any],
    initial: dict[str, Any] | None,
    exchange: Exchange,
) -> list[TrialRecord]:
    """All that needs Ray: the dataset, the trials, their refit. Adds to `content`, writes it."""
    folder = request.folder
    with connected(address) as resources:
        share_resources(request.settings, resources)  # refuses before work starts
        # now, so that a search that is killed while its dataset is made can be gone on with
        write_json(folder / "search.json", content)
        exchange.send("search.json")
        dataset = _dataset(request, exchange.storage)
        info = read_info(dataset)
        content |= {
            "dataset": str(dataset),
            "protocol": info.protocol,
            "fold": info.fold,
            "leaky": info.leaky,
        }
        write_json(folder / "search.json", content)
        exchange.send("search.json")
        chunks = open_chunks(dataset, ("train", "valid"), request.memory, exchange.storage)
        if isinstance(chunks, StreamedChunks):
            console.print(f"{chunks.nbytes / 2**30:.1f} GiB of spectrograms are streamed from disk")
        console.print(
            f"searching {', '.join(request.families)}: {request.settings.trials} trials of at "
            f"most {request.settings.max_epochs} epochs on {_parts(chunks)} chunks, "
            f"protocol {info.protocol_in_words}{' (leaky)' if info.leaky else ''}",
            markup=False,
        )
        if content["resumed"]:
            _tell_resumed(folder)
        check_features(initial or {}, info.features)
        earlier = _earlier(request, info)
        if request.refit_folds:
            _check_refit(info, chunks, request.refit_folds)
        records = run_trials(
            exchange, request.families, chunks, request.settings, resources, earlier, initial
        )
        if request.refit_folds and any(_usable(record) for record in records):
            refit(
                exchange,
                records,
                chunks,
                request.settings,
                resources,
                request.refit_folds,
                request.top_k,
                initial,
            )
    return records


def _refuse_second(folder: Path, holder: str) -> None:
    raise RequestError(
        f"{folder} is being searched by {holder}: wait for it, stop it, or take another --name"
    )


def _tell_resumed(folder: Path) -> None:
    ended = len(read_records(folder / "trials"))
    running = len(list(folder.glob(f"trials/*/{STATE}")))
    console.print(
        f"going on: {ended} trials have ended, {running} go on from their last epoch", markup=False
    )


def _usable(record: TrialRecord) -> bool:
    return bool(record.best) and record.status != FAILED


def _initial(request: SearchRequest) -> dict[str, Any] | None:
    """Where the family `transfer` starts; RequestError where it is not told, or nobody asks."""
    if ("transfer" in request.families) != bool(request.init_from):
        raise RequestError(
            "--init-from DIR and --family transfer need one another: the weights to start from are "
            "a checkpoint or ensemble of this program, what mgc_ray.pretrain wrote, or an Audio "
            "Spectrogram Transformer of Hugging Face"
        )
    return initial_params(request.init_from) if request.init_from else None


def _check_refit(info: DatasetInfo, chunks: ChunkTable, folds: int) -> None:
    """Refuse before any trial runs what could not be refitted after all of them."""
    if info.leaky:
        raise RequestError(
            f"--refit-folds needs a protocol that parts whole tracks, but {info.protocol} does "
            "not: leave it out"
        )
    draw_folds(chunks.tracks, folds, info.seed)


def _earlier(request: SearchRequest, info: DatasetInfo) -> list[Earlier]:
    """The searches to start from."""
    earlier = []
    for name in request.warm_start:
        folder = Path(request.results) / name
        dataset, _ = candidates_of(folder)
        same = read_info(dataset).settings == info.settings
        earlier.append(Earlier(name, folder / "study.journal", same))
        console.print(
            f"starting from {name}: "
            + ("its outcomes are known" if same else "another dataset, its best settings first"),
            markup=False,
        )
    return earlier


class SearchFailedError(Exception):
    """No trial gave anything; the message has the reason."""


def _check_dataset(request: DatasetRequest) -> None:
    """Refuse what no dataset can be made of, and one that would have no genres to learn."""
    if not request.labelled:
        raise RequestError(
            "a search needs genres to learn, but --protocol unlabelled reads none: take another "
            "protocol, or make a dataset for pre-training by mgc_ray.preprocess"
        )
    if request.tracks:
        read_more(request, read_table(request))
    else:
        check_request(request)


def _dataset(request: SearchRequest, storage: Storage | None) -> Path:
    """The folder of the request's dataset, made or completed."""
    results = Path(request.results)
    named = request.dataset.tracks
    tracks = Path(named) if named else _built_in_corpus(results, request.smoke)
    asked = dataclasses.replace(request.dataset, tracks=str(tracks))
    name = tracks.parent.name if tracks.name == "tracks.csv" else tracks.stem
    folder = results / "datasets" / f"{name}-{dataset_key(asked)}"
    preprocess(asked, folder, storage=storage)
    return folder


def _built_in_corpus(results: Path, smoke: bool) -> Path:
    """The corpus's track table, written on first use."""
    tracks, seconds = (9, 3.0) if smoke else (BUILT_IN_TRACKS, BUILT_IN_SECONDS)
    folder = results / "corpora" / f"built-in-{tracks}x{seconds:g}s"
    with progress(f"writing the {BUILT_IN}", 10 * tracks, "tracks") as advance:
        return write_corpus(
            folder, tracks, seconds=seconds, progress=lambda done, total: advance(done)
        )


def _parts(chunks: ChunkTable) -> str:
    count = Counter(chunks.split.tolist())
    added = sum(chunks.tracks[track].is_added for track in chunks.track)
    among = f" ({added} of them added)" if added else ""
    return f"{count['train']} train{among} + {count['valid']} valid"


def _versions() -> dict[str, str]:
    names = ("torch", "ray", "optuna", "numpy", "pyarrow")
    return {
        "mgc_ray": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def _commit() -> str | None:
    """The commit of this program's checkout, with a + where files differ; None elsewhere."""
    here = Path(__file__).parent
    try:
        describe = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"]
        tracked = ["git", "-C", str(here), "ls-files", "--error-unmatch", "search.py"]
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
        return subprocess.run(
            describe, capture_output=True, check=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


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
    add("--results", default="results", metavar="DIR", help="where searches are written")
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
        return _resumed(results, args.resume), args.address, args.json
    if not args.family:
        parser.error("--family is needed, e.g. --family gru (or --resume NAME)")
    chosen = list(dict.fromkeys(args.family))
    if chosen == ["all"]:
        chosen = [name for name in families() if name != "transfer" or args.init_from]
    for family in chosen:
        family_module(family)
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


def _resumed(results: Path, name: str) -> SearchRequest:
    """The request of an earlier search, which must not have ended."""
    content = read_json(
        results / name / "search.json", "search", "see the folders in --results for the names"
    )
    if content.get("finished"):
        raise RequestError(f"{results / name} has ended already: nothing is left to go on with")
    try:
        request = content["request"]
        return SearchRequest(
            **request
            | {
                "families": tuple(request["families"]),
                "dataset": request_from_json(request["dataset"]),
                "warm_start": tuple(request["warm_start"]),
                "settings": TuneSettings(
                    **request["settings"] | {"fixed": tuple(request["settings"]["fixed"])}
                ),
                "results": str(results),
            }
        )
    except (KeyError, TypeError) as error:
        raise RequestError(
            f"{results / name} was written by another version of this program ({error}): start "
            "the search anew under another --name"
        ) from None


def _print_ending(content: dict[str, Any], request: SearchRequest) -> None:
    """Leaderboard, figures, where all lies, and what to do next."""
    folder = request.folder
    records = read_records(folder / "trials")
    defaults = {family: full_params(family, {}) for family in request.families}
    shown = [record for record in ranked(records) if record.best][:10]
    console.print(f"\nLeaderboard ({folder / 'leaderboard.csv'}):", markup=False)
    console.print(best_table(shown, lambda r: settings_in_words(r.params, defaults[r.family])))
    counts = ", ".join(f"{n} {s.replace('_', ' ')}" for s, n in sorted(content["trials"].items()))
    console.print(
        f"{len(records)} trials ({counts}), {content['epochs']} epochs, "
        f"{clock(content['seconds'])} {'in this last run' if content['resumed'] else 'in all'}",
        markup=False,
    )
    for record in records:
        if record.status == FAILED:
            console.print(f"  {record.trial} failed: {record.reason}", markup=False)
    ensemble = content["ensemble"]
    fold = f", fold {content['fold']}" if content["fold"] else ""
    protocol = f"protocol {content['protocol']}{fold}{', LEAKY' if content['leaky'] else ''}"
    members = ", ".join(f"{m['name']} ({m['weight']:.2f})" for m in ensemble["members"])
    console.print(f"\nEnsemble of {members}", markup=False)
    if also := also_trained_on(ensemble):
        console.print(f"its weights were also trained on {also}", markup=False)
    console.print(
        f"{ensemble['selected_on'].replace('_', ' ')} ({protocol}; selected on it, so too high): "
        f"{in_words(ensemble['validation'])}",
        markup=False,
    )
    if ensemble["test"]:
        console.print(
            f"TEST ({protocol}): {in_words(ensemble['test'])}", markup=False, style="bold"
        )
    else:
        console.print(
            "no test figure: this dataset has no test tracks, so the validation figure is all",
            markup=False,
        )
    example = _example(Path(content["dataset"]))
    again = (
        ""
        if request.dataset.tracks
        else (
            f"\n  python -m mgc_ray.search --family {' '.join(request.families)} "
            "--tracks YOUR_FOLDER    # a subfolder a genre"
        )
    )
    console.print(
        f"\nAll of it lies in {folder}. Next:\n"
        f"  tensorboard --logdir {folder / 'trials'}\n"
        f"  python -m mgc_ray.predict --model {folder / 'ensemble'} {example}{again}",
        soft_wrap=True,
        markup=False,
    )


def _example(dataset: Path) -> str:
    """A track to try prediction with: of the test part where there is one."""
    tracks = read_track_rows(dataset)[0]
    tracks.sort(key=lambda track: (track.split != "test", track.is_added))
    path = Path(tracks[0].path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def main() -> int:
    """Parse the command line, search, print what came out."""
    request, address, as_json = parse_request()
    if not request.dataset.tracks:
        console.print(
            f"No --tracks given: searching on the {BUILT_IN}, which the program synthesises; its "
            "figures say nothing of real music.",
            markup=False,
        )
    try:
        content = search(request, address)
    except KeyboardInterrupt:
        console.print(
            f"\nstopped by Ctrl-C; what is finished is kept. Go on with:\n  python -m "
            f"mgc_ray.search --resume {request.name} --results {request.results}",
            soft_wrap=True,
            markup=False,
        )
        return 130
    except SearchFailedError as error:
        console.print(f"mgc_ray.search: {error}", style="red", markup=False)
        return 1
    _print_ending(content, request)
    if as_json:
        print_json(content)
    return 0


if __name__ == "__main__":
    run("mgc_ray.search", main)
