"""Requests a second and the slowest hundredth, one at a time and many together.

    PYTHONPATH=. python tests/benchmarks/serve.py --seconds 20 --clients 1 8 32 200

Starts `mgc_ray.serve` with the model that ships and one replica a core, and posts a generated song
of 30 s from threads of this process, each of which waits for its answer before it asks again. With
one client there is never more than one request, so nothing is put together.
"""

import argparse
import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

from mgc_ray.data.corpus import write_track

_BORDER = "border-of-the-form"


def body(song: Path) -> bytes:
    head = f'--{_BORDER}\r\nContent-Disposition: form-data; name="file"; filename="s.wav"\r\n\r\n'
    return head.encode() + song.read_bytes() + f"\r\n--{_BORDER}--\r\n".encode()


def load(port: int, form: bytes, clients: int, seconds: float) -> tuple[list[float], Counter[int]]:
    """Seconds of each answer with status 200, and how often each status came."""
    times: list[float] = []
    counts: Counter[int] = Counter()
    lock, deadline = threading.Lock(), time.monotonic() + seconds

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        headers = {"Content-Type": f"multipart/form-data; boundary={_BORDER}"}
        while time.monotonic() < deadline:
            started = time.monotonic()
            try:
                connection.request("POST", "/predict", form, headers)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                connection.close()
                status = 0
            with lock:
                counts[status] += 1
                if status == 200:
                    times.append(time.monotonic() - started)
            if status != 200:
                time.sleep(0.05)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 200])
    parser.add_argument("--port", type=int, default=8321)
    parser.add_argument("--replicas", default=str(os.cpu_count()))
    args = parser.parse_args()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mgc_ray.serve", "--port", str(args.port)),
            *("--replicas", args.replicas),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                urlopen(f"http://127.0.0.1:{args.port}/health", timeout=5).read()
                break
            except OSError:
                time.sleep(0.3)
        with tempfile.TemporaryDirectory() as folder:
            song = Path(folder) / "song.wav"
            write_track(song, "rock", 0, 0, 30.0)
            form = body(song)
        load(args.port, form, 4, 3)  # warms up
        for clients in args.clients:
            started = time.monotonic()
            times, counts = load(args.port, form, clients, args.seconds)
            gone = time.monotonic() - started
            last = statistics.quantiles(times, n=100)[98] if len(times) > 1 else float("nan")
            others = {status: n for status, n in counts.items() if status != 200}
            print(
                f"{clients} clients: {len(times) / gone:.1f} songs a second, median "
                f"{statistics.median(times):.2f} s, 99th percentile {last:.2f} s, "
                f"other answers {others or 'none'}",
                flush=True,
            )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


if __name__ == "__main__":
    main()
