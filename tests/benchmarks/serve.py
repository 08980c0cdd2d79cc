"""Songs per second and the slowest hundredth of the responses, for one client and for many.

    PYTHONPATH=. python tests/benchmarks/serve.py --seconds 20 --clients 1 8 32 200

Starts `mgc_ray.serve` with the model that comes with the program and one replica per core, and
posts a generated song of 30 s from threads of this process, each of which waits for its response
before it sends the song again. With one client there is never more than one request, so nothing is
predicted together.
"""

import argparse
import http.client
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from mgc_ray.corpus.files import write_track
from tests.server import form_of, running_server


def load(
    address: str, song: bytes, clients: int, seconds: float
) -> tuple[list[float], Counter[int]]:
    """Seconds of each response of status 200, and the count of each status; 0 is no response."""
    times: list[float] = []
    counts: Counter[int] = Counter()
    lock, deadline = threading.Lock(), time.monotonic() + seconds
    body, content_type = form_of("song.wav", song)

    def send() -> None:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)
        while time.monotonic() < deadline:
            started = time.monotonic()
            try:
                connection.request("POST", "/predict", body, {"Content-Type": content_type})
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException):
                connection.close()
                status = 0
            with lock:
                counts[status] += 1
                if status == 200:
                    times.append(time.monotonic() - started)
            if status != 200:
                time.sleep(0.05)

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 200])
    parser.add_argument("--replicas", default=str(os.cpu_count()))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.wav"
        write_track(path, "rock", 0, 0, 30.0)
        song = path.read_bytes()
    with running_server("--replicas", args.replicas) as address:
        load(address, song, 4, 3)  # warm-up
        for clients in args.clients:
            started = time.monotonic()
            times, counts = load(address, song, clients, args.seconds)
            elapsed = time.monotonic() - started
            slowest = statistics.quantiles(times, n=100)[98] if len(times) > 1 else float("nan")
            others = {status: n for status, n in counts.items() if status != 200}
            print(
                f"{clients} clients: {len(times) / elapsed:.1f} songs per second, median "
                f"{statistics.median(times):.2f} s, 99th percentile {slowest:.2f} s, "
                f"other responses {others or 'none'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
