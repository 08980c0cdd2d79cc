"""A search of many trials, without running them."""

import shutil
from collections.abc import Sequence
from copy import copy
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mgc_ray.results import COMPLETED, FAILED, JOURNAL, STOPPED_EARLY, TrialRecord
from mgc_ray.tuning.space import Suggest, load_space

START = datetime(2026, 1, 1)
SECONDS_BETWEEN = 9.0


def with_many_trials(
    search: Path,
    folder: Path,
    count: int,
    families: Sequence[str] = ("gru", "cnn"),
    suggest: Suggest | None = None,
    without: Sequence[str] = (),
) -> None:
    """A copy of a real search with `count` trials of some families in place of its own.

    Settings are random points of the families' spaces, or of `suggest` for all of them. As many
    trials as ASHA would stop end after 1, 3 and 9 epochs; one of a hundred fails. Files that match
    patterns in `without` are not copied.
    """
    shutil.copytree(search, folder, ignore=shutil.ignore_patterns("trials", JOURNAL, *without))
    random = np.random.default_rng(0)
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    for first, family in enumerate(families):
        space = suggest or load_space(family)
        sampler = optuna.samplers.RandomSampler(seed=first)
        study = optuna.create_study(
            storage=storage, study_name=family, direction="maximize", sampler=sampler
        )
        asked = optuna.create_study(direction="maximize", sampler=sampler)
        for number in range(first, count, len(families)):
            trial = asked.ask()
            params = space(trial)
            epochs = int(random.choice([1, 3, 9, 30], p=[0.5, 0.25, 0.15, 0.1]))
            best = random.uniform(0.2, 0.8)
            scores = [float(best * (1 - 0.7**epoch)) for epoch in range(1, epochs + 1)]
            status = COMPLETED if epochs == 30 else STOPPED_EARLY
            if number % 100 == 99:
                status = FAILED
            record = TrialRecord(
                trial=f"{family}-{number:04d}",
                family=family,
                params=params,
                status=status,
                reason="the loss is NaN" if status == FAILED else "",
                seconds=SECONDS_BETWEEN,
                best_epoch=epochs,
                curve=[
                    {
                        "val_track_accuracy": score,
                        "val_chunk_accuracy": score,
                        "val_macro_f1": score,
                        "val_log_loss": 1 - score,
                        "val_loss": 1.0,
                    }
                    for score in scores
                ],
            )
            record.write(folder / "trials" / record.trial)
            _add(study, copy(asked.get_trials(deepcopy=False)[-1]), record, scores)


def _add(
    study: optuna.Study,
    trial: optuna.trial.FrozenTrial,
    record: TrialRecord,
    scores: Sequence[float],
) -> None:
    states = {
        COMPLETED: TrialState.COMPLETE,
        STOPPED_EARLY: TrialState.PRUNED,
        FAILED: TrialState.FAIL,
    }
    trial.state = states[record.status]
    trial.value = scores[-1] if record.status == COMPLETED else None
    trial.intermediate_values = dict(enumerate(scores, 1))
    trial.set_user_attr("trial", record.trial)
    trial.datetime_start = START + timedelta(seconds=SECONDS_BETWEEN * record.number)
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=SECONDS_BETWEEN)
    study.add_trial(trial)
