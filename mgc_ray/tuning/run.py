"""Run the trials of a search: Ray Tune, with Optuna's TPE suggesting and ASHA stopping."""

import math
import tempfile
from collections.abc import Sequence
from typing import Any

from ray import tune

from mgc_ray import RequestError
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.storage import Exchange
from mgc_ray.training.config import full_params, given_settings
from mgc_ray.tuning.cluster import check_shared
from mgc_ray.tuning.display import Display
from mgc_ray.tuning.failures import EndLate, RetryAlone
from mgc_ray.tuning.records import JOURNAL, TrialRecord, read_records, write_leaderboard
from mgc_ray.tuning.scheduler import AshaByFamily
from mgc_ray.tuning.searcher import Earlier, OptunaSearcher
from mgc_ray.tuning.settings import TuneSettings
from mgc_ray.tuning.space import load_space, parameter_types, with_fixed, with_groups
from mgc_ray.tuning.tensorboard import TensorBoardWriter
from mgc_ray.tuning.trainable import STATE, run_trial, send_initial
from mgc_ray.tuning.trial_log import TrialLog


def run_trials(
    search: Exchange,
    families: Sequence[str],
    chunks: ChunkTable,
    settings: TuneSettings,
    resources: dict[str, float],
    warm_start: Sequence[Earlier] = (),
    initial: dict[str, Any] | None = None,
) -> list[TrialRecord]:
    """Run (or go on with) a search in its folder; the records of all its trials.

    `initial`: settings of the family `transfer` that say where it starts (training/initial.py).
    Writes study.journal, leaderboard.csv, trials/ and tensorboard/ there. Must be called inside
    `connected`, whose cluster's resources are given. KeyboardInterrupt passes through.
    """
    groups = list(chunks.info.features.groups)
    spaces = {
        family: with_fixed(
            with_groups(load_space(family), groups), given_settings(family, settings.fixed)
        )
        for family in families
    }
    cpus, gpus, concurrent = share_resources(settings, resources)
    trials = search.folder / "trials"
    trials.mkdir(parents=True, exist_ok=True)
    earlier = read_records(trials)
    for record in earlier:  # where the driver died between a record and what follows it
        search.delete(f"trials/{record.trial}/{STATE}")
    searcher = OptunaSearcher(search.folder / JOURNAL, spaces, settings.seed, warm_start, earlier)
    remaining = settings.trials - len(earlier)
    if remaining <= 0:
        return earlier
    check_shared(search)
    send_initial(initial or {}, search)
    chunks.band_statistics  # noqa: B018  computed once here instead of once a trial
    defaults = {family: full_params(family, {}) for family in families}
    with (
        Display(settings.trials, earlier, defaults, settings.time_limit) as display,
        tempfile.TemporaryDirectory(prefix="mgc_ray_tune_") as tune_folder,
    ):
        types: dict[str, type] = {}
        for suggest in spaces.values():
            types |= parameter_types(suggest)
        writer = TensorBoardWriter(search.folder, types, defaults, chunks.info.genres, earlier)
        trainable = tune.with_parameters(
            run_trial,
            chunks=chunks,
            fixed={family: fixed_params(family, settings, initial) for family in families},
            search=search,
            threads=max(1, int(cpus)),
        )
        log = TrialLog(search, settings.keep, earlier, [searcher, writer, display])
        callbacks = [log, RetryAlone()]
        if settings.trial_timeout:
            callbacks.append(EndLate(settings.trial_timeout, log))
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": cpus, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=AshaByFamily(
                    settings.max_epochs,
                    settings.grace_period,
                    settings.reduction_factor,
                    earlier,
                ),
                num_samples=remaining,
                max_concurrent_trials=concurrent,
                reuse_actors=True,  # 0.2 s from trial to trial instead of 1.5 s
                time_budget_s=settings.time_limit,
                trial_name_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                # Tune's own files are of no use beside ours, and full of pickles
                storage_path=tune_folder,
                name="tune",
                callbacks=callbacks,
                verbose=0,
                # of processes and nodes, and of trials that ran out of a shared GPU's memory
                failure_config=tune.FailureConfig(max_failures=3),
            ),
        )
        try:
            tuner.fit()
        except Exception as error:  # Tune's own, in whatever it wraps what a callback raised
            failure = log.failure or error.__cause__
            if isinstance(failure, OSError):
                raise failure from None
            raise
        log.end_running()
    records = list(log.records.values())
    write_leaderboard(search.folder / "leaderboard.csv", records)
    return records


def fixed_params(
    family: str, settings: TuneSettings, initial: dict[str, Any] | None
) -> dict[str, Any]:
    """What all trials of a family have in common."""
    start = initial if family == "transfer" and initial else {}
    return {"max_epochs": settings.max_epochs, "seed": settings.seed} | start


def share_resources(
    settings: TuneSettings, resources: dict[str, float]
) -> tuple[float, float, int]:
    """CPUs and GPUs a trial, and how many trials at once.

    Raises RequestError for more than the cluster has.
    """
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    gpus_per_trial = settings.gpus_per_trial
    if gpus_per_trial is None:
        gpus_per_trial = 1.0 if gpus >= 1 else 0.0
    if gpus_per_trial > gpus:
        raise RequestError(
            f"--gpus-per-trial must be at most the cluster's GPUs ({gpus:g}), but it is "
            f"{gpus_per_trial:g}: leave it out, or name a cluster that has them with --address"
        )
    if gpus_per_trial > 0:
        possible = int(min(math.floor(gpus / gpus_per_trial), cpus))
        concurrent = min(settings.concurrent or possible, possible)
        return 1.0, gpus_per_trial, concurrent
    concurrent = settings.concurrent or int(cpus)
    if concurrent > cpus:
        raise RequestError(
            f"--concurrent must be at most the cluster's CPUs ({cpus:g}), as each trial takes one "
            f"at least, but it is {concurrent}"
        )
    return float(max(1, int(cpus // concurrent))), 0.0, concurrent
