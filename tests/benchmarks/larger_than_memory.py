"""Training from a dataset that is several times larger than the memory a process may use.

    python tests/benchmarks/larger_than_memory.py --gib 4 --limit 1.25
    python tests/benchmarks/larger_than_memory.py --gib 0.5 --parts cost --repeats 5

bounded  a dataset of --gib GiB (random spectrograms of the default size) is written; a process that
         may use --limit GiB of memory of its own (RLIMIT_DATA) trains an epoch on it, another with
         the same limit tries to load it
cost     chunks a second of training, streamed against resident, alternately, without a limit
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SMALL = {
    "blocks": 3,
    "channels": 8,
    "batch_size": 32,
    "max_epochs": 1,
}  # quick compared with reading


def write_dataset(folder: Path, gib: float) -> int:
    """Random spectrograms with as many tracks as fill `gib`; the number of chunks."""
    from mgc_ray.config import DatasetConfig
    from mgc_ray.data.dataset import (
        TRACKS_PER_SHARD,
        DatasetInfo,
        TrackPlace,
        finish,
        shard_path,
        write_shard,
        write_tracks,
    )
    from mgc_ray.data.features import FeatureSet, TrackFeatures
    from mgc_ray.data.features.log_mel import LogMel
    from mgc_ray.data.tracks import Track

    feature = LogMel()
    features = FeatureSet({"log_mel": feature})
    tracks = round(gib * 2**30 / features.chunk_bytes / 10)
    genres = tuple(f"genre {i}" for i in range(10))
    names = [f"{i:06d}" for i in range(tracks)]
    table = [
        Track(f"/{n}.wav", genres[i % 10], n, "", n, "train" if i < 0.8 * tracks else "valid")
        for i, n in enumerate(names)
    ]
    shards = -(-tracks // TRACKS_PER_SHARD)
    config = DatasetConfig(tracks="random", protocol="given")
    info = DatasetInfo(config, features, "", genres, tracks, shards)
    random = np.random.default_rng(0)
    shape = (10, feature.bands, feature.frames)
    places = []
    for shard in range(shards):
        rows = []
        for track in table[shard * TRACKS_PER_SHARD : (shard + 1) * TRACKS_PER_SHARD]:
            x = random.normal(-40, 15, shape).astype(np.float32)
            places.append(
                (track, TrackPlace(shard, len(rows), 10, 30.0, track.track_id, track.track_id))
            )
            rows.append((track, TrackFeatures({"log_mel": x}, 30.0, track.track_id)))
        write_shard(shard_path(folder, shard), info, rows, [])
    write_tracks(folder, places)
    finish(folder, info)
    return 10 * tracks


def train_one_epoch(
    folder: Path, limit: float | None, memory: float | None, results: Any, threads: int
) -> None:
    """In a separate process: its speed and the most memory it had."""
    import torch

    from mgc_ray.data.chunks import open_chunks
    from mgc_ray.training.loop import train

    torch.set_num_threads(threads)
    if limit:
        size = int(limit * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    try:
        size = None if memory is None else int(memory * 2**30)
        started = time.perf_counter()
        chunks = open_chunks(folder, ("train", "valid"), size)
        opened = time.perf_counter() - started
        epoch = next(train("cnn", SMALL, chunks))
        results.put(
            {
                "how": type(chunks).__name__,
                "chunks_per_second": epoch.metrics["chunks_per_second"],
                "epoch_seconds": epoch.metrics["epoch_seconds"],
                "open_seconds": opened,
                "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
        )
    except Exception as error:
        results.put({"how": "failed", "error": f"{type(error).__name__}: {error}"})


def in_process(*args: Any, threads: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=train_one_epoch, args=(*args, results, threads))
    process.start()
    result: dict[str, Any] = results.get()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", default=["bounded", "cost"])
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--limit", type=float, default=1.25)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        if "bounded" in args.parts:
            chunks = write_dataset(Path(name) / "large", args.gib)
            print(f"{chunks} chunks, {args.gib} GiB; the process may use {args.limit} GiB")
            for what, memory in (("streamed", None), ("loaded", 1e6)):
                found[what] = in_process(
                    Path(name) / "large", args.limit, memory, threads=args.threads
                )
                print(f"{what}: {found[what]}", flush=True)
        if "cost" in args.parts:
            write_dataset(Path(name) / "small", min(args.gib, 0.5))
            speeds: dict[str, list[float]] = {"streamed": [], "resident": []}
            for _ in range(args.repeats):
                for what, memory in (("streamed", 0.0), ("resident", 1e6)):
                    result = in_process(Path(name) / "small", None, memory, threads=args.threads)
                    speeds[what].append(result["chunks_per_second"])
            ratios = np.array(speeds["streamed"]) / np.array(speeds["resident"])
            found["cost"] = {
                **{what: float(np.median(values)) for what, values in speeds.items()},
                "streamed / resident": float(np.median(ratios)),
                "least and most": [float(ratios.min()), float(ratios.max())],
                "n": args.repeats,
            }
            print(f"cost: {found['cost']}", flush=True)
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
