"""The ways to search that are compared: the program's own and variants of it, Ray's, Optuna's."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
from _replay import ACCURACY, MAX_EPOCHS, Engine, Table, Trace, TuneEngine, simulate
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from mgc_ray.config import TuneConfig
from mgc_ray.results import COMPLETED, TrialRecord
from mgc_ray.settings import Params
from mgc_ray.tuning.asha import asha
from mgc_ray.tuning.searcher import OptunaSearcher, WarmStart
from mgc_ray.tuning.space import Suggest

FAMILY = "gru"
# from an empty folder, a seed, the table and the number of workers
Way = Callable[[Path, int, Table, int], Engine]


def space(trial: optuna.Trial) -> Params:
    """What the table covers of the space `gru`, with its names and ranges."""
    return {**earlier_space(trial, lr=1e-2), "mixup": trial.suggest_float("mixup", 0.0, 0.4)}


def earlier_space(trial: optuna.Trial, lr: float = 3.2e-3) -> Params:
    """That of an earlier search: without mixup, and without the highest learning rates."""
    return {
        "lr": trial.suggest_float("lr", 1e-4, lr, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [16, 64]),
        "blocks": trial.suggest_int("blocks", 3, 4),
        "channels": trial.suggest_categorical("channels", [8, 16]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
    }


def family_defaults(seed: int) -> Params:
    """The defaults of `gru`. Its batch size (32) and mixup (0.2) lie between the grid's points, so
    seeds take one or the other side in turn.
    """
    return {
        "lr": 1e-3,
        "dropout": 0.3,
        "blocks": 4,
        "channels": 16,
        "batch_size": [16, 64][seed % 2],
        "mixup": [0.0, 0.4][seed // 2 % 2],
    }


class OptunaEngine:
    """Plain Optuna: an objective that reports each epoch's accuracy, asks the pruner whether to
    stop, and returns its best epoch's.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._trials: dict[str, optuna.Trial] = {}

    def suggest(self, name: str) -> Params:
        self._trials[name] = self._study.ask()
        return space(self._trials[name])

    def continues(self, name: str, result: dict[str, Any]) -> bool:
        trial = self._trials[name]
        trial.report(result[ACCURACY], result["epoch"])
        if result["finished"]:
            self._study.tell(trial, result["best_so_far"])
        elif trial.should_prune():
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            return True
        return False


class StoppedAsComplete(OptunaSearcher):
    """As Ray's own searcher does: a stopped trial counts as complete, with its early accuracy."""

    def on_trial_end(self, record: TrialRecord) -> None:
        super().on_trial_end(replace(record, status=COMPLETED))


def reporting(metric: str, kind: type[OptunaSearcher] = OptunaSearcher) -> type[OptunaSearcher]:
    """The searcher, but it reports this metric to Optuna instead of the best accuracy so far."""

    class Reporting(kind):  # type: ignore[misc,valid-type]
        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            super().on_trial_result(trial_id, {**result, "best_so_far": result[metric]})

        def on_trial_end(self, record: TrialRecord) -> None:
            # all but the last epoch are reported already
            last = {ACCURACY: record.curve[-1][metric], "val_loss": 0.0}
            super().on_trial_end(replace(record, curve=[last] * record.epochs))

    return Reporting


def our_searcher(
    folder: Path,
    seed: int,
    kind: type[OptunaSearcher] = OptunaSearcher,
    sampler: BaseSampler | None = None,
    suggest: Suggest = space,
    defaults_first: bool = True,
    warm_start: Sequence[WarmStart] = (),
) -> OptunaSearcher:
    """The program's searcher on the table's space, with another sampler if one is given."""
    # the family's own defaults are not in the table
    with mock.patch("mgc_ray.tuning.space.full_params", lambda _, p: family_defaults(seed) | p):
        searcher = kind(folder / "study.journal", {FAMILY: suggest}, seed, warm_start)
    if not defaults_first:
        study = searcher._studies[FAMILY]
        study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)  # of which TPE knows nothing
    if sampler:
        searcher._studies[FAMILY].sampler = sampler
    return searcher


def ours(
    scheduler: Callable[[], TrialScheduler] | None = None,
    sampler: Callable[[int], BaseSampler | None] = lambda seed: None,
    **options: Any,
) -> Way:
    """The program's searcher and scheduler, except for what is given."""
    return lambda folder, seed, table, workers: TuneEngine(
        our_searcher(folder, seed, sampler=sampler(seed), **options),
        (scheduler or our_asha())(),
    )


def warm(suggest: Suggest, same_dataset: bool = True) -> Way:
    """Ours, starting from an earlier search of 30 trials over a space. What that does not suggest
    has its default. With `same_dataset` false the new one only tries the best settings first.
    """

    def make(folder: Path, seed: int, table: Table, workers: int) -> Engine:
        (folder / "earlier").mkdir()
        searcher = our_searcher(folder / "earlier", seed + 500, suggest=suggest)
        engine = TuneEngine(searcher, our_asha()(), fixed=family_defaults(seed))
        simulate(engine, table, workers, trials=30)
        earlier = WarmStart("earlier", folder / "earlier" / "study.journal", same_dataset)
        return TuneEngine(our_searcher(folder, seed, warm_start=[earlier]), our_asha()())

    return make


def our_asha(metric: str = "best_so_far", **settings: int) -> Callable[[], ASHAScheduler]:
    """The program's scheduler; the settings that are not given are its defaults."""

    def make() -> ASHAScheduler:
        scheduler = asha(TuneConfig(max_epochs=MAX_EPOCHS, **settings))
        scheduler._metric = metric
        return scheduler

    return make


def stock_asha(**settings: int) -> Callable[[], ASHAScheduler]:
    """As one would write it after Ray's manual: it compares each epoch's accuracy."""
    return lambda: ASHAScheduler(metric=ACCURACY, mode="max", max_t=MAX_EPOCHS, **settings)


def stock(
    scheduler: Callable[[], TrialScheduler], sampler: Callable[[int], BaseSampler] | None = None
) -> Way:
    """Ray's `OptunaSearch`."""
    return lambda folder, seed, *_: TuneEngine(
        OptunaSearch(space, metric=ACCURACY, mode="max", seed=seed)
        if sampler is None
        else OptunaSearch(space, metric=ACCURACY, mode="max", sampler=sampler(seed)),
        scheduler(),
    )


def plain(pruner: Callable[[], optuna.pruners.BasePruner]) -> Way:
    """Optuna without Ray."""
    return lambda folder, seed, *_: OptunaEngine(
        optuna.create_study(
            study_name="replay",  # Hyperband assigns trials to its brackets by name
            direction="maximize",
            sampler=TPESampler(seed=seed),
            pruner=pruner(),
        )
    )


def tpe(**settings: Any) -> Callable[[int], BaseSampler]:
    """The program's sampler except for these settings."""
    return lambda seed: TPESampler(
        seed=seed, **{"multivariate": False, "constant_liar": True} | settings
    )


_SAME = {
    "grace_period": TuneConfig().grace_period,
    "reduction_factor": TuneConfig().reduction_factor,
}
MAIN: dict[str, Way] = {
    "ours": ours(),
    "OptunaSearch, same ASHA": stock(stock_asha(**_SAME)),
    "OptunaSearch, ASHA's defaults": stock(stock_asha()),
    "Optuna, MedianPruner": plain(optuna.pruners.MedianPruner),
    "Optuna, SuccessiveHalving": plain(optuna.pruners.SuccessiveHalvingPruner),
    "Optuna, Hyperband": plain(lambda: optuna.pruners.HyperbandPruner(1, MAX_EPOCHS, 3)),
    "random, same ASHA": stock(our_asha(), lambda seed: RandomSampler(seed)),
    "random, no stopping": stock(FIFOScheduler, lambda seed: RandomSampler(seed)),
}


def before(
    metric: str = "best_so_far",
    sampler: Callable[[int], BaseSampler] | None = None,
    grace: int = 3,
    factor: int = 3,
    **options: Any,
) -> Way:
    """What was the default when the study was made, except for what is given: today's defaults were
    chosen by it.
    """
    scheduler = our_asha(metric, grace_period=grace, reduction_factor=factor)
    together = tpe(multivariate=True, group=True)
    return ours(options.pop("scheduler", scheduler), sampler or together, **options)


STUDY: dict[str, Way] = {
    "before": before(),
    "now": ours(),
    "now, stopped as complete": ours(kind=StoppedAsComplete),
    "now, rung: epoch's accuracy": ours(our_asha(ACCURACY)),
    "defaults not first": before(defaults_first=False),
    "stopped as complete": before(kind=StoppedAsComplete),
    "no ASHA": before(scheduler=FIFOScheduler),
    "TPE each by itself": before(sampler=tpe()),
    "TPE without group": before(sampler=tpe(multivariate=True)),
    "TPE no constant liar": before(sampler=tpe(multivariate=True, group=True, constant_liar=False)),
    **{
        f"TPE {n} random first": before(
            sampler=tpe(multivariate=True, group=True, n_startup_trials=n)
        )
        for n in (5, 20, 30)
    },
    "random sampler": before(sampler=lambda seed: RandomSampler(seed)),
    "rung: epoch's accuracy": before(ACCURACY),
    "TPE: epoch's accuracy": before(kind=reporting(ACCURACY)),
    "rung, TPE: epoch's accuracy": before(ACCURACY, kind=reporting(ACCURACY)),
    "rung epoch, TPE epoch, complete": before(
        ACCURACY, kind=reporting(ACCURACY, StoppedAsComplete)
    ),
    "all as OptunaSearch": before(
        ACCURACY,
        tpe(multivariate=True),
        kind=reporting(ACCURACY, StoppedAsComplete),
        defaults_first=False,
    ),
    "rung: loss breaks ties": before("best_with_loss"),
    "rung, TPE: loss breaks ties": before("best_with_loss", kind=reporting("best_with_loss")),
    "rung: chunk accuracy": before("best_chunks"),
    "rung, TPE: chunk accuracy": before("best_chunks", kind=reporting("best_chunks")),
    "rung: loss": before("least_loss"),
    "rung, TPE: loss": before("least_loss", kind=reporting("least_loss")),
    **{
        f"grace {grace}, factor {factor}": before(grace=grace, factor=factor)
        for grace in (1, 3, 5)
        for factor in (2, 3, 4)
    },
}
# Slow, so only where they are given (--ways).
SLOW: dict[str, Way] = {
    "GP": before(sampler=lambda seed: GPSampler(seed=seed)),
    "GP, stopped as complete": before(
        kind=StoppedAsComplete, sampler=lambda seed: GPSampler(seed=seed)
    ),
}
WARM: dict[str, Way] = {
    "no earlier search": ours(),
    "30 earlier trials, other space": warm(earlier_space),
    "30 earlier trials, same space": warm(space),
    "best 5 earlier first, other space": warm(earlier_space, same_dataset=False),
}


def run(table: Table, name: str, seed: int, workers: int, epochs: int, again: bool) -> Trace:
    """One search by the method of that name."""
    quiet()
    shm = Path("/dev/shm")  # the journal is written to disk at each step
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        engine = (MAIN | STUDY | WARM | SLOW)[name](Path(folder), seed, table, workers)
        return simulate(engine, table, workers, epochs, again=again)


def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message=".*is already reported.*")
