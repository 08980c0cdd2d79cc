"""How fast is preprocessing: against librosa, against fewer workers, against an earlier version.

    python tests/benchmarks/preprocess.py                      # the built-in corpus, 1,000 tracks
    python tests/benchmarks/preprocess.py --audio FOLDER       # FOLDER/GENRE/FILE, real music
    python tests/benchmarks/preprocess.py --parts before --before CHECKOUT

Parts, of which --parts chooses:

- features: file -> dB log-mel chunks on one core, decoding included, against soundfile + librosa
- steps: what each step of a track costs
- workers: with Ray against one process on one core, and against as many processes as there are
  cores (what the machine itself allows); Ray's start is given separately
- memory: peak of the driver and of its workers for a quarter of the tracks and for all
- again: the command once more on a finished dataset
- before: against an earlier version of this program (--before, a checkout of it), for each of the
  --formats, also as 44.1 kHz stereo (--stereo); the features must be the same bit for bit
- million: a million tracks that are no files: what Ray and the driver take; not among the defaults

Both sides of a ratio run alternately; ratios are given as median (min to max, n). --json prints
all figures as the last line. Figures from a busy machine are worthless.
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
import pyarrow.parquet as pq
import soundfile
import soxr

from mgc_ray.config import ClusterConfig, DatasetConfig
from mgc_ray.corpus.files import write_corpus
from mgc_ray.data.audio import read_waveform
from mgc_ray.data.dataset import TRACKS_PER_SHARD, DatasetInfo, shard_path, write_shard
from mgc_ray.data.features import FeatureSet, TrackFeatures
from mgc_ray.data.features.array import Array
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.data.fetcher import TrackFetcher
from mgc_ray.data.tracks import Track

DEFAULT_PARTS = ("features", "steps", "workers", "memory", "again")
PARTS = (*DEFAULT_PARTS, "before", "million")
FORMATS = ("flac", "mp3", "ogg", "wav")
# one thread for either side; the libraries read them when they are imported
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
CORES = sorted(os.sched_getaffinity(0))
LOG_MEL = LogMel()
FEATURES = FeatureSet({"log_mel": LOG_MEL})
INFO = DatasetInfo(DatasetConfig(), FEATURES, listing="")
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


def ours(path: str) -> np.ndarray:
    """The features of a file, by this program."""
    return FEATURES.compute(path).columns["log_mel"]


def by_librosa(path: str) -> np.ndarray:
    """The features of a file, with soundfile and librosa alone."""
    import librosa

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples = librosa.to_mono(samples.T)
    if rate != LOG_MEL.sample_rate:
        samples = librosa.resample(samples, orig_sr=rate, target_sr=LOG_MEL.sample_rate)
    count = len(samples) // LOG_MEL.chunk_samples
    samples = samples[: count * LOG_MEL.chunk_samples]
    return librosa_chunks(samples.reshape(count, LOG_MEL.chunk_samples))


def librosa_chunks(waveforms: np.ndarray) -> np.ndarray:
    """Waveforms [chunks, samples] -> dB [chunks, bands, frames], one by one."""
    import librosa

    mels = [
        librosa.feature.melspectrogram(
            y=samples,
            sr=LOG_MEL.sample_rate,
            n_fft=LOG_MEL.n_fft,
            hop_length=LOG_MEL.hop_length,
            n_mels=LOG_MEL.n_mels,
        )
        for samples in waveforms
    ]
    return np.stack([librosa.power_to_db(mel) for mel in mels])


def features(paths: list[str], repeats: int) -> dict[str, Any]:
    """One core, file by file, the two sides alternately; ratios over files and repeats."""
    figures: dict[str, list[float]] = defaultdict(list)
    for path in paths[:3]:  # first calls: numba, tables, caches
        ours(path)
        by_librosa(path)
    for _ in range(repeats):
        for path in paths:
            waveforms = FEATURES.decode(path).chunks(LOG_MEL.sample_rate)
            own = seconds(ours, path)
            theirs = seconds(by_librosa, path)
            alone = seconds(LOG_MEL.transform, waveforms)
            theirs_alone = seconds(librosa_chunks, waveforms)
            figures["ours_ms"].append(own * 1e3)
            figures["librosa_ms"].append(theirs * 1e3)
            figures["ratio"].append(theirs / own)
            figures["ratio_without_decoding"].append(theirs_alone / alone)
    difference = max(float(np.abs(ours(p) - by_librosa(p)).max()) for p in paths)
    print("one core, file to chunks, decoding included:")
    print(f"  ours     {spread(figures['ours_ms'])} ms per track")
    print(f"  librosa  {spread(figures['librosa_ms'])} ms per track")
    print(f"  librosa / ours {spread(figures['ratio'])}")
    print(f"  the same without decoding {spread(figures['ratio_without_decoding'])}")
    print(f"  largest difference {difference:.1e} dB")
    return figures | {"largest_difference_db": difference}


def steps(paths: list[str], repeats: int) -> dict[str, Any]:
    """One core: milliseconds per track of each step, and the share of decoding."""
    figures: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        tracks = [as_track(path) for path in paths[:TRACKS_PER_SHARD]]
        rows = [(track, FEATURES.compute(track.path)) for track in tracks]
        write_shard(shard_path(Path(name), 0), INFO, rows, [])  # the first call
        decoded = [FEATURES.decode(path) for path in paths]
        for shard in range(1, repeats + 1):
            decode = seconds_of_each(read_waveform, paths)
            fingerprint = seconds_of_each(lambda track: track.content_hash(), decoded)
            # decoded again each time, as a decoded track keeps what was computed of it
            computed = seconds_of_each(FEATURES.compute, paths) - decode - fingerprint
            written = seconds(write_shard, shard_path(Path(name), shard), INFO, rows, [])
            written /= len(rows)
            figures["decode_ms"].append(decode * 1e3)
            figures["hash_ms"].append(fingerprint * 1e3)
            figures["features_ms"].append(computed * 1e3)
            figures["write_ms"].append(written * 1e3)
            figures["decoding_share"].append(decode / (decode + fingerprint + computed + written))
        megabytes = shard_path(Path(name), 0).stat().st_size / len(rows) / 1e6
    print("one core, per track:")
    for label, key in (
        ("decode", "decode_ms"),
        ("hash", "hash_ms"),
        ("features", "features_ms"),
        ("write", "write_ms"),
    ):
        print(f"  {label:20} {spread(figures[key])} ms")
    print(f"  the share of decoding {spread(figures['decoding_share'])}")
    print(f"  on disk {megabytes:.2f} MB per track")
    return figures | {"megabytes_per_track": megabytes}


# --- many workers ---


def as_track(path: str) -> Track:
    return Track(path, "genre", Path(path).stem)


def plain(paths: list[str], folder: str, core: int, barrier: Any, queue: Any) -> None:
    """Preprocess some tracks in this process on one core; puts its seconds."""
    os.sched_setaffinity(0, {core})

    def shard_of(number: int, part: list[str]) -> None:
        rows = [(as_track(path), FEATURES.compute(path)) for path in part]
        write_shard(shard_path(Path(folder), number), INFO, rows, [])

    shard_of(0, paths[:2])  # first calls
    barrier.wait()
    start = time.perf_counter()
    for number, first in enumerate(range(0, len(paths), TRACKS_PER_SHARD)):
        shard_of(number, paths[first : first + TRACKS_PER_SHARD])
    queue.put(time.perf_counter() - start)


def in_processes(paths: list[str], count: int) -> float:
    """Seconds of `count` plain processes, each on a core of its own."""
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
    from mgc_ray.terminal.process import prepare_process

    prepare_process()
    from mgc_ray.pipeline.preprocess import preprocess
    from mgc_ray.pipeline.tables import read_tables
    from mgc_ray.tuning.cluster import ray_cluster

    times, cluster = [time.perf_counter()], ClusterConfig()
    with ray_cluster(cluster):
        times.append(time.perf_counter())
        for number, source in enumerate((small, small, table)):
            tables = read_tables(DatasetConfig(tracks=source))
            preprocess(tables, Path(folder) / str(number), cluster)
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
    """Peak resident MB of each of Ray's task workers of a process, shared memory included."""
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
        # workers of tasks; Ray Data's own actors have other names
        if command.startswith("ray::") and "Actor" not in command and "VmHWM" in status:
            workers[int(entry.name)] = int(status["VmHWM"].split()[0]) / 1024
    peaks = []
    for process, megabytes in workers.items():
        ancestor = process
        while ancestor not in (driver, 0):
            ancestor = parents.get(ancestor, 0)
        if ancestor == driver:
            peaks.append(megabytes)
    return peaks


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
    print(f"{len(paths)} tracks, {cores} cores:")
    print(f"  one process, one core   {spread(figures['one_process_s'])} s")
    print(f"  {cores} plain processes       {spread(figures['processes_s'])} s")
    print(f"  Ray, started and warm   {spread(figures['ray_s'])} s")
    print(f"  of perfect scaling: plain processes {spread(figures['processes_scaling'], 3)}")
    print(f"                      Ray             {spread(figures['ray_scaling'], 3)}")
    print(f"  besides: Ray's start {spread(figures['ray_start_s'])} s")
    print(f"           first calls {spread(figures['first_calls_s'])} s")
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


# --- an earlier version ---

# preprocess a table twice, the first time a small one to start all processes; prints the seconds
OF_A_VERSION = """
import sys, time
from pathlib import Path

small, table, folder = sys.argv[1:]
try:
    from mgc_ray.terminal.process import prepare_process

    prepare_process()
    from mgc_ray.config import ClusterConfig, DatasetConfig
    from mgc_ray.pipeline.preprocess import preprocess
    from mgc_ray.pipeline.tables import read_tables
    from mgc_ray.tuning.cluster import ray_cluster

    connected = lambda: ray_cluster(ClusterConfig())

    def run(source, out):
        preprocess(read_tables(DatasetConfig(tracks=source)), out, ClusterConfig())

except ModuleNotFoundError:  # before there was a package `pipeline`
    from mgc_ray.data.request import DatasetRequest
    from mgc_ray.jobs.preprocess import preprocess
    from mgc_ray.tuning.cluster import connected

    def run(source, out):
        preprocess(DatasetRequest(source), out)

with connected():
    run(small, Path(folder) / "small")
    started = time.perf_counter()
    run(table, Path(folder) / "whole")
    print(time.perf_counter() - started)
"""


def before(
    rows: list[tuple[str, str]], checkout: Path, formats: list[str], stereo: bool, repeats: int
) -> dict[str, Any]:
    """Seconds of this version and of an earlier one on the same tracks, for each format."""
    figures: dict[str, Any] = {}
    versions = {"now": Path(__file__).parents[2], "before": checkout.resolve()}
    with tempfile.TemporaryDirectory() as name:
        for format in formats:
            converted = convert(rows, Path(name) / "audio", format, stereo)
            table = write_table(Path(name) / f"{format}.csv", converted)
            small = write_table(Path(name) / f"small-{format}.csv", part_of(converted, 12))
            times: dict[str, list[float]] = {version: [] for version in versions}
            for repeat in range(repeats):
                for version, code in versions.items():
                    folder = Path(name) / format / version / str(repeat)
                    done = subprocess.run(
                        [sys.executable, "-c", OF_A_VERSION, small, table, folder],
                        cwd=code,
                        env=os.environ | {"PYTHONPATH": str(code)},
                        stdout=subprocess.PIPE,
                        text=True,
                        check=True,
                    )
                    times[version].append(float(done.stdout.splitlines()[-1]))
            ratios = [b / n for b, n in zip(times["before"], times["now"], strict=True)]
            same = all_features(Path(name) / format / "now/0/whole") == all_features(
                Path(name) / format / "before/0/whole"
            )
            figures[format] = times | {"ratios": ratios, "same_features": same}
            print(
                f"{format}: {len(rows)} tracks, before {spread(times['before'])} s, now "
                f"{spread(times['now'])} s, before / now {spread(ratios)}, features "
                f"{'the same bit for bit' if same else 'DIFFERENT'}",
                flush=True,
            )
    return figures


def convert(
    rows: list[tuple[str, str]], folder: Path, format: str, stereo: bool
) -> list[tuple[str, str]]:
    """The same tracks in another format; `stereo`: as 44.1 kHz stereo, as most music is."""
    converted = []
    for path, genre in rows:
        if path.endswith(f".{format}") and soundfile.info(path).channels > stereo:
            converted.append((path, genre))  # it is that already
            continue
        samples, rate = soundfile.read(path, dtype="int16")
        out = folder / format / genre / f"{Path(path).stem}.{format}"
        out.parent.mkdir(parents=True, exist_ok=True)
        if stereo:
            samples = soxr.resample(samples, rate, 44_100)
            # the channels differ, else coding the second costs nothing
            samples, rate = np.stack([samples, np.roll(samples, 441) // 2], axis=1), 44_100
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        with soundfile.SoundFile(out, "w", rate, channels) as file:
            for start in range(0, len(samples), rate):  # long blocks overflow the encoder of OGG
                file.write(samples[start : start + rate])
        converted.append((str(out), genre))
    return converted


def all_features(dataset: Path) -> dict[tuple[str, int], str]:
    """A hash of each chunk's features by track and chunk."""
    hashes = {}
    for path in sorted((dataset / "chunks").glob("*.parquet")):
        table = pq.read_table(path)
        values = table["log_mel"].combine_chunks().storage
        size = values.type.list_size
        chunks = values.flatten().to_numpy().reshape(-1, size)
        names = zip(table["track_id"].to_pylist(), table["chunk"].to_pylist(), strict=True)
        for name, chunk in zip(names, chunks, strict=True):
            hashes[name] = hashlib.sha256(chunk.tobytes()).hexdigest()
    return hashes


# --- a million tracks ---


class NoWork(FeatureSet):
    """Computes one number, without a file."""

    def compute(self, path: str | Path) -> TrackFeatures:
        columns = {name: np.zeros((1, f.bands, f.frames), f.dtype) for name, f in COLUMNS.items()}
        return TrackFeatures(columns, 30.0, hashlib.sha256(str(path).encode()).hexdigest())


COLUMNS = {"array": Array(bands=1, frames=1, value_type="uint8")}


def million_with_ray(queue: Any) -> None:
    from mgc_ray.data.dataset import shared_dataset
    from mgc_ray.pipeline.preprocess import shuffled_shards, write_shards
    from mgc_ray.tuning.cluster import ray_cluster

    with ray_cluster(ClusterConfig()), tempfile.TemporaryDirectory() as folder:
        names = (f"some name of a track {i}" for i in range(1_000_000))
        tracks = [Track(f"/music/some genre/{name}.wav", "some genre", name) for name in names]
        shards = shuffled_shards(tracks)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        info = DatasetInfo(DatasetConfig(), NoWork(COLUMNS), listing="")
        shared = shared_dataset(Path(folder), None)
        taken = seconds(write_shards, shared, info, shards, TrackFetcher())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    queue.put({"tracks": len(tracks), "seconds": taken, "mb_before": before, "mb_peak": after})


def million() -> dict[str, Any]:
    """The cost of Ray, the driver and the files, with nothing to compute for any track."""
    queue = SPAWN.Queue()
    process = SPAWN.Process(target=million_with_ray, args=(queue,))
    process.start()
    figures = queue.get()
    process.join()
    print(
        f"{figures['tracks']} tracks that are no files: {figures['seconds']:.0f} s; driver "
        f"{figures['mb_before']:.0f} MB with the table alone, peak {figures['mb_peak']:.0f} MB"
    )
    return figures


# --- tracks ---


def find(folder: Path) -> list[tuple[str, str]]:
    """(path, genre) of FOLDER/GENRE/FILE, a genre's first files first."""
    genres = sorted(path for path in folder.iterdir() if path.is_dir())
    return [(str(p.resolve()), g.name) for g in genres for p in sorted(g.iterdir()) if p.is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(DEFAULT_PARTS))
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--formats", choices=FORMATS, nargs="+", default=list(FORMATS))
    parser.add_argument(
        "--stereo", action="store_true", help="for `before`, convert mono tracks to 44.1 kHz stereo"
    )
    parser.add_argument("--audio", type=Path, help="FOLDER/GENRE/FILE instead of the corpus")
    parser.add_argument("--tracks-per-genre", type=int, default=100, help="of the corpus")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a track of the corpus")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    parts = args.parts
    if "before" in parts and not args.before:
        parser.error("the part before needs --before CHECKOUT")
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
        if "steps" in parts:
            figures["steps"] = steps(some, args.repeats)
        os.sched_setaffinity(0, CORES)
        if "workers" in parts:
            figures["workers"] = workers(rows, args.repeats)
        if "memory" in parts:
            figures["memory"] = memory(rows)
        if "again" in parts:
            figures["again"] = again(rows, args.repeats)
        if "before" in parts:
            figures["before"] = before(rows, args.before, args.formats, args.stereo, args.repeats)
        if "million" in parts:
            figures["million"] = million()
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    if not ONE_THREAD.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
    main()
