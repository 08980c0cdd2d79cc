"""A search, from the configuration to the tested ensemble: dataset, trials, refit, ensemble, test.

Each step writes under results/NAME what it has done, so that the search continues where it stopped.
"""

import platform
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from mgc_ray import RequestError, __version__
from mgc_ray.config import SearchConfig, memory_bytes
from mgc_ray.data.chunks import ChunkTable, StreamedChunks, open_chunks
from mgc_ray.data.dataset import DatasetInfo, read_info
from mgc_ray.data.features import audio_features, feature_arguments, own_features
from mgc_ray.data.files import MissingFileError, delete_partial_files, exclusive_lock
from mgc_ray.data.own_files import CODE, FAMILIES, FEATURES, write_copies
from mgc_ray.data.split.folds import draw_folds
from mgc_ray.data.storage import Claim, SharedFolder, Storage, next_claim
from mgc_ray.ensembling.build import (
    HeldOut,
    build_ensemble,
    candidates_of,
    out_of_fold,
    test_ensemble,
    validation,
)
from mgc_ray.models import (
    configure,
    family_arguments,
    own_families,
    params_of,
)
from mgc_ray.models._classifier import features_read
from mgc_ray.pipeline.continued import refuse_second
from mgc_ray.pipeline.preprocess import preprocess
from mgc_ray.pipeline.request import SearchRequest
from mgc_ray.pipeline.tables import read_tables
from mgc_ray.reporting.page import write_report
from mgc_ray.results import (
    CONFIG,
    ENSEMBLE,
    JOURNAL,
    LEADERBOARD,
    PREDICTIONS,
    REPORT,
    SEARCH,
    SearchResult,
    TrialRecord,
    load_search,
    ranked,
    write_predictions,
)
from mgc_ray.settings import Params
from mgc_ray.terminal.command import console, count_of, print_warnings
from mgc_ray.terminal.options import write_config
from mgc_ray.terminal.progress import progress
from mgc_ray.training.initial import check_features, initial_params
from mgc_ray.tuning.callbacks import AllTrialsFailError
from mgc_ray.tuning.cluster import Cluster, ray_cluster
from mgc_ray.tuning.recovery import ended_trials
from mgc_ray.tuning.refit import refit
from mgc_ray.tuning.run import run_trials
from mgc_ray.tuning.searcher import WarmStart
from mgc_ray.tuning.space import Suggest, load_space
from mgc_ray.tuning.tracking import Callback, apart
from mgc_ray.tuning.trial import STATE

BUILT_IN = "built-in corpus"
BUILT_IN_TRACKS, BUILT_IN_SECONDS = 60, 6.0  # per genre; of two chunks each
SMOKE_TRACKS, SMOKE_SECONDS = 9, 3.0


class SearchFailedError(Exception):
    """No trial gave a model; the message has the reason."""


@dataclass(frozen=True)
class _Plan:
    """A request with the families' search spaces, and the weights to start from."""

    request: SearchRequest
    spaces: dict[str, Suggest]
    initial: Params | None


def search(request: SearchRequest, command: str = "") -> SearchResult:
    """Run a search, or continue an interrupted one; its results.

    `command`: what was typed, for those who want to repeat it.

    Raises RequestError before any work for what cannot be done, and SearchFailedError where no
    trial gave a model. KeyboardInterrupt passes through; the same search then continues where it
    stopped.
    """
    started = time.monotonic()
    plan = _check(request)
    config, folder, earlier = request.config, request.config.folder, request.earlier
    result = SearchResult(
        name=config.name,
        config=config,
        command=earlier.command if earlier else command,
        tracks=config.dataset.tracks or BUILT_IN,
        versions=_versions(),
        commit=_commit(),
        family_files=tuple(path for path, _ in own_families().values()),
        feature_files=tuple(path for path, _ in _own_features(config).values()),
        why_families=request.why_families,
        resumed=earlier is not None,
        dataset=earlier.dataset if earlier else "",
        split_id=earlier.split_id if earlier else "",
        claims=earlier.claims if earlier else (),
    )
    if result.why_families:
        console.print(result.why_families)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        exclusive_lock(folder, lambda holder: refuse_second(folder, holder)),
        apart(request.callbacks) as callbacks,
    ):
        delete_partial_files(folder)
        storage = Storage(config.cluster.storage) if config.cluster.storage else None
        try:
            result, claim = _claimed(result, storage)
            shared = SharedFolder(folder, storage, config.name, claim)
            _copy_own_files(config, shared)
            result = _save(result, shared)  # so that it can be resumed from its first moment on
            console.print(
                "connecting to Ray" if config.cluster.address else "starting Ray", style="dim"
            )
            with ray_cluster(config.cluster, config.tuning.gpus_per_trial or 0.0) as cluster:
                result, held = _train(result, plan, shared, cluster, callbacks)
        except SearchFailedError:
            _end(load_search(folder), callbacks)
            raise
        except RequestError:
            if not earlier and not (folder / "trials").exists():
                shutil.rmtree(folder)  # nothing has come of it, and its name is free again
            raise
        built = build_ensemble([held], folder / ENSEMBLE)
        ensemble, predictions = test_ensemble(built, config.seed)
        write_predictions(folder / PREDICTIONS, predictions)
        seconds = round(time.monotonic() - started, 1)
        for name in (LEADERBOARD, JOURNAL, ENSEMBLE, PREDICTIONS):
            shared.send(name)
        result = replace(result, ensemble=ensemble, seconds=seconds, finished=True).write()
        shared.send(SEARCH)
        write_report([result], folder / REPORT)  # last: all that it shows is safe by now
        shared.send(REPORT)
        _end(result, callbacks)
    return result


def _end(result: SearchResult, callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        callback.on_search_end(result)


def _check(request: SearchRequest) -> _Plan:
    """Refuse what cannot be done, before Ray starts and before anything is written."""
    config, tables = request.config, request.tables
    features = tables.features if tables else audio_features(config.dataset)
    for family in config.family if not request.dataset else ():
        settings = configure(family, params_of(family, config.train))[1]
        features_read(family, settings, features)
    initial = initial_params(config.init_from) if config.init_from else None
    spaces = {family: load_space(family) for family in config.family}
    return _Plan(request, spaces, initial)


def _train(
    result: SearchResult,
    plan: _Plan,
    shared: SharedFolder,
    cluster: Cluster,
    callbacks: Sequence[Callback],
) -> tuple[SearchResult, HeldOut]:
    """All that needs Ray: the dataset, the trials, their refit."""
    config = plan.request.config
    earlier = ended_trials(shared)
    resources = cluster.share(config.tuning)
    result = _save(replace(result, resources=resources), shared)
    dataset = plan.request.dataset or _dataset(plan.request)
    info = read_info(dataset)
    if result.split_id not in ("", info.split_id):
        raise RequestError(
            f"{config.folder} cannot be resumed: its dataset {result.dataset} is gone, and what is "
            f"made from {result.tracks} now is split otherwise, as the music has changed; its "
            "trials would be tested on tracks that they were trained on. Put the dataset or the "
            "music back, or search under another --name"
        )
    result = replace(
        result,
        dataset=str(dataset),
        split_id=info.split_id,
        protocol=info.protocol,
        fold=info.fold,
        leaky=info.leaky,
    )
    result = _save(result, shared)
    memory = memory_bytes(config.memory)
    chunks = open_chunks(dataset, ("train", "valid"), memory, shared.storage)
    _announce(result, info, chunks, earlier)
    check_features(plan.initial or {}, info.features)
    if config.ensemble.refit_folds:
        _check_refit(info, chunks, config.ensemble.refit_folds)
    warm_start = [_warm_start(one, result, info) for one in plan.request.warm_start]
    for callback in callbacks:
        callback.on_search_start(result)
    try:
        records = run_trials(
            *(shared, config, plan.spaces, chunks, resources),
            *(earlier, warm_start, plan.initial, callbacks),
        )
    except AllTrialsFailError as error:
        failures = f"all trials failed, {error.count} of them alike, so no more are started"
        raise _failed(result, error.reason, failures) from None
    best = next((record for record in ranked(records) if record.usable), None)
    result = replace(result.with_trials(records), best_trial=best)
    if best is None:
        raise _no_model(result, records)
    if config.ensemble.refit_folds:
        refitted = refit(shared, config, records, chunks, resources, plan.initial)
        return result, out_of_fold(dataset, refitted)
    candidates = candidates_of(config.folder, records)
    return result, validation(dataset, candidates, config.ensemble.top_k)


def _own_features(config: SearchConfig) -> dict[str, tuple[str, str]]:
    """Path and source of those of the dataset's features that were given as files."""
    used = {name.partition(":")[0] for name in config.dataset.features}
    return {name: source for name, source in own_features().items() if name in used}


def _copy_own_files(config: SearchConfig, shared: SharedFolder) -> None:
    """Keep the families and features of one's own as they are now, for --resume."""
    for kind, own in ((FAMILIES, own_families()), (FEATURES, _own_features(config))):
        write_copies(shared.folder, kind, {name: source for name, (_, source) in own.items()})
    shared.send(CODE)


def _save(result: SearchResult, shared: SharedFolder) -> SearchResult:
    config = result.config
    dataset = replace(config.dataset, features=feature_arguments(config.dataset.features))
    family = family_arguments(config.family)
    write_config(result.folder / CONFIG, replace(config, family=family, dataset=dataset))
    result.write()
    for name in (CONFIG, SEARCH):
        shared.send(name)
    return result


def _claimed(result: SearchResult, storage: Storage | None) -> tuple[SearchResult, Claim | None]:
    """Take the search's name in the storage; what another driver does with it then ends.

    The claim is noted here first, so that this folder is known to be up to date.
    """
    if storage is None:
        return result, None
    claim = next_claim(storage, result.config.name)
    result = replace(result, claims=(*result.claims, claim.name)).write()
    claim.take(over=result.resumed)
    if len(result.claims) > 1:
        console.print(f"a driver that still runs {claim.key} in {storage.uri} stops", style="dim")
    return result, claim


def _no_model(result: SearchResult, records: Sequence[TrialRecord]) -> SearchFailedError:
    """What ends a search whose trials have all ended without a model."""
    reasons = [record.reason for record in records if record.reason]
    if reasons:
        return _failed(result, reasons[0], f"all {len(records)} trials failed")
    replace(result, failure="").write()
    return SearchFailedError(
        "no trial came to the end of its first epoch within the time limit of "
        f"{result.config.tuning.time_limit:g} s: increase --time-limit"
    )


def _failed(result: SearchResult, reason: str, failures: str) -> SearchFailedError:
    replace(result, failure=reason).write()
    return SearchFailedError(
        f"{failures}; the first: {reason}; all reasons are in {result.folder / LEADERBOARD}: "
        f"{_remedy(reason)} and search under another --name"
    )


def _remedy(reason: str) -> str:
    """What can be done about the reason why a trial failed."""
    known = {
        "process or node died": "give trials more memory (--concurrent 1, or --memory 1 to stream)",
        "out of GPU memory": "make trials smaller (--set batch_size=16)",
        "loss is": "lower the learning rate (--set lr=0.0001)",
        "trial_timeout": "increase tuning.trial_timeout",
    }
    return next((remedy for sign, remedy in known.items() if sign in reason), "remove the cause")


def _announce(
    result: SearchResult, info: DatasetInfo, chunks: ChunkTable, earlier: Sequence[TrialRecord]
) -> None:
    tuning = result.config.tuning
    if isinstance(chunks, StreamedChunks):
        console.print(f"{chunks.nbytes / 2**30:.1f} GiB of features are streamed from disk")
    print_warnings(info.warnings)
    count = Counter(chunks.split.tolist())
    added = sum(chunks.tracks[track].added for track in chunks.track)
    among = f" ({added} of them added)" if added else ""
    console.print(
        f"searching {', '.join(result.config.family)}: {count_of(tuning.trials, 'trial')} of at "
        f"most {count_of(tuning.max_epochs, 'epoch')} on {count['train']} train{among} + "
        f"{count['valid']} valid chunks, protocol {info.protocol_in_words}"
        f"{' (leaky)' if info.leaky else ''}"
    )
    if result.resumed:
        running = len(list(result.folder.glob(f"trials/*/{STATE}")))
        console.print(
            f"resuming: {count_of(len(earlier), 'trial')} ended before, {running} continue from "
            "their last epoch"
        )


def _check_refit(info: DatasetInfo, chunks: ChunkTable, folds: int) -> None:
    """Refuse before any trial runs what could not be refitted after all of them."""
    if info.leaky:
        raise RequestError(
            f"--refit-folds needs a protocol that splits by whole tracks, but {info.protocol} does "
            "not: leave it out"
        )
    draw_folds(chunks.tracks, folds, info.seed)


def _warm_start(earlier: SearchResult, search: SearchResult, info: DatasetInfo) -> WarmStart:
    same_metric = earlier.config.metric == search.config.metric
    try:
        comparable = same_metric and read_info(earlier.dataset_folder).holds_the_same_as(info)
    except MissingFileError:  # features of a file that has changed since, or is not used here
        comparable = False
    other = "dataset" if same_metric else "metric"
    use = "its results are known" if comparable else f"another {other}, its best settings first"
    console.print(f"starting from {earlier.name}: {use}")
    return WarmStart(earlier.name, earlier.folder / JOURNAL, comparable)


def _dataset(request: SearchRequest) -> Path:
    """The folder of the search's dataset, made or completed."""
    config, tables = request.config, request.tables
    results = Path(config.results)
    if tables is None:
        console.print(
            f"No --tracks given: searching on the {BUILT_IN}, which the program synthesises; its "
            "figures say nothing about real music."
        )
        corpus = _built_in_corpus(results, config.smoke)
        tables = read_tables(replace(config.dataset, tracks=str(corpus)))
    source = tables.main.source
    name = source.parent.name if source.name == "tracks.csv" else source.stem
    folder = results / "datasets" / f"{name}-{tables.key}"
    preprocess(tables, folder, config.cluster)
    return folder


def _built_in_corpus(results: Path, smoke: bool) -> Path:
    """The corpus's track table, written on first use."""
    from mgc_ray.corpus.files import write_corpus

    tracks, seconds = BUILT_IN_TRACKS, BUILT_IN_SECONDS
    if smoke:
        tracks, seconds = SMOKE_TRACKS, SMOKE_SECONDS
    folder = results / "corpora" / f"built-in-{tracks}x{seconds:g}s"
    with progress(f"writing the {BUILT_IN}", 10 * tracks, "tracks") as advance:
        return write_corpus(
            folder, tracks, seconds=seconds, progress=lambda done, total: advance(done)
        )


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
