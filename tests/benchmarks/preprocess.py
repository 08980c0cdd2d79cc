"""How fast is preprocessing: one core against librosa, many workers against one; in what memory.

    python tests/benchmarks/preprocess.py                      # the built-in corpus, 1,000 tracks
    python tests/benchmarks/preprocess.py --audio FOLDER       # FOLDER/GENRE/FILE, real music

Parts, of which --parts chooses:

- features: file -> dB log-mel chunks on one core, decoding included, against soundfile + librosa
- passes: what a track's steps cost, and the share of the first pass
- workers: both passes with Ray against one process on one core, and against as many processes as
  there are cores (what the machine itself gives); Ray's start is stated apart
- memory: peak of the driver and of its workers for a quarter of the tracks and for all
- again: the command once more on a finished dataset
- million: the first pass over a million tracks that are no files: what Ray and the driver take;
  not among the defaults
- gpu: `transform_tracks` on a GPU against one core; not among the defaults (--gpu); this part
  has not been run yet

Both sides of a ratio run alternately; ratios are given as median (min to max, n). --json prints
all figures as the last line. A busy machine makes all of it worthless.
"""

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mgc_ray.data.audio import read_waveform
from mgc_ray.data.corpus import write_corpus
from mgc_ray.data.dataset import TRACKS_PER_SHARD, DatasetInfo, shard_path, write_shard
from mgc_ray.data.spectrogram import Inspection, LogMel
from mgc_ray.data.tracks import Track

DEFAULT_PARTS = ("features", "passes", "workers", "memory", "again")
PARTS = (*DEFAULT_PARTS, "million", "gpu")
# one thread for either side; the libraries read them when they are imported
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
CORES = sorted(os.sched_getaffinity(0))
FEATURES = LogMel()
INFO = DatasetInfo(FEATURES, (), "grouped", 0, "", "", 0, 0)
SPAWN = multiprocessing.get_context("spawn")


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def seconds_of_each(function: Callable[[Any], Any], arguments: list[Any]) -> float:
    """Mean over the arguments."""
    return sum(seconds(function, argument) for argument in arguments) / len(arguments)


def spread(values: list[float], digits: int = 2) -> str:
    middle, low, high = np.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f}, n = {len(values)})"


# --- one core ---


def by_librosa(path: str) -> np.ndarray:
    """What `LogMel.chunks` gives, with soundfile and librosa alone."""
    import librosa

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples = librosa.to_mono(samples.T)
    if rate != FEATURES.sample_rate:
        samples = librosa.resample(samples, orig_sr=rate, target_sr=FEATURES.sample_rate)
    count = len(samples) // FEATURES.chunk_samples
    samples = samples[: count * FEATURES.chunk_samples]
    return librosa_chunks(samples.reshape(count, FEATURES.chunk_samples))


def librosa_chunks(waveforms: np.ndarray) -> np.ndarray:
    """Waveforms [chunks, samples] -> dB [chunks, bands, frames], one by one."""
    import librosa

    mels = [
        librosa.feature.melspectrogram(
            y=samples,
            sr=FEATURES.sample_rate,
            n_fft=FEATURES.n_fft,
            hop_length=FEATURES.hop_length,
            n_mels=FEATURES.n_mels,
        )
        for samples in waveforms
    ]
    return np.stack([librosa.power_to_db(mel) for mel in mels])


def features(paths: list[str], repeats: int) -> dict[str, Any]:
    """One core, file by file, the two sides alternately; ratios over files and repeats."""
    figures: dict[str, list[float]] = defaultdict(list)
    for path in paths[:3]:  # first calls: numba, tables, caches
        FEATURES.chunks(path)
        by_librosa(path)
    for _ in range(repeats):
        for path in paths:
            waveforms = FEATURES.waveforms(path)
            ours = seconds(FEATURES.chunks, path)
            theirs = seconds(by_librosa, path)
            alone = seconds(FEATURES.transform, waveforms)
            theirs_alone = seconds(librosa_chunks, waveforms)
            figures["ours_ms"].append(ours * 1e3)
            figures["librosa_ms"].append(theirs * 1e3)
            figures["ratio"].append(theirs / ours)
            figures["ratio_without_decoding"].append(theirs_alone / alone)
    difference = max(float(np.abs(FEATURES.chunks(p) - by_librosa(p)).max()) for p in paths)
    print("one core, file to chunks, decoding included:")
    print(f"  ours     {spread(figures['ours_ms'])} ms a track")
    print(f"  librosa  {spread(figures['librosa_ms'])} ms a track")
    print(f"  librosa / ours {spread(figures['ratio'])}")
    print(f"  the same without decoding {spread(figures['ratio_without_decoding'])}")
    print(f"  largest difference {difference:.1e} dB")
    return figures | {"largest_difference_db": difference}


def passes(paths: list[str], repeats: int) -> dict[str, Any]:
    """One core: milliseconds a track of each step, and what share the first pass has."""
    figures: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        rows = as_rows(paths[:TRACKS_PER_SHARD])
        write_shard(Path(name), 0, INFO, rows)  # the first call
        for shard in range(1, repeats + 1):
            decoded = seconds_of_each(read_waveform, paths)
            first = seconds_of_each(FEATURES.inspect, paths)
            cut = seconds_of_each(FEATURES.chunks, paths)
            written = seconds(write_shard, Path(name), shard, INFO, rows) / len(rows)
            figures["decode_ms"].append(decoded * 1e3)
            figures["first_pass_ms"].append(first * 1e3)
            figures["chunks_ms"].append(cut * 1e3)
            figures["write_ms"].append(written * 1e3)
            figures["first_pass_share"].append(first / (first + cut + written))
        megabytes = shard_path(Path(name), 0).stat().st_size / len(rows) / 1e6
    print("one core, a track:")
    for label, key in (
        ("first pass (decode, hash)", "first_pass_ms"),
        ("  of which decoding", "decode_ms"),
        ("second pass: decode, chunks", "chunks_ms"),
        ("second pass: write", "write_ms"),
    ):
        print(f"  {label:28} {spread(figures[key])} ms")
    print(f"  the first pass's share       {spread(figures['first_pass_share'])}")
    print(f"  on disk {megabytes:.2f} MB a track")
    return figures | {"megabytes_a_track": megabytes}


def gpu(paths: list[str], repeats: int) -> dict[str, Any]:
    """Tracks' waveforms to chunks in memory, transfers included, against one core."""
    from mgc_ray.data.spectrogram_torch import transform_tracks

    figures: dict[str, list[float]] = defaultdict(list)
    tracks = [FEATURES.waveforms(path) for path in paths]
    made = transform_tracks(tracks, FEATURES, "cuda")  # also the first call
    for _ in range(repeats):
        on_gpu = seconds(transform_tracks, tracks, FEATURES, "cuda") / len(tracks)
        on_core = seconds_of_each(FEATURES.transform, tracks)
        figures["gpu_ms"].append(on_gpu * 1e3)
        figures["core_ms"].append(on_core * 1e3)
        figures["ratio"].append(on_core / on_gpu)
    difference = max(
        float(np.abs(a - FEATURES.transform(b)).max()) for a, b in zip(made, tracks, strict=True)
    )
    print("GPU, waveforms to chunks in batches, transfers included:")
    print(f"  {spread(figures['gpu_ms'])} ms a track, one core {spread(figures['core_ms'])}")
    print(f"  core / GPU {spread(figures['ratio'])}, largest difference {difference:.1e} dB")
    return figures | {"largest_difference_db": difference}


# --- many workers ---


def as_rows(paths: list[str]) -> list[tuple[Track, np.ndarray, list[str]]]:
    tracks = [Track(path, "genre", Path(path).stem, split="train") for path in paths]
    made = [FEATURES.chunks(path) for path in paths]
    return [(t, c, ["train"] * len(c)) for t, c in zip(tracks, made, strict=True)]


def plain(paths: list[str], folder: str, core: int, barrier: Any, queue: Any) -> None:
    """Both passes over some tracks, in this process on one core; puts its seconds."""
    os.sched_setaffinity(0, {core})
    FEATURES.inspect(paths[0])
    write_shard(Path(folder), 0, INFO, as_rows(paths[:2]))  # first calls
    barrier.wait()
    start = time.perf_counter()
    for path in paths:
        FEATURES.inspect(path)
    for shard, first in enumerate(range(0, len(paths), TRACKS_PER_SHARD)):
        write_shard(Path(folder), shard, INFO, as_rows(paths[first : first + TRACKS_PER_SHARD]))
    queue.put(time.perf_counter() - start)


def in_processes(paths: list[str], count: int) -> float:
    """Seconds of both passes in `count` plain processes, each on a core of its own."""
    barrier, queue = SPAWN.Barrier(count), SPAWN.Queue()
    with tempfile.TemporaryDirectory() as name:
        processes = [
            SPAWN.Process(
                target=plain,
                args=(paths[i::count], f"{name}/{i}", CORES[i], barrier, queue),
            )
            for i in range(count)
        ]
        for process in processes:
            process.start()
        taken = [queue.get() for _ in processes]
        for process in processes:
            process.join()
    return max(taken)


def with_ray(table: str, small: str, folder: str, queue: Any) -> None:
    """Puts the seconds of Ray's start, of two small datasets and of the whole, and memory."""
    from mgc_ray.data.request import DatasetRequest
    from mgc_ray.jobs.preprocess import preprocess
    from mgc_ray.tuning.cluster import connected

    times = [time.perf_counter()]
    with connected():
        times.append(time.perf_counter())
        for number, source in enumerate((small, small, table)):
            preprocess(DatasetRequest(str(source)), Path(folder) / str(number))
            times.append(time.perf_counter())
        workers = max(peak_of_workers(os.getpid()), default=float("nan"))
    start, first, second, whole = np.diff(times)
    queue.put(
        {
            "ray_start_s": start,
            "first_calls_s": first - second,
            "whole_s": whole,
            "driver_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "worker_mb": workers,
        }
    )


def peak_of_workers(driver: int) -> list[float]:
    """Peak resident MB of Ray's task workers below a process, what they share included."""
    parents, workers = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = dict(
                line.split(":\t", 1) for line in (entry / "status").read_text().splitlines()
            )
            command = (entry / "cmdline").read_text()
        except (OSError, ValueError):
            continue
        parents[int(entry.name)] = int(status["PPid"])
        # tasks' workers; actors of Ray Data's own are named otherwise
        if command.startswith("ray::") and "Actor" not in command and "VmHWM" in status:
            workers[int(entry.name)] = int(status["VmHWM"].split()[0]) / 1024
    found = []
    for process, megabytes in workers.items():
        ancestor = process
        while ancestor not in (driver, 0):
            ancestor = parents.get(ancestor, 0)
        if ancestor == driver:
            found.append(megabytes)
    return found


def run_ray(rows: list[tuple[str, str]]) -> dict[str, float]:
    """`with_ray` in a process of its own."""
    queue = SPAWN.Queue()
    with tempfile.TemporaryDirectory() as name:
        table = write_table(Path(name) / "table.csv", rows)
        small = write_table(Path(name) / "small.csv", part_of(rows, 4))
        process = SPAWN.Process(target=with_ray, args=(table, small, name, queue))
        process.start()
        figures = queue.get()
        process.join()
    return figures


def part_of(rows: list[tuple[str, str]], per_genre: int) -> list[tuple[str, str]]:
    taken: dict[str, int] = defaultdict(int)
    part = []
    for path, genre in rows:
        taken[genre] += 1
        if taken[genre] <= per_genre:
            part.append((path, genre))
    return part


def write_table(path: Path, rows: list[tuple[str, str]]) -> str:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("path", "genre"), *rows])
    return str(path)


def workers(rows: list[tuple[str, str]], repeats: int) -> dict[str, Any]:
    """Ray, plain processes and one process, alternately; 1 is `cores` times one process's speed."""
    figures: dict[str, list[float]] = defaultdict(list)
    paths, cores = [path for path, _ in rows], len(CORES)
    for _ in range(repeats):
        one = in_processes(paths, 1)
        many = in_processes(paths, cores)
        ray = run_ray(rows)
        figures["one_process_s"].append(one)
        figures["processes_s"].append(many)
        figures["ray_s"].append(ray["whole_s"])
        figures["ray_start_s"].append(ray["ray_start_s"])
        figures["first_calls_s"].append(ray["first_calls_s"])
        figures["processes_scaling"].append(one / cores / many)
        figures["ray_scaling"].append(one / cores / ray["whole_s"])
        figures["driver_mb"].append(ray["driver_mb"])
        figures["worker_mb"].append(ray["worker_mb"])
    print(f"{len(paths)} tracks, both passes, {cores} cores:")
    print(f"  one process, one core   {spread(figures['one_process_s'])} s")
    print(f"  {cores} plain processes       {spread(figures['processes_s'])} s")
    print(f"  Ray, started and warm   {spread(figures['ray_s'])} s")
    print(f"  of perfect scaling: plain processes {spread(figures['processes_scaling'], 3)}")
    print(f"                      Ray             {spread(figures['ray_scaling'], 3)}")
    print(f"  apart: Ray's start {spread(figures['ray_start_s'])} s")
    print(f"         first calls {spread(figures['first_calls_s'])} s")
    return figures


def memory(rows: list[tuple[str, str]]) -> dict[str, Any]:
    """Peak memory for a quarter of the tracks and for all of them."""
    per_genre = len(rows) // len({genre for _, genre in rows})
    figures: dict[str, Any] = {}
    print("peak resident memory:")
    for part in (part_of(rows, max(4, per_genre // 4)), rows):
        ray = run_ray(part)
        figures[str(len(part))] = {name: ray[name] for name in ("driver_mb", "worker_mb")}
        print(
            f"  {len(part):5} tracks: driver {ray['driver_mb']:.0f} MB, largest worker "
            f"{ray['worker_mb']:.0f} MB"
        )
    return figures


def again(rows: list[tuple[str, str]], repeats: int) -> dict[str, Any]:
    """The whole command on a finished dataset, interpreter and imports included."""
    with tempfile.TemporaryDirectory() as name:
        table = write_table(Path(name) / "table.csv", rows)
        command = [sys.executable, "-m", "mgc_ray.preprocess", "--tracks", table]
        command += ["--dataset", f"{name}/dataset"]
        subprocess.run(command, check=True, capture_output=True)
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            taken.append(time.perf_counter() - start)
    print(f"the command again, {len(rows)} tracks: {spread(taken)} s")
    return {"seconds": taken}


def million_with_ray(queue: Any) -> None:
    from mgc_ray.data.reach import Reach
    from mgc_ray.jobs.passes import inspect_all
    from mgc_ray.tuning.cluster import connected

    class NoWork(LogMel):
        def inspect(self, path: str | Path) -> Inspection:
            return Inspection(30.0, 10, hashlib.sha256(str(path).encode()).hexdigest())

    with connected():
        names = (f"some name of a track {i}" for i in range(1_000_000))
        tracks = [Track(f"/music/some genre/{name}.wav", "some genre", name) for name in names]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        taken = seconds(inspect_all, tracks, NoWork(), Reach())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    queue.put({"tracks": len(tracks), "seconds": taken, "mb_before": before, "mb_peak": after})


def million() -> dict[str, Any]:
    """Ray's own cost, with nothing to do for any track."""
    queue = SPAWN.Queue()
    process = SPAWN.Process(target=million_with_ray, args=(queue,))
    process.start()
    figures = queue.get()
    process.join()
    print(
        f"the first pass over {figures['tracks']} tracks that are no files: "
        f"{figures['seconds']:.0f} s; driver {figures['mb_before']:.0f} MB with the table alone, "
        f"peak {figures['mb_peak']:.0f} MB"
    )
    return figures


# --- what is measured on ---


def find(folder: Path) -> list[tuple[str, str]]:
    """(path, genre) of FOLDER/GENRE/FILE, a genre's first files first."""
    genres = sorted(path for path in folder.iterdir() if path.is_dir())
    return [(str(p.resolve()), g.name) for g in genres for p in sorted(g.iterdir()) if p.is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(DEFAULT_PARTS))
    parser.add_argument("--gpu", action="store_true", help="the same as the part gpu alone")
    parser.add_argument("--audio", type=Path, help="FOLDER/GENRE/FILE instead of the corpus")
    parser.add_argument("--tracks-per-genre", type=int, default=100, help="of the corpus")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a track of the corpus")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    parts = ["gpu"] if args.gpu else args.parts
    if "gpu" in parts:
        import torch

        if not torch.cuda.is_available():
            parser.error("PyTorch sees no GPU here: leave --gpu (or the part gpu) out")
    with tempfile.TemporaryDirectory() as name:
        folder = args.audio
        if folder is None:
            folder = Path(name)
            write_corpus(folder, args.tracks_per_genre, 0, args.seconds)
        rows = find(folder)
        # two of each genre, read once so that the disk is not measured
        some = [path for path, _ in part_of(rows, 2)]
        for path, _ in rows:
            Path(path).read_bytes()
        figures: dict[str, Any] = {}
        os.sched_setaffinity(0, {CORES[-1]})
        if "features" in parts:
            figures["features"] = features(some, args.repeats)
        if "passes" in parts:
            figures["passes"] = passes(some, args.repeats)
        if "gpu" in parts:
            figures["gpu"] = gpu(some, args.repeats)
        os.sched_setaffinity(0, CORES)
        if "workers" in parts:
            figures["workers"] = workers(rows, args.repeats)
        if "memory" in parts:
            figures["memory"] = memory(rows)
        if "again" in parts:
            figures["again"] = again(rows, args.repeats)
        if "million" in parts:
            figures["million"] = million()
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    if not ONE_THREAD.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
    main()
