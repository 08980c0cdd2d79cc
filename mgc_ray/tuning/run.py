"""Run the trials of a search: Ray Tune, with Optuna's TPE suggesting and ASHA stopping."""

import tempfile
from collections.abc import Sequence

from ray import tune
from ray.tune.search import ConcurrencyLimiter

from mgc_ray.config import SearchConfig
from mgc_ray.data.chunks import ChunkTable
from mgc_ray.data.storage import SharedFolder
from mgc_ray.models import full_params, own_families, params_of, second_kinds
from mgc_ray.models._classifier import readable
from mgc_ray.results import JOURNAL, LEADERBOARD, TrialRecord, TrialResources, write_leaderboard
from mgc_ray.settings import Params
from mgc_ray.tuning.asha import AshaByFamily
from mgc_ray.tuning.attempts import end_attempts
from mgc_ray.tuning.callbacks import (
    AllTrialsFailError,
    FollowCluster,
    RetryOnWholeGpu,
    TrialLog,
    TrialWatch,
)
from mgc_ray.tuning.cluster import check_shared
from mgc_ray.tuning.display import Display
from mgc_ray.tuning.searcher import OptunaSearcher, WarmStart, forget_lost
from mgc_ray.tuning.space import Suggest, parameter_types, with_features, with_fixed
from mgc_ray.tuning.tensorboard import TensorBoardWriter
from mgc_ray.tuning.tracking import Callback
from mgc_ray.tuning.trial import STATE, TrialContext, run_trial, send_initial


def run_trials(
    search: SharedFolder,
    config: SearchConfig,
    spaces: dict[str, Suggest],
    chunks: ChunkTable,
    resources: TrialResources,
    earlier: Sequence[TrialRecord] = (),
    warm_start: Sequence[WarmStart] = (),
    initial: Params | None = None,
    callbacks: Sequence[Callback] = (),
) -> list[TrialRecord]:
    """Run (or continue) a search in its folder; the records of all its trials.

    `spaces`: of each family, see `load_space`. `earlier`: this search's trials that have ended
    before. `initial`: settings of the family `transfer` that say where it starts
    (training/initial.py). `callbacks` hear of its trials. Writes study.journal, leaderboard.csv,
    trials/ and tensorboard/. Must be called inside `ray_cluster`. KeyboardInterrupt passes through;
    AllTrialsFailError where the first trials have all failed alike.
    """
    tuning, features = config.tuning, chunks.info.features
    spaces = {
        family: with_fixed(
            with_features(space, readable(family, features), second_kinds(family)),
            params_of(family, config.train),
        )
        for family, space in spaces.items()
    }
    (search.folder / "trials").mkdir(parents=True, exist_ok=True)
    for record in earlier:  # where the driver died between a record and what follows it
        search.delete(f"trials/{record.trial}/{STATE}")
    end_attempts(search)  # of a driver before this one
    journal = search.folder / JOURNAL
    forget_lost(journal, earlier)
    searcher = OptunaSearcher(journal, spaces, config.seed, warm_start, earlier)
    remaining = tuning.trials - len(earlier)
    if remaining <= 0:
        return list(earlier)
    check_shared(search)
    send_initial(initial or {}, search)
    chunks.band_statistics  # noqa: B018  computed once here instead of once per trial
    defaults = {family: full_params(family, {}) for family in spaces}
    with (
        Display(tuning, config.metric, earlier, defaults) as display,
        tempfile.TemporaryDirectory(prefix="mgc_ray_tune_") as tune_folder,
    ):
        types: dict[str, type] = {}
        for space in spaces.values():
            types |= parameter_types(space)
        writer = TensorBoardWriter(search.folder, types, defaults, chunks.info.genres, earlier)
        context = TrialContext(
            search=search,
            metric=config.metric,
            fixed={family: fixed_params(family, config, initial) for family in spaces},
            own_families=own_families(),
            threads=max(1, int(resources.cpus_per_trial)),
        )
        keep = max(tuning.keep, config.ensemble.top_k)
        hearing: list[Callback] = [searcher, writer, display, *callbacks]
        split_id = chunks.info.split_id
        log = TrialLog(search, config.metric, split_id, keep, earlier, hearing)
        limiter = ConcurrencyLimiter(searcher, resources.concurrent)
        cluster = FollowCluster(limiter, resources, tuning.concurrent, remaining)
        watch = TrialWatch(tuning.trial_timeout, log)
        tune_callbacks = [log, RetryOnWholeGpu(), cluster, watch]
        per_trial = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(run_trial, chunks=chunks, context=context), per_trial
            ),
            tune_config=tune.TuneConfig(
                search_alg=limiter,
                scheduler=AshaByFamily(tuning, earlier),
                num_samples=remaining,
                reuse_actors=True,  # 0.2 s from trial to trial instead of 1.5 s
                time_budget_s=tuning.time_limit,
                trial_name_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                # Tune's own files are of no use beside ours, and full of pickles
                storage_path=tune_folder,
                name="tune",
                callbacks=tune_callbacks,
                verbose=0,
                # of processes and nodes, and of trials that ran out of a shared GPU's memory
                failure_config=tune.FailureConfig(max_failures=3),
            ),
        )
        try:
            tuner.fit()
        except Exception as error:  # Tune's own, in which it wraps what a callback raised
            failure = log.failure or error.__cause__
            if isinstance(failure, OSError | AllTrialsFailError):
                raise failure from None
            raise
        finally:
            cluster.end()
        log.end_running()
    end_attempts(search)
    records = list(log.records.values())
    write_leaderboard(search.folder / LEADERBOARD, records)
    return records


def fixed_params(family: str, config: SearchConfig, initial: Params | None) -> Params:
    """What all trials of a family have in common."""
    start = initial if family == "transfer" and initial else {}
    # trials of one search are compared, so all are scored on the same tracks
    folds = min(full_params(one, {})["folds"] for one in config.family)
    return {"max_epochs": config.tuning.max_epochs, "seed": config.seed, "folds": folds} | start
