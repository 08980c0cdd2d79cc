"""How fast is training: the program's loop against the usual one, and the effect of threads.

    python tests/benchmarks/training.py --synthetic --json
    python tests/benchmarks/training.py --dataset DIR --parts speed accuracy --epochs 30 --json
    python tests/benchmarks/training.py --synthetic --parts speed --device cuda --workers 0 8 --json

DIR is a dataset made by `python -m mgc_ray.preprocess`. With --synthetic the speed is measured on
random arrays of the published baseline's size (128 bands x 258 frames), the accuracy on the
built-in corpus.

The usual loop is a torch Dataset of standardised float32 spectrograms with SpecAugment for each
sample, a DataLoader (of --workers the fastest number, tried first), mixup in the batch, float32,
NCHW, torch's plain Adam, `loss.item()` in each step. Network, settings, number of epochs and
threads are the same.

- speed: the loops take turns, one epoch each; ratios of chunks per second, after a first epoch that
  does not count. Epochs with validation are compared as well.
- accuracy: best validation track accuracy of both after the same epochs, over the seeds.
- threads: on random arrays of the same size; a trial alone on 1 and on --threads threads, and two
  trials of 1 thread each at the same time. The control is a matrix product instead of a trial: how
  much slower the machine itself is with both cores busy.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mgc_ray.config import ClusterConfig, DatasetConfig, TrainConfig
from mgc_ray.corpus.files import write_corpus
from mgc_ray.data.chunks import Chunks, load_chunks
from mgc_ray.data.dataset import DatasetInfo
from mgc_ray.data.features import FeatureSet
from mgc_ray.data.features.array import Array
from mgc_ray.data.tracks import Track
from mgc_ray.evaluation.metrics import accuracy, log_loss, track_probs
from mgc_ray.models import configure
from mgc_ray.models._classifier import Classifier
from mgc_ray.pipeline.preprocess import preprocess
from mgc_ray.pipeline.tables import read_tables
from mgc_ray.settings import Params
from mgc_ray.training.descent import share_of_lr
from mgc_ray.training.loop import train

ACCURACY = "val_track_accuracy"
BASELINE_SIZE = (128, 258)  # bands, frames
ENDLESS: Params = {"max_epochs": 100_000, "patience": 100_000}


# The usual loop


def usual(
    family: str,
    params: Params,
    chunks: Chunks,
    device: str | torch.device = "cpu",
    workers: int = 0,
) -> Iterator[tuple[dict[str, float], nn.Module]]:
    """Train as one usually does; each epoch's metrics, named as in `train`, and the network."""
    config, settings = configure(family, params)
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    device = torch.device(device)
    genres = len(chunks.info.genres)
    train_rows, valid_rows = chunks.rows("train"), chunks.rows("valid")
    loading: dict[str, Any] = {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": device.type == "cuda",
    }
    train_loader = DataLoader(
        Spectrograms(chunks, train_rows, settings),
        settings.batch_size,
        shuffle=True,
        drop_last=len(train_rows) % settings.batch_size == 1,  # batch norm cannot take one
        **loading,
    )
    valid_loader = DataLoader(Spectrograms(chunks, valid_rows, None), 256, **loading)
    network = Classifier(family, config, chunks.info.features, genres).network.to(device)
    network.convolutions.register_forward_pre_hook(_as_nchw)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    optimizer = kind(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    steps = len(train_loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: share_of_lr(step / steps, settings)
    )

    best, waited = (-1.0, 0.0), 0
    for _ in range(settings.max_epochs):
        started = time.perf_counter()
        network.train()
        total = 0.0
        for x, genre in train_loader:
            x = x.to(device, non_blocking=True)
            target = F.one_hot(genre.to(device, non_blocking=True), genres).float()
            if settings.mixup > 0:
                share = random.beta(settings.mixup, settings.mixup)
                other = torch.randperm(len(x), device=device)
                x = share * x + (1 - share) * x[other]
                target = share * target + (1 - share) * target[other]
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x), target, label_smoothing=settings.label_smoothing)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        trained = time.perf_counter() - started

        network.eval()
        parts = []
        with torch.no_grad():
            for x, _ in valid_loader:
                parts.append(network(x.to(device)).softmax(1).cpu().numpy())
        probs, genre_of = np.concatenate(parts), chunks.genre[valid_rows]
        tracks, by_track = track_probs(probs, chunks.track[valid_rows])
        metrics = {
            "train_loss": total / steps,
            "val_loss": log_loss(probs, genre_of),
            ACCURACY: accuracy(by_track.argmax(1), chunks.track_genre[tracks]),
            "epoch_seconds": time.perf_counter() - started,
            "chunks_per_second": len(train_rows) / trained,
        }
        score = (metrics[ACCURACY], -metrics["val_loss"])
        waited = 0 if score > best else waited + 1
        best = max(score, best)
        yield metrics, network
        if waited >= settings.patience:
            return


class Spectrograms(Dataset):
    """Standardised float32 spectrograms and genres; with settings, each is augmented separately."""

    def __init__(self, chunks: Chunks, rows: np.ndarray, settings: TrainConfig | None) -> None:
        ((name, self._spectrograms),) = chunks.features.items()
        mean, deviation = chunks.band_statistics[name]
        self._mean, self._deviation = mean[:, None], deviation[:, None]
        self._genre = chunks.genre
        self._rows, self._settings = rows, settings

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = self._rows[index]
        x = self._spectrograms[row].astype(np.float32)
        x -= self._mean
        x /= self._deviation
        if self._settings:
            _spec_augment_one(x, self._settings)
        return torch.from_numpy(x), int(self._genre[row])


def _spec_augment_one(x: np.ndarray, settings: TrainConfig) -> None:
    """SpecAugment of one spectrogram [bands, frames], in place."""
    bands, frames = x.shape
    for _ in range(settings.masks):
        start, end = _range(bands, settings.freq_mask)
        x[start:end] = 0
        start, end = _range(frames, round(settings.time_mask * frames))
        x[:, start:end] = 0


def _range(length: int, widest: int) -> tuple[int, int]:
    # torch's generator, for which each worker gets another seed
    width = int(torch.randint(min(widest, length) + 1, ()))
    start = int(torch.randint(length - width + 1, ()))
    return start, start + width


def _as_nchw(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    """Undo the families' channels-last: what `x.unsqueeze(1)` gives."""
    return (args[0].squeeze(1).unsqueeze(1),)


def usual_metrics(*args: Any) -> Iterator[dict[str, float]]:
    return (metrics for metrics, _ in usual(*args))


def ours(
    family: str, params: Params, chunks: Chunks, device: str | torch.device = "cpu"
) -> Iterator[dict[str, float]]:
    return (epoch.metrics for epoch in train(family, params, chunks, device))


# Data


def random_chunks(train_chunks: int, valid_chunks: int, bands: int, frames: int) -> Chunks:
    """Noise: one chunk per track, ten genres, float32."""
    random = np.random.default_rng(0)
    count = train_chunks + valid_chunks
    genres = tuple(f"genre{i}" for i in range(10))
    split = np.array(["train"] * train_chunks + ["valid"] * valid_chunks)
    tracks = [
        Track(f"track{i}", genres[i % 10], f"track{i}", "", f"track{i}", str(split[i]))
        for i in range(count)
    ]
    info = DatasetInfo(
        config=DatasetConfig(tracks="random", protocol="given"),
        features=FeatureSet({"array": Array(bands=bands, frames=frames, value_type="float32")}),
        listing="",
        genres=genres,
        tracks=count,
        finished=True,
    )
    x = random.normal(-40, 15, (count, bands, frames)).astype(np.float32)
    return Chunks(info, np.arange(count), split, tracks, {"array": x})


def built_in_corpus(tracks_per_genre: int, seconds: float) -> Chunks:
    with tempfile.TemporaryDirectory() as name:
        table = write_corpus(Path(name) / "corpus", tracks_per_genre, 0, seconds)
        tables = read_tables(DatasetConfig(tracks=str(table)))
        preprocess(tables, Path(name) / "dataset", ClusterConfig())
        return load_chunks(Path(name) / "dataset", ("train", "valid"))


def size_of(chunks: Chunks) -> tuple[int, int]:
    """Bands and frames of the only feature."""
    (feature,) = chunks.info.features.columns.values()
    return feature.bands, feature.frames


# Speed


def speed(family: str, chunks: Chunks, args: argparse.Namespace) -> dict[str, Any]:
    """Chunks per second and seconds per epoch of both loops, and their ratios."""
    torch.set_num_threads(args.threads)
    params = ENDLESS | {"seed": 0}
    candidates = {n: usual_metrics(family, params, chunks, args.device, n) for n in args.workers}
    tried = {}
    for workers, loop in candidates.items():
        next(loop)
        tried[workers] = max(next(loop)["chunks_per_second"] for _ in range(2))
    best = max(tried, key=lambda workers: tried[workers])
    sides = {"ours": ours(family, params, chunks, args.device), "usual": candidates.pop(best)}
    candidates.clear()  # ends the workers of the other loaders
    next(sides["ours"])
    found: dict[str, dict[str, list[float]]] = {side: defaultdict(list) for side in sides}
    for _ in range(args.repeats):
        for side, loop in sides.items():
            metrics = next(loop)
            for name in ("chunks_per_second", "epoch_seconds"):
                found[side][name].append(metrics[name])
    rates = [found[side]["chunks_per_second"] for side in ("ours", "usual")]
    seconds = [found[side]["epoch_seconds"] for side in ("usual", "ours")]
    result = {
        "chunks": {split: len(chunks.rows(split)) for split in ("train", "valid")},
        "size": list(size_of(chunks)),
        "threads": args.threads,
        "usual_by_workers": tried,
        "workers": best,
        "chunks_per_second": {side: summary(found[side]["chunks_per_second"]) for side in sides},
        "epoch_seconds": {side: summary(found[side]["epoch_seconds"]) for side in sides},
        "ratio_of_training": summary([a / b for a, b in zip(*rates, strict=True)]),
        "ratio_of_epochs": summary([a / b for a, b in zip(*seconds, strict=True)]),
    }
    print(f"{family}, {result['chunks']} chunks of {result['size']}, {args.threads} threads")
    for name in ("chunks_per_second", "epoch_seconds"):
        for side in sides:
            print(f"  {name:18} {side:6} {in_words(result[name][side])}")
    print(f"  usual loop by workers: { {n: round(rate, 1) for n, rate in tried.items()} }")
    print(f"  ours / usual, training        {in_words(result['ratio_of_training'])}")
    print(f"  ours / usual, with validation {in_words(result['ratio_of_epochs'])}", flush=True)
    return result


# Accuracy


def compare_accuracy(family: str, chunks: Chunks, args: argparse.Namespace) -> dict[str, Any]:
    """Best validation track accuracy of both loops after the same number of epochs."""
    torch.set_num_threads(args.threads)
    best: dict[str, list[float]] = {"ours": [], "usual": []}
    seconds: dict[str, list[float]] = {"ours": [], "usual": []}
    for seed in args.seeds:
        params = {"max_epochs": args.epochs, "patience": args.epochs, "seed": seed}
        for side, loop in (
            ("ours", ours(family, params, chunks, args.device)),
            ("usual", usual_metrics(family, params, chunks, args.device, args.workers[0])),
        ):
            epochs = list(loop)
            best[side].append(max(metrics[ACCURACY] for metrics in epochs))
            seconds[side].append(sum(metrics["epoch_seconds"] for metrics in epochs))
        last = {side: f"{best[side][-1]:.3f} in {seconds[side][-1]:.0f} s" for side in best}
        print(f"{family}, seed {seed}, {args.epochs} epochs: {last}", flush=True)
    difference = [a - b for a, b in zip(best["ours"], best["usual"], strict=True)]
    result = {
        "epochs": args.epochs,
        "valid_tracks": len(np.unique(chunks.track[chunks.rows("valid")])),
        **{side: summary(values) for side, values in best.items()},
        "difference": summary(difference),
    }
    for side in best:
        print(
            f"  {side:6} mean {result[side]['mean']:.3f}, deviation {result[side]['deviation']:.3f}"
        )
    d = result["difference"]
    print(
        f"  difference mean {d['mean']:+.3f}, deviation {d['deviation']:.3f}, n = {d['n']}, "
        f"{result['valid_tracks']} tracks",
        flush=True,
    )
    return result


# Threads


def threads(family: str, size: tuple[int, int], args: argparse.Namespace) -> dict[str, Any]:
    """Throughput of trials alone and side by side, and of a matrix product likewise."""
    runs: dict[str, tuple[Any, int, int]] = {  # work, processes, threads each
        "one trial, 1 thread": (family, 1, 1),
        "two trials, 1 thread each": (family, 2, 1),
        f"one trial, {args.threads} threads": (family, 1, args.threads),
        "one product, 1 thread": (None, 1, 1),
        "two products, 1 thread each": (None, 2, 1),
    }
    rates: dict[str, list[float]] = defaultdict(list)
    busy: dict[str, list[float]] = defaultdict(list)
    for repeat in range(args.repeats):
        # in reverse order every second time, so that a drift of the machine cancels
        for name, (work, processes, count) in list(runs.items())[:: 1 if repeat % 2 == 0 else -1]:
            found = _side_by_side(work, processes, count, size, args.window)
            rates[name].append(sum(rate for rate, _ in found))
            busy[name] += [cores for _, cores in found]
    alone, both, wide, product, products = (rates[name] for name in runs)
    result = {
        "rate": {name: summary(rates[name]) for name in runs},
        "busy_cores_per_process": {name: summary(busy[name]) for name in runs},
        "two_trials_to_twice_one": summary([b / (2 * a) for a, b in zip(alone, both, strict=True)]),
        "control_two_products_to_twice_one": summary(
            [b / (2 * a) for a, b in zip(product, products, strict=True)]
        ),
        "more_threads_to_one": summary([w / a for a, w in zip(alone, wide, strict=True)]),
    }
    print(f"threads, {family}, chunks of {list(size)}, windows of {args.window:g} s")
    for name in runs:
        cores = statistics.median(busy[name])
        print(
            f"  {name:28} {in_words(result['rate'][name])} per second, {cores:.2f} cores busy each"
        )
    print(f"  two trials / twice one        {in_words(result['two_trials_to_twice_one'])}")
    print(
        f"  control: products             {in_words(result['control_two_products_to_twice_one'])}"
    )
    print(f"  {args.threads} threads / 1 thread          {in_words(result['more_threads_to_one'])}")
    return result


def _side_by_side(
    work: str | None, processes: int, count: int, size: tuple[int, int], window: float
) -> list[tuple[float, float]]:
    """Units of work per second and busy cores of each of the processes, which start together."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    children = [
        context.Process(target=_child, args=(work, count, size, window, barrier, results))
        for _ in range(processes)
    ]
    for child in children:
        child.start()
    found = [results.get(timeout=600) for _ in children]
    for child in children:
        child.join()
    return found


def _child(
    work: str | None, count: int, size: tuple[int, int], window: float, barrier: Any, results: Any
) -> None:
    torch.set_num_threads(count)
    unit = _matrix_product() if work is None else _trial(work, size)
    unit()  # includes what only the first call needs
    barrier.wait()
    started, cpu = time.perf_counter(), time.process_time()
    done, elapsed, busy = 0.0, 0.0, 0.0
    while True:
        amount = unit()
        now = time.perf_counter() - started
        if now > window and done:
            break  # this last one does not count: it only kept the cores busy for the others
        done, elapsed, busy = done + amount, now, time.process_time() - cpu
    results.put((done / elapsed, busy / elapsed))


def _trial(family: str, size: tuple[int, int]) -> Callable[[], float]:
    """An epoch of training with its validation; counts its chunks."""
    chunks = random_chunks(160, 32, *size)
    loop = train(family, ENDLESS | {"seed": 0}, chunks)

    def unit() -> float:
        next(loop)
        return 160.0

    return unit


def _matrix_product() -> Callable[[], float]:
    a = torch.randn(512, 512)

    def unit() -> float:
        for _ in range(100):
            torch.mm(a, a)
        return 100.0

    return unit


# Results


def summary(values: list[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "mean": statistics.mean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
        "n": len(values),
        "values": values,
    }


def in_words(s: dict[str, Any]) -> str:
    return f"{s['median']:.2f} ({s['low']:.2f} to {s['high']:.2f}, n = {s['n']})"


def machine(device: str) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "matrix_units_for_bf16": torch.cpu._is_amx_tile_supported(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", metavar="DIR")
    parser.add_argument("--synthetic", action="store_true", help="random arrays, built-in corpus")
    parts = ["speed", "accuracy", "threads"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--families", nargs="+", default=["cnn", "gru"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the DataLoader")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chunks", type=int, nargs=2, default=[960, 240], help="of --synthetic")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=15, help="for the accuracy")
    parser.add_argument(
        "--corpus",
        type=float,
        nargs=2,
        default=[30, 6.0],
        help="the built-in corpus: tracks per genre, seconds per track",
    )
    parser.add_argument("--window", type=float, default=10.0, help="seconds, for threads")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if bool(args.dataset) == args.synthetic:
        parser.error("one of --dataset DIR and --synthetic is needed")

    chunks = (
        load_chunks(args.dataset, ("train", "valid"))
        if args.dataset
        else random_chunks(*args.chunks, *BASELINE_SIZE)
    )
    found: dict[str, Any] = {"machine": machine(args.device)}
    print(found["machine"])
    if "speed" in args.parts:
        found["speed"] = {family: speed(family, chunks, args) for family in args.families}
    if "accuracy" in args.parts:
        labelled = chunks if args.dataset else built_in_corpus(int(args.corpus[0]), args.corpus[1])
        found["accuracy"] = {f: compare_accuracy(f, labelled, args) for f in args.families}
    if "threads" in args.parts:
        size = size_of(chunks)
        found["threads"] = {family: threads(family, size, args) for family in args.families}
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
