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
from _replay import MAX_EPOCHS, Engine, Table, Trace, TuneEngine, simulate
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from mgc_ray.training.loop import METRIC
from mgc_ray.tuning.records import COMPLETED, TrialRecord
from mgc_ray.tuning.scheduler import asha
from mgc_ray.tuning.searcher import Earlier, OptunaSearcher
from mgc_ray.tuning.settings import TuneSettings
from mgc_ray.tuning.space import Suggest

FAMILY = "gru"
# from a folder of its own, a seed, the table and the number of workers
Way = Callable[[Path, int, Table, int], Engine]


def space(trial: optuna.Trial) -> dict[str, Any]:
    """What the table covers of the space `gru`, with its names and ranges."""
    return {**earlier_space(trial, lr=1e-2), "mixup": trial.suggest_float("mixup", 0.0, 0.4)}


def earlier_space(trial: optuna.Trial, lr: float = 3.2e-3) -> dict[str, Any]:
    """That of an earlier search: without mixup, and without the highest learning rates."""
    return {
        "lr": trial.suggest_float("lr", 1e-4, lr, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [16, 64]),
        "blocks": trial.suggest_int("blocks", 3, 4),
        "channels": trial.suggest_categorical("channels", [8, 16]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
    }


def family_defaults(seed: int) -> dict[str, Any]:
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

    def suggest(self, name: str) -> dict[str, Any]:
        self._trials[name] = self._study.ask()
        return space(self._trials[name])

    def goes_on(self, name: str, result: dict[str, Any]) -> bool:
        trial = self._trials[name]
        trial.report(result[METRIC], result["epoch"])
        if result["finished"]:
            self._study.tell(trial, result["best_so_far"])
        elif trial.should_prune():
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            return True
        return False


class ToldComplete(OptunaSearcher):
    """As Ray's own searcher does: what was stopped is told as complete, with its early figure."""

    def on_end(self, record: TrialRecord) -> None:
        super().on_end(replace(record, status=COMPLETED))


def telling(figure: str, kind: type[OptunaSearcher] = OptunaSearcher) -> type[OptunaSearcher]:
    """The searcher, but it tells Optuna this figure instead of the best accuracy so far."""

    class Telling(kind):  # type: ignore[misc,valid-type]
        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            super().on_trial_result(trial_id, {**result, "best_so_far": result[figure]})

        def on_end(self, record: TrialRecord) -> None:
            lowest = [{METRIC: 0.0}] * (record.epochs - 1)  # all but the last are told already
            told = {METRIC: record.curve[-1][figure]}
            super().on_end(replace(record, curve=[*lowest, told]))

    return Telling


def our_searcher(
    folder: Path,
    seed: int,
    kind: type[OptunaSearcher] = OptunaSearcher,
    sampler: BaseSampler | None = None,
    suggest: Suggest = space,
    defaults_first: bool = True,
    warm_start: Sequence[Earlier] = (),
) -> OptunaSearcher:
    """The program's searcher on the table's space, with another sampler if one is given."""
    # the family's true defaults are not in the table
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
    """The program's searcher and scheduler, but for what is named."""
    return lambda folder, seed, table, workers: TuneEngine(
        our_searcher(folder, seed, sampler=sampler(seed), **options),
        (scheduler or our_asha())(),
    )


def warm(suggest: Suggest, same_dataset: bool = True) -> Way:
    """Ours, knowing an earlier search of 30 trials over a space. What that leaves alone has its
    default. With `same_dataset` false the new one only tries the best settings first.
    """

    def make(folder: Path, seed: int, table: Table, workers: int) -> Engine:
        (folder / "earlier").mkdir()
        searcher = our_searcher(folder / "earlier", seed + 500, suggest=suggest)
        engine = TuneEngine(searcher, our_asha()(), fixed=family_defaults(seed))
        simulate(engine, table, workers, trials=30)
        earlier = Earlier("earlier", folder / "earlier" / "study.journal", same_dataset)
        return TuneEngine(our_searcher(folder, seed, warm_start=[earlier]), our_asha()())

    return make


def our_asha(metric: str = "best_so_far", **settings: int) -> Callable[[], ASHAScheduler]:
    """The program's scheduler; the settings not named are its defaults."""

    def make() -> ASHAScheduler:
        chosen = TuneSettings(max_epochs=MAX_EPOCHS, **settings)
        scheduler = asha(chosen.max_epochs, chosen.grace_period, chosen.reduction_factor)
        scheduler._metric = metric
        return scheduler

    return make


def stock_asha(**settings: int) -> Callable[[], ASHAScheduler]:
    """As one would write it after Ray's manual: it compares each epoch's figure."""
    return lambda: ASHAScheduler(metric=METRIC, mode="max", max_t=MAX_EPOCHS, **settings)


def stock(
    scheduler: Callable[[], TrialScheduler], sampler: Callable[[int], BaseSampler] | None = None
) -> Way:
    """Ray's `OptunaSearch`."""
    return lambda folder, seed, *_: TuneEngine(
        OptunaSearch(space, metric=METRIC, mode="max", seed=seed)
        if sampler is None
        else OptunaSearch(space, metric=METRIC, mode="max", sampler=sampler(seed)),
        scheduler(),
    )


def plain(pruner: Callable[[], optuna.pruners.BasePruner]) -> Way:
    """Optuna without Ray."""
    return lambda folder, seed, *_: OptunaEngine(
        optuna.create_study(
            study_name="replay",  # Hyperband deals trials to its brackets by name
            direction="maximize",
            sampler=TPESampler(seed=seed),
            pruner=pruner(),
        )
    )


def tpe(**settings: Any) -> Callable[[int], BaseSampler]:
    """The program's sampler but for these settings."""
    return lambda seed: TPESampler(
        seed=seed, **{"multivariate": False, "constant_liar": True} | settings
    )


_SAME = {
    "grace_period": TuneSettings.grace_period,
    "reduction_factor": TuneSettings.reduction_factor,
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
    """What was the default when the study was made, but for what is named: the defaults of now were
    chosen by it.
    """
    scheduler = our_asha(metric, grace_period=grace, reduction_factor=factor)
    together = tpe(multivariate=True, group=True)
    return ours(options.pop("scheduler", scheduler), sampler or together, **options)


STUDY: dict[str, Way] = {
    "before": before(),
    "now": ours(),
    "now, stopped told as complete": ours(kind=ToldComplete),
    "now, rung: epoch's accuracy": ours(our_asha(METRIC)),
    "defaults not first": before(defaults_first=False),
    "stopped told as complete": before(kind=ToldComplete),
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
    "rung: epoch's accuracy": before(METRIC),
    "TPE: epoch's accuracy": before(kind=telling(METRIC)),
    "rung, TPE: epoch's accuracy": before(METRIC, kind=telling(METRIC)),
    "rung epoch, TPE epoch, complete": before(METRIC, kind=telling(METRIC, ToldComplete)),
    "all as OptunaSearch": before(
        METRIC,
        tpe(multivariate=True),
        kind=telling(METRIC, ToldComplete),
        defaults_first=False,
    ),
    "rung: loss breaks ties": before("best_with_loss"),
    "rung, TPE: loss breaks ties": before("best_with_loss", kind=telling("best_with_loss")),
    "rung: chunk accuracy": before("best_chunks"),
    "rung, TPE: chunk accuracy": before("best_chunks", kind=telling("best_chunks")),
    "rung: loss": before("least_loss"),
    "rung, TPE: loss": before("least_loss", kind=telling("least_loss")),
    **{
        f"grace {grace}, factor {factor}": before(grace=grace, factor=factor)
        for grace in (1, 3, 5)
        for factor in (2, 3, 4)
    },
}
# Slow, so only by name (--ways).
SLOW: dict[str, Way] = {
    "GP": before(sampler=lambda seed: GPSampler(seed=seed)),
    "GP, told as complete": before(kind=ToldComplete, sampler=lambda seed: GPSampler(seed=seed)),
}
WARM: dict[str, Way] = {
    "knows nothing": ours(),
    "knows 30 trials, other space": warm(earlier_space),
    "knows 30 trials, same space": warm(space),
    "tries the best 5 first, other space": warm(earlier_space, same_dataset=False),
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
