"""Songs per second and core of a whole library, and whether memory grows with its size.

    PYTHONPATH=. python tests/benchmarks/library.py --songs 200 --seconds 30
    PYTHONPATH=. python tests/benchmarks/library.py --songs 1000 10000 --seconds 2

The songs are links to ten generated ones; each link is decoded and predicted like any other song.
The time is that of predicting, without the start of Ray. Memory: the peak of the driver's process,
and the highest peak of Ray's worker processes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mgc_ray.corpus.files import write_corpus

# in a process of its own, whose peak of memory is measured
PROGRAM = """
import json, os, resource, sys, time
from pathlib import Path
from mgc_ray.terminal.process import prepare_process
prepare_process()
from mgc_ray.config import ClusterConfig
from mgc_ray.ensembling.saved import shipped_model
from mgc_ray.pipeline.library import predict_library
from mgc_ray.tuning.cluster import ray_cluster

def peak(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024

with ray_cluster(ClusterConfig()) as cluster:
    predict_library(Path(sys.argv[2]), Path(sys.argv[3] + ".warm.parquet"), shipped_model())
    started = time.perf_counter()
    library = predict_library(Path(sys.argv[1]), Path(sys.argv[3]), shipped_model())
    seconds = time.perf_counter() - started
    workers = []
    for name in os.listdir("/proc"):
        try:
            if Path(f"/proc/{name}/comm").read_text().startswith("ray::"):
                workers.append(peak(name))
        except OSError:
            pass
    driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([library.files, seconds, cluster.cpus, driver, max(filter(None, workers))]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=int, nargs="+", default=[200])
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place) / "corpus"
        write_corpus(corpus, 1, seconds=args.seconds)
        songs = sorted(corpus.rglob("*.wav"))
        for count in args.songs:
            library = Path(place) / f"library-{count}"
            for i in range(count):
                song = library / f"{i // 100:03d}" / f"{i:06d}.wav"
                song.parent.mkdir(parents=True, exist_ok=True)
                os.link(songs[i % len(songs)], song)
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, library, corpus, f"{place}/{count}.parquet"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
                text=True,
            )
            files, seconds, cpus, driver, worker = json.loads(done.stdout)
            print(
                f"{files} songs of {args.seconds:g} s on {cpus:g} CPUs: {seconds:.1f} s, "
                f"{files / seconds / cpus:.2f} songs per second and core; memory of the driver "
                f"{driver:.0f} MiB, of a worker {worker:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
