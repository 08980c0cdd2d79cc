"""A search, from the request to the tested ensemble: dataset, trials, refit, ensemble, test.

Each step writes under results/NAME what it has done, so that the search goes on where it stopped.
"""

import dataclasses
import platform
import shutil
import subprocess
import time
from collections import Counter
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mgc_ray import RequestError, __version__
from mgc_ray.data.chunks import ChunkTable, StreamedChunks, open_chunks
from mgc_ray.data.corpus import write_corpus
from mgc_ray.data.dataset import DatasetInfo, read_info
from mgc_ray.data.files import delete_half_written, only_one, read_json, write_json
from mgc_ray.data.request import DatasetRequest, check_request, read_more, read_table
from mgc_ray.data.split import draw_folds
from mgc_ray.data.storage import Exchange, Storage
from mgc_ray.ensembling.gather import candidates_of, gather, gather_refitted
from mgc_ray.jobs.preprocess import dataset_key, preprocess
from mgc_ray.jobs.request import BUILT_IN, SearchRequest
from mgc_ray.models import check_family
from mgc_ray.reporting.page import write_report
from mgc_ray.terminal.command import console, count_of
from mgc_ray.terminal.progress import progress
from mgc_ray.training.config import check_given
from mgc_ray.training.initial import check_features, initial_params
from mgc_ray.training.loop import METRIC
from mgc_ray.tuning.cluster import connected
from mgc_ray.tuning.records import FAILED, JOURNAL, TrialRecord, ranked, read_records
from mgc_ray.tuning.refit import refit
from mgc_ray.tuning.run import run_trials, share_resources
from mgc_ray.tuning.searcher import Earlier
from mgc_ray.tuning.trainable import STATE

REPORT = "report.html"  # in a search's folder
BUILT_IN_TRACKS, BUILT_IN_SECONDS = 30, 6.0  # a genre; of two chunks each


class SearchFailedError(Exception):
    """No trial gave anything; the message has the reason."""


def search(request: SearchRequest, address: str | None = None, command: str = "") -> dict[str, Any]:
    """Run a search, or go on with an interrupted one; the content of its search.json.

    `command`: what was typed, for who wants to make it again.

    Raises RequestError before any work for what cannot be done. KeyboardInterrupt passes through;
    the same request then goes on where it stopped.
    """
    started = time.monotonic()
    for family in request.families:
        check_family(family)
    check_given(request.families, request.settings.fixed)
    initial = _initial(request)
    _check_dataset(request.dataset)  # before Ray starts: a wrong name should not take seconds
    for name in request.warm_start:
        candidates_of(Path(request.results) / name)  # refuses a name that is no search
    folder, exchange = request.folder, request.exchange
    resumed = (folder / "search.json").exists()
    if resumed:
        earlier = read_json(folder / "search.json", "search", "search anew under another --name")
        command = earlier.get("command", "")
    content: dict[str, Any] = {
        "name": request.name,
        "finished": False,
        "resumed": resumed,
        "request": dataclasses.asdict(request),
        "command": command,
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
                f"{folder / 'leaderboard.csv'}: mend the cause and search under another --name"
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
        write_report([folder], folder / REPORT)  # last: all that it tells of is safe by now
        exchange.send(REPORT)
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
    console.print("connecting to Ray" if address else "starting Ray", style="dim")
    with connected(address) as resources:
        # refuses before work starts
        cpus, gpus, concurrent = share_resources(request.settings, resources)
        content["resources"] = {
            "cpus_per_trial": cpus,
            "gpus_per_trial": gpus,
            "concurrent": concurrent,
        }
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
            f"searching {', '.join(request.families)}: "
            f"{count_of(request.settings.trials, 'trial')} of at most "
            f"{count_of(request.settings.max_epochs, 'epoch')} on {_parts(chunks)} chunks, "
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
        f"going on: {count_of(ended, 'trial')} ended before, {running} go on from their last epoch",
        markup=False,
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
    if not named:
        console.print(
            f"No --tracks given: searching on the {BUILT_IN}, which the program synthesises; its "
            "figures say nothing of real music.",
            markup=False,
        )
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
