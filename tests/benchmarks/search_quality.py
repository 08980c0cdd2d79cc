"""How good is a search: real curves, trained once, replayed for several ways of searching.

    python tests/benchmarks/search_quality.py train --tracks GTZAN/log_mel.csv --table TABLE.csv
    python tests/benchmarks/search_quality.py replay --table TABLE.csv --seeds 50 --plot PLOT.svg

`train` trains every configuration of a grid over the space of `gru` to its last epoch, on arrays
reduced so that all of it takes about an hour on two cores, and stores each curve. `replay` lets the
program's own searcher and scheduler, and others, search that table on a simulated cluster, where an
epoch takes as long as it really took.
"""

import argparse
import csv
import itertools
import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _replay import ACCURACY, MAX_EPOCHS, Table, Trace
from _ways import MAIN, SLOW, STUDY, WARM, run

from mgc_ray.config import ClusterConfig, DatasetConfig
from mgc_ray.data.chunks import Chunks, load_chunks
from mgc_ray.data.features import FeatureSet
from mgc_ray.data.features.array import Array
from mgc_ray.settings import Params
from mgc_ray.training.loop import train

# Every combination is trained: 240 configurations. Names and ranges are those of the space `gru`.
GRID: dict[str, list[Any]] = {
    "lr": [1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2],
    "dropout": [0.0, 0.3, 0.6],
    "batch_size": [16, 64],
    "blocks": [3, 4],
    "channels": [8, 16],
    "mixup": [0.0, 0.4],
}
# Epochs over which methods are compared as a whole. A search of 20 trials has fewer; with many more
# those that stop trials early have run the whole table.
COMPARED = 400
METRICS = (ACCURACY, "val_chunk_accuracy", "val_loss")


def reduced(chunks: Chunks, chunks_per_track: int) -> Chunks:
    """Every second band (pairs averaged) and some chunks of each track, spread over it."""
    rows = np.concatenate(
        [
            np.flatnonzero(chunks.track == i)[
                np.linspace(0, (chunks.track == i).sum() - 1, chunks_per_track).round().astype(int)
            ]
            for i in range(len(chunks.tracks))
        ]
    )
    x = chunks.features["array"][rows].astype(np.float32)
    x = x.reshape(len(x), -1, 2, x.shape[2]).mean(2)
    feature = Array(bands=x.shape[1], frames=x.shape[2], value_type="float32")
    return Chunks(
        replace(chunks.info, features=FeatureSet({"array": feature})),
        chunks.track[rows],
        chunks.split[rows],
        chunks.tracks,
        {"array": x},
    )


def curve(job: tuple[Params, Chunks]) -> dict[str, Any]:
    """One configuration to its last epoch."""
    import torch

    torch.set_num_threads(1)
    params, chunks = job
    started = time.perf_counter()
    fixed = {"max_epochs": MAX_EPOCHS, "patience": MAX_EPOCHS, "hidden": 64, "schedule": "cosine"}
    epochs = [epoch.metrics for epoch in train("gru", fixed | params, chunks)]
    seconds = round((time.perf_counter() - started) / MAX_EPOCHS, 3)
    return {
        **params,
        "seconds_an_epoch": seconds,
        **{name: " ".join(f"{metrics[name]:.4f}" for metrics in epochs) for name in METRICS},
    }


def make_table(tracks: str, table: Path, chunks_per_track: int) -> None:
    import tempfile

    from mgc_ray.pipeline.preprocess import preprocess
    from mgc_ray.pipeline.tables import read_tables

    tables = read_tables(DatasetConfig(tracks=tracks, protocol="given"))
    with tempfile.TemporaryDirectory() as name:
        preprocess(tables, Path(name), ClusterConfig())
        chunks = reduced(load_chunks(name, ("train", "valid")), chunks_per_track)
    grid = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    np.random.default_rng(0).shuffle(grid)  # so that the first ones show how much time is left
    started = time.perf_counter()
    with (
        open(table, "w", newline="") as file,
        multiprocessing.get_context("spawn").Pool(2) as pool,
    ):
        writer = csv.DictWriter(file, [*GRID, "seconds_an_epoch", *METRICS])
        writer.writeheader()
        for done, row in enumerate(pool.imap_unordered(curve, [(p, chunks) for p in grid]), 1):
            writer.writerow(row)
            file.flush()
            minutes = (time.perf_counter() - started) / 60
            print(f"{done}/{len(grid)}, {minutes:.1f} min", flush=True)


def replay(job: tuple[str, int, int, int, bool]) -> Trace:
    return run(_table[0], *job)


def replay_all(names: list[str], workers: int, args: argparse.Namespace) -> dict[str, list[Trace]]:
    """The traces of every method, in the order of the seeds."""
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    todo = [(name, seed, workers, args.epochs, args.again) for name in names for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(args.jobs, _load, (args.table,)) as pool:
        traces = iter(pool.map(replay, todo, chunksize=5))
    return {name: [next(traces) for _ in seeds] for name in names}


_table: list[Table] = []  # of a process of the pool


def _load(path: Path) -> None:
    _table.append(Table(path, GRID))


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over seeds (the first axis, or the only one) and its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    means = values[draws].mean(1)
    return (float(values.mean()), *map(float, np.percentile(means, [2.5, 97.5])))


def figures(
    traces: dict[str, list[Trace]], table: Table, budgets: list[int]
) -> dict[str, dict[str, Any]]:
    """Results of each method in points: means and intervals over seeds, and the differences of the
    first method from it, seed by seed.
    """
    found: dict[str, dict[str, Any]] = {}
    first = next(iter(traces.values()))
    for name, runs in traces.items():
        row: dict[str, Any] = {}
        for kind in ("best", "expected"):
            mine = 100 * np.array([getattr(trace, kind) for trace in runs])
            ahead = 100 * np.array([getattr(trace, kind) for trace in first]) - mine
            row[kind] = {b: interval(mine[:, b - 1]) for b in budgets}
            row[f"{kind}_behind"] = {b: interval(ahead[:, b - 1]) for b in budgets}
            # one number for the whole search; later, all have found the best of the table
            row[f"{kind}_behind"]["mean"] = interval(ahead[:, :COMPARED].mean(1))
        near = [np.flatnonzero(trace.best >= table.best - 0.01) for trace in runs]
        epochs = [int(where[0]) + 1 if len(where) else np.inf for where in near]
        row["near_epochs"], row["near_share"] = np.median(epochs), np.isfinite(epochs).mean()
        row["trials"] = float(np.mean([trace.trials for trace in runs]))
        found[name] = row
    return found


def print_figures(found: dict[str, dict[str, Any]], budgets: list[int]) -> None:
    texts = {
        "best": "Best validation track accuracy after this many epochs",
        "expected": "Expected accuracy of the best five trials",
        "best_behind": f"{next(iter(found))!r} minus each, best accuracy",
        "expected_behind": f"{next(iter(found))!r} minus each, expected accuracy of the best five",
    }
    width = max(map(len, found))
    for kind, text in texts.items():
        columns = list(next(iter(found.values()))[kind])
        names = [f"1 to {COMPARED}" if c == "mean" else str(c) for c in columns]
        print(f"\n{text}: mean, 95 % interval")
        extra = "  within 1 point: median epochs, share; trials" if kind == "best" else ""
        print(" " * width + "".join(f"{name:>24}" for name in names) + extra)
        for name, row in found.items():
            cells = ["{:.2f} ({:.2f} to {:.2f})".format(*row[kind][c]) for c in columns]
            line = f"{name:{width}}" + "".join(f"{cell:>24}" for cell in cells)
            if kind == "best":
                line += f"  {row['near_epochs']:.0f}, {row['near_share']:.0%}; {row['trials']:.0f}"
            print(line)


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Replay, print and plot."""
    table = Table(args.table, GRID)
    print(
        f"{len(table)} configurations, best {table.best:.1%}, median "
        f"{np.median(table.accuracies):.1%}; expected accuracy at most {table.expected.max():.1%} "
        f"(explains {table.explained:.0%} of the variance); {args.seeds} seeds"
    )
    names = args.ways or list(STUDY if args.study else WARM if args.warm else MAIN)
    results: dict[str, Any] = {}
    plots = {}
    for workers in args.workers:
        started = time.perf_counter()
        traces = replay_all(names, workers, args)
        plots[workers] = traces
        budgets = [b for b in args.budgets if b <= args.epochs]
        found = figures(traces, table, budgets)
        seconds = time.perf_counter() - started
        print(f"\n--- {workers} worker{'s' * (workers > 1)} ({seconds:.0f} s)")
        print_figures(found, budgets)
        results[str(workers)] = found
    if args.plot:
        plot(plots, table, args.plot)
    return results


def plot(traces: dict[int, dict[str, list[Trace]]], table: Table, path: Path) -> None:
    """Accuracy against epochs for each number of workers, against seconds, and expected."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    most = max(traces)
    panels = [("best", "epochs", w) for w in sorted(traces)]
    panels += [("best", "seconds", most), ("expected", "epochs", most)]
    plt.rcParams["svg.hashsalt"] = "search_quality"  # the same file from the same numbers
    columns = 2
    fig, grid = plt.subplots(
        -(-len(panels) // columns), columns, figsize=(10, 4 * -(-len(panels) // columns) + 0.6)
    )
    for axis in grid.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (kind, unit, workers) in zip(grid.flat, panels, strict=False):
        shown = {name: runs for name, runs in traces[workers].items() if name not in _NOT_SHOWN}
        lows = []
        for style, (name, runs) in zip(_STYLES, shown.items(), strict=False):
            x, y = _on_one_axis(runs, kind, unit)
            mean, low, high = _bands(100 * y)
            axis.plot(x, mean, label=name, **style)
            axis.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)
            lows.append(mean[0])
        five = np.sort(table.expected)[-5:].mean()
        top = 100 * (table.best if kind == "best" else five)
        axis.axhline(top, color="0.4", linewidth=0.8)
        axis.text(x[0], top + 0.1, "best of the table", fontsize=8, color="0.35", va="bottom")
        axis.set_ylim(min(lows), top + 0.08 * (top - min(lows)))
        what = {
            "best": "Best accuracy so far",
            "expected": "Expected accuracy of the best five trials",
        }
        axis.set_title(f"{what[kind]}, {workers} worker{'s' * (workers > 1)}", fontsize=10)
        axis.set_xlabel("epochs spent" if unit == "epochs" else f"seconds, {workers} workers")
        axis.set_ylabel("validation track accuracy (%)")
        axis.set_xscale("log")
        ticks = [t for t in (10, 25, 50, 100, 200, 400, 800, 1600) if x[0] <= t <= x[-1]]
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.set_xticks([], minor=True)
        axis.grid(color="0.92")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=9)
    fig.tight_layout(rect=(0, 0.07, 1, 1))
    fig.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(fig)


_NOT_SHOWN = ("Optuna, SuccessiveHalving", "Optuna, Hyperband")  # they are in the tables
# colours for the colour-blind (Okabe and Ito), and dashes for prints in grey
_STYLES: list[dict[str, Any]] = [
    {"color": color, "linestyle": dash, "linewidth": 2.4 if i == 0 else 1.5}
    for i, (color, dash) in enumerate(
        [
            ("#D55E00", "-"),
            ("#0072B2", "-"),
            ("#0072B2", "--"),
            ("#009E73", "-"),
            ("#CC79A7", "-"),
            ("#000000", ":"),
        ]
    )
]


def _on_one_axis(runs: list[Trace], kind: str, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Points of the axis, and the accuracy of each run there [runs, points]."""
    if unit == "epochs":
        x = np.unique(np.geomspace(25, len(runs[0].best), 80).round().astype(int))
        return x, np.array([getattr(trace, kind)[x - 1] for trace in runs])
    x = np.geomspace(10, min(trace.seconds[-1] for trace in runs), 80)
    at = [np.searchsorted(trace.seconds, x, side="right") - 1 for trace in runs]
    return x, np.array([getattr(t, kind)[i] for t, i in zip(runs, at, strict=True)])


def _bands(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0).integers(0, len(y), (1000, len(y)))
    low, high = np.percentile(y[draws].mean(1), [2.5, 97.5], axis=0)
    return y.mean(0), low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train the grid and store the curves")
    training.add_argument("--tracks", required=True)
    training.add_argument("--table", type=Path, required=True)
    training.add_argument("--chunks-per-track", type=int, default=2)
    search = commands.add_parser("replay", help="search the stored curves in several ways")
    search.add_argument("--table", type=Path, required=True)
    search.add_argument("--seeds", type=int, default=50)
    search.add_argument("--first-seed", type=int, default=0)
    search.add_argument("--epochs", type=int, default=COMPARED, help="that a search may spend")
    search.add_argument("--budgets", type=int, nargs="+", default=[50, 100, 200, 400])
    search.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    search.add_argument("--jobs", type=int, default=2, help="replays at once")
    search.add_argument("--again", action="store_true", help="rows may be used several times")
    search.add_argument("--study", action="store_true", help="the settings that were compared")
    search.add_argument("--warm", action="store_true", help="with and without an earlier search")
    search.add_argument("--ways", nargs="+", choices=MAIN | STUDY | WARM | SLOW, help="only these")
    search.add_argument("--plot", type=Path, metavar="FILE.svg")
    search.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.command == "train":
        make_table(args.tracks, args.table, args.chunks_per_track)
        return
    results = compare(args)
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
