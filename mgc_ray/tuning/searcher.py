"""Optuna behind Ray Tune's interface for searchers; each trial ends in Optuna as what it was.

With Ray's own `OptunaSearch` a trial that ASHA stopped is complete, with its early value, and
failed ones are lost; TPE then compares two epochs with thirty. Here a stopped trial is pruned, with
the values it reported, and a failed one failed. The study is a journal file, so it outlives the
driver and opens in optuna-dashboard.
"""

import json
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import TrialState
from ray.tune.search import Searcher

from mgc_ray.data.files import atomic_write, sync
from mgc_ray.results import COMPLETED, FAILED, OUT_OF_TIME, STOPPED_EARLY, TrialRecord
from mgc_ray.settings import Params
from mgc_ray.task import scores_so_far
from mgc_ray.tuning.space import Suggest, default_params, params_within
from mgc_ray.tuning.tracking import Callback
from mgc_ray.tuning.trial import TrialReport

_STATES = {
    COMPLETED: TrialState.COMPLETE,
    STOPPED_EARLY: TrialState.PRUNED,
    OUT_OF_TIME: TrialState.PRUNED,  # Optuna has no other for scores of fewer epochs
    FAILED: TrialState.FAIL,
}


@dataclass(frozen=True)
class WarmStart:
    """A search that a new one starts from: its journal, and whether their scores are comparable.

    They are where both have the same dataset and metric; then its results count as if they were the
    new one's own. Other scores have another level, which would make all of them look good or all
    bad; of such a search only the best settings are used, which are tried first.
    """

    name: str
    journal: Path
    comparable: bool


_TRIED_FIRST = 5  # of the best settings of a search whose scores are not comparable


class OptunaSearcher(Searcher, Callback):
    """Suggests trials of one or several families in turn, each family from a study of its own.

    A suggestion is `{"trial": "gru-0003", "family": "gru", "params": {...}}`. The first of each
    family is its defaults. Trials that a killed driver left running are suggested again first.
    `warm_start`: earlier searches, whose spaces need not be the same. `earlier`: this search's own
    trials that ended before it was interrupted.

    Optuna learns how a trial ended as a Callback of the trial log, after its record was written: a
    driver that dies in between leaves a record that Optuna does not know, which is mended when the
    search is resumed, and never a trial that Optuna knows and the leaderboard does not.
    """

    def __init__(
        self,
        journal: Path,
        spaces: dict[str, Suggest],
        seed: int,
        warm_start: Sequence[WarmStart] = (),
        earlier: Sequence[TrialRecord] = (),
    ) -> None:
        super().__init__(metric="best_so_far", mode="max")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spaces = spaces
        self._trials: dict[str, optuna.Trial] = {}  # that run, by Tune's id
        self._by_name: dict[str, optuna.Trial] = {}
        _cut_damaged_end(journal)
        # without storage's own locking: one driver writes, and a lock outlives a killed one
        storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_NoLock()))
        begun = bool(earlier)
        self._studies = {
            family: _study(storage, family, suggest, seed + 1000 * i, warm_start, begun)
            for i, (family, suggest) in enumerate(spaces.items())
        }
        ended = {record.trial: record for record in earlier}
        self._add_unknown(ended)
        own = [trial for study in self._studies.values() for trial in _real_trials(study)]
        # also by their names, as a journal that was damaged may know fewer trials than there were
        names = [*ended, *(trial.user_attrs.get("trial", "") for trial in own)]
        found = [re.fullmatch(r".+-(\d+)", name) for name in names]
        self._asked = max([len(own), *(1 + int(one[1]) for one in found if one)])
        self._unfinished = []
        for family, study in self._studies.items():
            for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                record = ended.get(frozen.user_attrs.get("trial", ""))
                if record:  # the driver died between the two
                    _tell(optuna.Trial(study, frozen._trial_id), record)
                else:
                    self._unfinished.append((family, frozen))

    def _add_unknown(self, records: Mapping[str, TrialRecord]) -> None:
        """Add to the studies the trials that only have a record: the journal may be damaged."""
        known = {
            trial.user_attrs.get("trial")
            for study in self._studies.values()
            for trial in study.get_trials(deepcopy=False)
        }
        for name, record in records.items():
            study = self._studies.get(record.family)
            if study is not None and name not in known:
                study.add_trial(_as_running(record, self._spaces[record.family]))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for a restore of its own, which is never used."""
        return {}

    def suggest(self, trial_id: str) -> Params:
        """Parameters for Tune's trial `trial_id`."""
        if self._unfinished:
            family, frozen = self._unfinished.pop(0)
            trial = optuna.Trial(self._studies[family], frozen._trial_id)
            name = frozen.user_attrs.get("trial") or self._next_name(family)
        else:
            families = list(self._spaces)
            family = families[self._asked % len(families)]
            trial = self._studies[family].ask()
            name = self._next_name(family)
        trial.set_user_attr("trial", name)
        self._trials[trial_id] = self._by_name[name] = trial
        return {"trial": name, "family": family, "params": self._spaces[family](trial)}

    def _next_name(self, family: str) -> str:
        self._asked += 1
        return f"{family}-{self._asked - 1:04d}"

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report the best value so far at this epoch."""
        trial, report = self._trials[trial_id], TrialReport.of(result)
        if report.metrics and report.epoch not in _reported(trial):
            trial.report(report.best_so_far, report.epoch)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing yet: see `on_trial_end`."""
        self._trials.pop(trial_id, None)

    def on_trial_end(self, record: TrialRecord) -> None:
        """Write into the study how the trial ended."""
        trial = self._by_name.pop(record.trial, None)
        if trial is not None:
            _tell(trial, record)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal has everything. Tune wants a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a new searcher reads the journal."""


def _as_running(record: TrialRecord, suggest: Suggest) -> optuna.trial.FrozenTrial:
    """A trial as the study had it before it ended, without parameters where the space has none."""
    fixed = params_within(record.family, suggest, record.params)
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=fixed.params if fixed else {},
        distributions=fixed.distributions if fixed else {},
        user_attrs={"trial": record.trial},
    )


def _tell(trial: optuna.Trial, record: TrialRecord) -> None:
    """Write into the study what a record says: its scores, and how it ended."""
    best, known = -math.inf, _reported(trial)
    for number, best in enumerate(scores_so_far(record.curve, record.metric), start=1):
        # Tune does not pass the report on which ASHA stops to on_trial_result
        if number not in known and record.status != FAILED:
            trial.report(best, number)
    if record.status == FAILED and record.reason:
        trial.set_user_attr("failure", record.reason)
    trial.set_user_attr("status", record.status)
    value = best if record.status == COMPLETED else None
    trial.study.tell(trial, value, state=_STATES[record.status])


def _cut_damaged_end(journal: Path) -> None:
    """Cut a journal before the first line that is none: a half one of a killed driver, or zeros.

    Optuna would append to it, and then fail.
    """
    if not journal.exists():
        return
    whole = 0
    with journal.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n") or not _is_object(line):
                break
            whole += len(line)
    if whole < journal.stat().st_size:
        os.truncate(journal, whole)
        sync(journal)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def forget_lost(journal: Path, records: Sequence[TrialRecord]) -> None:
    """Let the study take trials as running that it takes as ended, but of which no record is left.

    As after a loss of power: Optuna syncs its journal with each line. They are suggested again.
    """
    _cut_damaged_end(journal)
    if not journal.exists():
        return
    known = {record.trial for record in records}
    trials = {
        family: study.get_trials(deepcopy=False) for family, study in load_studies(journal).items()
    }
    if not any(_is_lost(trial, known) for own in trials.values() for trial in own):
        return
    with atomic_write(journal) as temporary:
        storage = JournalStorage(JournalFileBackend(str(temporary), lock_obj=_NoLock()))
        for family, own in trials.items():
            study = optuna.create_study(study_name=family, storage=storage, direction="maximize")
            study.add_trials([_running(one) if _is_lost(one, known) else one for one in own])


def _is_lost(trial: optuna.trial.FrozenTrial, known: set[str]) -> bool:
    own = "from" not in trial.user_attrs and trial.state.is_finished()
    return own and trial.user_attrs.get("trial") not in known


def _running(trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
    """The same trial before its first epoch."""
    names = trial.user_attrs.keys() & {"trial"}
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={name: trial.user_attrs[name] for name in names},
        system_attrs=trial.system_attrs,
    )


def load_studies(journal: Path) -> dict[str, optuna.Study]:
    """The studies of a search's journal, by family."""
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_NoLock()))
    return {
        summary.study_name: optuna.load_study(study_name=summary.study_name, storage=storage)
        for summary in optuna.get_all_study_summaries(storage)
    }


def _study(
    storage: JournalStorage,
    family: str,
    suggest: Suggest,
    seed: int,
    warm_start: Sequence[WarmStart],
    begun: bool,
) -> optuna.Study:
    """A family's study. `begun`: the search has trials, so one that is empty has lost them."""
    study = optuna.create_study(
        study_name=family, storage=storage, direction="maximize", load_if_exists=True
    )
    known = len(study.get_trials(deepcopy=False))
    # Chosen on a table of 240 real trials, 50 seeds each (results/benchmarks.md): over 400 epochs
    # TPE is 1.3 to 2.1 points above random sampling, and each parameter by itself 0.7 points above
    # all together where four trials run at once (one at a time: no difference).
    with warnings.catch_warnings():  # that `constant_liar` is experimental is known and accepted
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(
            seed=seed + known, multivariate=False, constant_liar=True
        )
    if not known:
        defaults = default_params(family, suggest)
        for earlier in warm_start:
            _start_from(study, family, suggest, earlier)
        if begun:
            return study
        if defaults not in [trial.params for trial in study.get_trials(deepcopy=False)]:
            study.enqueue_trial(defaults)
        for params in _best_elsewhere(family, suggest, warm_start):
            study.enqueue_trial(params, skip_if_exists=True)
    return study


def _start_from(study: optuna.Study, family: str, suggest: Suggest, earlier: WarmStart) -> None:
    """Add the trials of an earlier search to a family's study, where scores are comparable.

    A trial is added with the parameters that this space would have suggested for the same settings:
    what the earlier space did not suggest has its default, what this one does not is dropped. A
    trial outside this space is left out.
    """
    if not earlier.comparable:
        return
    for frozen in _ended(earlier, family):
        trial = params_within(family, suggest, frozen.params)
        if trial is None:
            continue
        name = frozen.user_attrs.get("trial", frozen.number)
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                value=frozen.value if frozen.state == TrialState.COMPLETE else None,
                state=frozen.state,
                intermediate_values=frozen.intermediate_values,
                user_attrs={"from": f"{earlier.name}/{name}"},
            )
        )


def _best_elsewhere(
    family: str, suggest: Suggest, warm_start: Sequence[WarmStart]
) -> list[dict[str, Any]]:
    """The best settings that this space can give of each search that is not comparable."""
    chosen = []
    for earlier in warm_start:
        if earlier.comparable:
            continue
        complete = [t for t in _ended(earlier, family) if t.state == TrialState.COMPLETE]
        complete.sort(key=lambda t: -t.value if t.value is not None else 0.0)
        within = [params_within(family, suggest, t.params) for t in complete]
        chosen += [trial.params for trial in within if trial is not None][:_TRIED_FIRST]
    return chosen


def _ended(earlier: WarmStart, family: str) -> list[optuna.trial.FrozenTrial]:
    """A family's own trials of an earlier search that have scores."""
    study = load_studies(earlier.journal).get(family)
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return study.get_trials(deepcopy=False, states=ended) if study else []


def _real_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """All but those in the queue and those of earlier searches."""
    return [
        t
        for t in study.get_trials(deepcopy=False)
        if t.state != TrialState.WAITING and "from" not in t.user_attrs
    ]


def _reported(trial: optuna.Trial) -> set[int]:
    return set(trial.storage.get_trial(trial._trial_id).intermediate_values)


class _NoLock(BaseJournalFileLock):
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
