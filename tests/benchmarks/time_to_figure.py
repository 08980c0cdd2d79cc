"""How long until a good accuracy: the program's search, stock Ray Tune and plain Optuna.

    python tests/benchmarks/time_to_figure.py --dataset DIR --seeds 0 1 2 --minutes 3.5 --json

DIR is a dataset made by `python -m mgc_ray.preprocess`. All sides search the same space
(search_spaces/FAMILY.py) on the same chunks (--chunks-per-track of each track, so that a trial
takes a minute or less) with at most --max-epochs per trial; the first trial of each is the family's
defaults. Each side is a separate process, and its time counts from the start of that, with imports,
reading the dataset and starting Ray.

Every side trains on --device: on a CPU none uses a GPU that is there, on a GPU each trial of ours
and of Ray Tune has the same share of one.

- ours: `run_trials` as `mgc_ray.search` calls it, with its defaults.
- ray: stock Ray Tune; a function trainable with the usual loop (training.py), which reports each
  epoch with a checkpoint, OptunaSearch, ASHAScheduler and the default loggers, one CPU per trial.
- optuna: plain Optuna; the usual loop on all cores, one trial after the other, TPE, MedianPruner.

The goal is the best validation track accuracy that `optuna` reaches within its minutes. Printed:
when each side first reaches it, and the ratios of these times. A side that does not reach it is
marked: its time is more than its minutes, and the ratio is a bound.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ACCURACY = "val_track_accuracy"
SIDES = ("ours", "ray", "optuna")


# The sides; each returns [seconds since the start, accuracy] of every epoch of every trial


# augmentation and averaging that the usual loop of training.py does not have
ONLY_OURS = {
    *("pitch_shift", "time_stretch", "time_shift", "tilt", "gain"),
    *("crop", "crops", "averaging"),
}


def search_ours(args: argparse.Namespace) -> list[list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from mgc_ray.config import ClusterConfig, SearchConfig, TuneConfig
    from mgc_ray.data.storage import SharedFolder
    from mgc_ray.terminal.process import prepare_process
    from mgc_ray.tuning.cluster import ray_cluster
    from mgc_ray.tuning.run import run_trials
    from mgc_ray.tuning.tensorboard import FOLDER

    prepare_process()
    spaces = {args.family: narrow_space(args.family)}
    with tempfile.TemporaryDirectory() as name, ray_cluster(ClusterConfig()) as cluster:
        tuning = TuneConfig(
            trials=100_000,
            max_epochs=args.max_epochs,
            time_limit=left(args),
            gpus_per_trial=args.gpus_per_trial,
        )
        config = SearchConfig(family=(args.family,), seed=args.seed, tuning=tuning)
        shared, resources = SharedFolder(Path(name), None), cluster.share(tuning)
        run_trials(shared, config, spaces, load(args), resources)
        events = []
        for folder in Path(name, FOLDER).iterdir():
            if not folder.is_dir():
                continue
            curves = EventAccumulator(str(folder)).Reload()
            if "accuracy/validation_tracks" in curves.Tags()["scalars"]:
                events += [
                    [event.wall_time - args.started, event.value]
                    for event in curves.Scalars("accuracy/validation_tracks")
                ]
    return events


def search_ray(args: argparse.Namespace) -> list[list[float]]:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    chunks, suggest, defaults = load(args), *space(args.family)
    clock = Clock(args.started)
    with tempfile.TemporaryDirectory() as name:
        trainable = tune.with_parameters(
            stock_trainable,
            chunks=chunks,
            family=args.family,
            fixed=fixed(args),
            device=args.device,
        )
        per_trial = {"cpu": 1, "gpu": args.gpus_per_trial}
        tuner = tune.Tuner(
            tune.with_resources(trainable, per_trial),
            tune_config=tune.TuneConfig(
                metric=ACCURACY,
                mode="max",
                search_alg=OptunaSearch(
                    space=suggest,
                    metric=ACCURACY,
                    mode="max",
                    points_to_evaluate=[defaults],
                    seed=args.seed,
                ),
                scheduler=ASHAScheduler(max_t=args.max_epochs),
                num_samples=100_000,
                time_budget_s=left(args),
            ),
            run_config=tune.RunConfig(storage_path=name, callbacks=[clock.callback()]),
        )
        tuner.fit()
    return clock.events


def stock_trainable(
    config: dict[str, Any], chunks: Any, family: str, fixed: dict, device: str
) -> None:
    import torch
    from ray import tune
    from training import usual

    for metrics, network in usual(family, fixed | config, chunks, device):
        with tempfile.TemporaryDirectory() as folder:
            torch.save(network.state_dict(), Path(folder) / "model.pt")
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def search_optuna(args: argparse.Namespace) -> list[list[float]]:
    import optuna
    import torch
    from training import usual

    torch.set_num_threads(os.cpu_count() or 1)
    chunks, suggest, defaults = load(args), *space(args.family)
    clock = Clock(args.started)

    def objective(trial: optuna.Trial) -> float:
        best = 0.0
        params = fixed(args) | suggest(trial)
        for step, (metrics, _) in enumerate(usual(args.family, params, chunks, args.device)):
            clock.note(metrics[ACCURACY])
            best = max(best, metrics[ACCURACY])
            trial.report(metrics[ACCURACY], step)
            if left(args) <= 0:
                trial.study.stop()
            if left(args) <= 0 or trial.should_prune():
                raise optuna.TrialPruned
        return best

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=args.seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.enqueue_trial(defaults)
    study.optimize(objective, timeout=left(args))
    return clock.events


class Clock:
    """Records when each accuracy was known."""

    def __init__(self, started: float) -> None:
        self._started = started
        self.events: list[list[float]] = []

    def note(self, accuracy: float) -> None:
        self.events.append([time.time() - self._started, accuracy])

    def callback(self) -> Any:
        """The same, as Tune calls it with each result."""
        from ray import tune

        note = self.note

        class Notes(tune.Callback):
            def on_trial_result(self, result: dict[str, Any], **info: Any) -> None:
                note(result[ACCURACY])

            def __getstate__(self) -> dict[str, Any]:
                return {}

        return Notes()


# What the sides share


def load(args: argparse.Namespace) -> Any:
    """Some chunks of each track of the dataset, spread over the track."""
    from mgc_ray.data.chunks import load_chunks

    chunks = load_chunks(args.dataset, ("train", "valid"))
    rows = []
    for track in range(len(chunks.tracks)):
        of_track = np.flatnonzero(chunks.track == track)
        count = min(args.chunks_per_track, len(of_track))
        rows.append(of_track[np.linspace(0, len(of_track) - 1, count).round().astype(int)])
    taken = np.concatenate(rows)
    return replace(
        chunks,
        features={name: x[taken] for name, x in chunks.features.items()},
        track=chunks.track[taken],
        split=chunks.split[taken],
    )


def space(family: str) -> tuple[Any, dict[str, Any]]:
    """`suggest` of the family's search space, and the defaults as it would suggest them."""
    from optuna.trial import FixedTrial

    from mgc_ray.models import full_params

    suggest = narrow_space(family)
    trial = FixedTrial(full_params(family, {}))
    suggest(trial)
    return suggest, dict(trial.params)


def narrow_space(family: str) -> Any:
    """The family's `suggest` without what the usual loop lacks: all sides search that."""
    module: Any = importlib.import_module(f"search_spaces.{family}")
    whole = importlib.import_module("search_spaces.common").suggest_training

    def suggest_training(trial: Any) -> dict[str, Any]:
        return {k: v for k, v in whole(trial).items() if k not in ONLY_OURS}

    module.suggest_training = suggest_training
    return module.suggest


def fixed(args: argparse.Namespace) -> dict[str, Any]:
    return {"max_epochs": args.max_epochs, "seed": args.seed}


def left(args: argparse.Namespace) -> float:
    """Seconds of the side's minutes that are left."""
    return args.started + 60 * args.minutes - time.time()


# The comparison


def run_side(side: str, seed: int, args: argparse.Namespace) -> list[list[float]]:
    """Run one side in a separate process; its events, in order of time."""
    with tempfile.TemporaryDirectory() as name:
        out, log = Path(name) / "events.json", Path(name) / "log"
        command = [
            *(sys.executable, __file__, "--side", side, "--seed", str(seed), "--out", str(out)),
            *("--started", str(time.time()), "--dataset", args.dataset, "--family", args.family),
            *("--minutes", str(args.minutes), "--max-epochs", str(args.max_epochs)),
            *("--chunks-per-track", str(args.chunks_per_track), "--device", args.device),
            *("--gpus-per-trial", str(args.gpus_per_trial)),
        ]
        with log.open("w") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
        if done.returncode or not out.exists():
            raise SystemExit(f"{side}, seed {seed}, failed:\n{log.read_text()[-3000:]}")
        return sorted(json.loads(out.read_text()))


def reached(events: list[list[float]], goal: float, within: float) -> float | None:
    """When an accuracy of at least `goal` was first known; None: not within so many seconds."""
    # the events of TensorBoard are float32
    times = [seconds for seconds, accuracy in events if accuracy > goal - 1e-6]
    return times[0] if times and times[0] <= within else None


def compare(args: argparse.Namespace) -> dict[str, Any]:
    within = 60 * args.minutes
    seeds = []
    for number, seed in enumerate(args.seeds):
        order = [SIDES[(number + i) % len(SIDES)] for i in range(len(SIDES))]
        events = {side: run_side(side, seed, args) for side in order}
        events = {side: [e for e in events[side] if e[0] <= within] for side in SIDES}
        best = {side: max((a for _, a in events[side]), default=0.0) for side in SIDES}
        goal = best["optuna"]
        if not events["optuna"]:
            raise SystemExit(f"optuna ended no epoch in {within:.0f} s: give more by --minutes")
        times = {side: reached(events[side], goal, within) for side in SIDES}
        seeds.append(
            {
                "seed": seed,
                "goal": goal,
                "seconds_to_goal": times,
                "best": best,
                "epochs": {side: len(events[side]) for side in SIDES},
                "progress": {side: improvements(events[side]) for side in SIDES},
            }
        )
        print(f"seed {seed}: goal {goal:.3f}")
        for side in SIDES:
            when = f"after {times[side]:5.0f} s" if times[side] else f"not in {within:.0f} s"
            print(
                f"  {side:6} {when}, best {best[side]:.3f}, {len(events[side])} epochs", flush=True
            )
    result: dict[str, Any] = {
        "family": args.family,
        "minutes": args.minutes,
        "max_epochs": args.max_epochs,
        "chunks_per_track": args.chunks_per_track,
        "device": args.device,
        "seeds": seeds,
    }
    for other in ("ray", "optuna"):
        pairs = [(s["seconds_to_goal"][other], s["seconds_to_goal"]["ours"]) for s in seeds]
        values = [(slow or within) / (fast or within) for slow, fast in pairs]
        bounds = [bound(slow, fast) for slow, fast in pairs]
        result[f"{other}_to_ours"] = {
            "ratios": values,
            "bounds": bounds,
            "median": statistics.median(values),
        }
        shown = ", ".join(f"{b}{v:.2f}" for v, b in zip(values, bounds, strict=True))
        print(f"time of {other} / ours: {shown}; median {statistics.median(values):.2f}")
    return result


def bound(slow: float | None, fast: float | None) -> str:
    """How a ratio is known: exactly, at least, at most, or not at all (neither reached it)."""
    if slow is not None:
        return "" if fast is not None else "at most "
    return "at least " if fast is not None else "unknown, taken as "


def improvements(events: list[list[float]]) -> list[list[float]]:
    """The events that were better than all earlier ones."""
    best, kept = -1.0, []
    for seconds, accuracy in events:
        if accuracy > best:
            best = accuracy
            kept.append([round(seconds, 2), accuracy])
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", metavar="DIR", required=True)
    parser.add_argument("--family", default="gru")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=3.5, help="for each side and seed")
    parser.add_argument("--max-epochs", type=int, default=15)
    parser.add_argument("--chunks-per-track", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of every side")
    parser.add_argument(
        "--gpus-per-trial", type=float, help="with --device cuda (default: 0.25), of both of Ray's"
    )
    parser.add_argument("--json", action="store_true")
    for name, kind in (("side", str), ("seed", int), ("started", float), ("out", str)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.gpus_per_trial is None:
        args.gpus_per_trial = 0.25 if args.device == "cuda" else 0.0
    if (args.gpus_per_trial > 0) != (args.device == "cuda"):
        parser.error("--gpus-per-trial is for --device cuda, and is more than 0 there")
    if args.side:  # this is the process of one side
        search = {"ours": search_ours, "ray": search_ray, "optuna": search_optuna}[args.side]
        Path(args.out).write_text(json.dumps(search(args)))
        return
    result = compare(args)
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
