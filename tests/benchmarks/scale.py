"""The load of the one driver of a search of 10,000 trials on 1,000 GPUs: measured, then simulated.

    python tests/benchmarks/scale.py --parts suggest
    python tests/benchmarks/scale.py --parts simulate --suggest-ms 30 0.1 --trial-ms 30

suggest   milliseconds of a suggestion of the space `gru` (and of reporting its result) when so many
          results are known
simulate  a discrete-event simulation of one driver that serves reports, suggestions and endings one
          after the other, and workers that wait for it between trials: how busy each is
"""

import argparse
import heapq
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def suggestion_cost(known: int, asked: int, running: int = 8) -> dict[str, float]:
    """Milliseconds of the program's own searcher, with `known` results in its study."""
    import optuna

    from mgc_ray.results import COMPLETED, TrialRecord
    from mgc_ray.tuning.searcher import OptunaSearcher, load_studies
    from mgc_ray.tuning.space import load_space

    random = np.random.default_rng(0)
    suggest = load_space("gru")
    with tempfile.TemporaryDirectory() as name:
        journal = Path(name) / "journal"
        OptunaSearcher(journal, {"gru": suggest}, 0)
        study = load_studies(journal)["gru"]
        drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))  # in memory
        for _ in range(known):
            trial = drawn.ask()
            suggest(trial)
            stopped = random.random() < 0.7
            study.add_trial(
                optuna.trial.create_trial(
                    params=trial.params,
                    distributions=trial.distributions,
                    value=None if stopped else random.random(),
                    intermediate_values={epoch: random.random() for epoch in (3, 9)},
                    state=getattr(optuna.trial.TrialState, "PRUNED" if stopped else "COMPLETE"),
                )
            )
        searcher = OptunaSearcher(journal, {"gru": suggest}, 1)
        for i in range(running):
            searcher.suggest(f"running {i}")
        asks, tells = [], []
        for i in range(asked):
            started = time.perf_counter()
            name = searcher.suggest(f"t{i}")["trial"]
            asks.append(time.perf_counter() - started)
            metrics = {"val_track_accuracy": 0.5, "val_loss": 1.0}
            report = {"metrics": metrics, "best_so_far": 0.5, "epoch": 3, "finished": True}
            started = time.perf_counter()
            searcher.on_trial_result(f"t{i}", report)
            searcher.on_trial_end(
                TrialRecord(name, "gru", {}, status=COMPLETED, curve=[metrics] * 3)
            )
            tells.append(time.perf_counter() - started)
    return {
        "known": known,
        "suggest_ms": 1e3 * float(np.median(asks)),
        "tell_ms": 1e3 * float(np.median(tells)),
    }


def simulate(
    workers: int,
    trials: int,
    epoch_seconds: float,
    report: float,
    trial_end: float,
    suggest: tuple[float, float],
    epochs: int = 27,
    seed: int = 0,
) -> dict[str, float]:
    """Shares of time: how busy the driver is, and how long workers wait for it.

    All costs in seconds; a suggestion costs suggest[0] + suggest[1] * results known. Two thirds of
    the trials that reach epoch 3 or 9 end there, as with ASHA; the epoch times of configurations
    differ (log-normal, deviation 0.5).
    """
    random = np.random.default_rng(seed)
    free = 0.0  # when the driver has served all that came before
    busy = waited = trained = last = 0.0
    started = ended = 0
    # (moment, worker, epochs done, epochs of this trial, seconds per epoch)
    events: list[tuple[float, int, int, int, float]] = []

    def begin(moment: float, worker: int) -> None:
        nonlocal free, busy, waited, started
        if started >= trials:
            return
        cost = suggest[0] + suggest[1] * ended
        free = max(free, moment) + cost
        busy += cost
        waited += free - moment
        started += 1
        pace = epoch_seconds * float(random.lognormal(0, 0.5))
        stop = 3 if random.random() < 2 / 3 else 9 if random.random() < 2 / 3 else epochs
        heapq.heappush(events, (free + pace, worker, 1, stop, pace))

    for worker in range(workers):
        begin(0.0, worker)
    while events:
        moment, worker, done, stop, pace = heapq.heappop(events)
        trained += pace
        free = max(free, moment) + report
        busy += report
        last = max(last, moment)
        if done < stop:  # a worker continues while the driver reads its report
            heapq.heappush(events, (max(moment, free - pace) + pace, worker, done + 1, stop, pace))
            continue
        free += trial_end
        busy += trial_end
        ended += 1
        begin(free, worker)
        waited += free - moment
    return {
        "workers": workers,
        "epoch_seconds": epoch_seconds,
        "hours": last / 3600,
        "driver_busy": busy / last,
        "workers_training": trained / (last * workers),
        "seconds_waited_per_trial": waited / trials,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", default=["suggest", "simulate"])
    parser.add_argument("--known", type=int, nargs="+", default=[10, 100, 1000, 3000])
    parser.add_argument("--asked", type=int, default=20)
    parser.add_argument("--suggest-ms", type=float, nargs=2, default=[30.0, 0.1])
    parser.add_argument("--report-ms", type=float, default=3.0)
    parser.add_argument("--trial-ms", type=float, default=30.0)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    if "suggest" in args.parts:
        figures["suggest"] = []
        for known in args.known:
            figures["suggest"].append(suggestion_cost(known, args.asked))
            print({k: round(v, 2) for k, v in figures["suggest"][-1].items()}, flush=True)
    if "simulate" in args.parts:
        costs = (args.report_ms / 1e3, args.trial_ms / 1e3)
        base, slope = (ms / 1e3 for ms in args.suggest_ms)
        figures["simulate"] = [
            simulate(workers, args.trials, seconds, *costs, (base, slope))
            for workers in (8, 64, 256, 1000)
            for seconds in (1.0, 10.0, 60.0)
        ]
        for row in figures["simulate"]:
            print({k: round(v, 3) for k, v in row.items()}, flush=True)
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
