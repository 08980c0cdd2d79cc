"""What the server counts, of all replicas together, in the format of Prometheus.

A request for the metrics comes to any one of the replicas. So these report to one actor, which
outlives them: what it counts never falls when a replica ends.
"""

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mgc_ray import __version__

__all__ = ["CONTENT_TYPE", "CountRequests", "Totals"]
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0)  # seconds


class Totals:
    """The counts of all replicas.

    `queue`: songs that may wait; `silence`: seconds after which what a replica has last reported of
    its load counts no more, as it would have reported the end of a song by then: it is gone.
    """

    def __init__(self, replicas: int, queue: int, silence: float) -> None:
        self._registry = registry = CollectorRegistry()
        self._silence = silence
        self._loads: dict[str, tuple[float, int, int]] = {}
        labels = ("path", "status")
        self._requests = Counter(
            "mgc_ray_requests", "Requests by path and status.", labels, registry=registry
        )
        self._errors = Counter(
            "mgc_ray_errors",
            "Requests that were refused or failed: status 400 or higher.",
            labels,
            registry=registry,
        )
        self._seconds = Histogram(
            "mgc_ray_request_seconds",
            "Seconds from a request to the end of its response.",
            ("path",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._songs = Counter(
            "mgc_ray_songs", "Songs by their most probable genre.", ("genre",), registry=registry
        )
        self._music = Counter(
            "mgc_ray_music_seconds", "Length of these songs together.", registry=registry
        )
        waiting = Gauge("mgc_ray_queue_songs", "Songs that wait for a replica.", registry=registry)
        waiting.set_function(lambda: self._load(2))
        running = Gauge("mgc_ray_running_songs", "Songs that are predicted.", registry=registry)
        running.set_function(lambda: self._load(1))
        Gauge("mgc_ray_queue_limit", "Songs that may wait.", registry=registry).set(queue)
        Gauge("mgc_ray_replicas", "Copies of the model.", registry=registry).set(replicas)
        version = Gauge("mgc_ray_info", "The version.", ("version",), registry=registry)
        version.labels(__version__).set(1)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(path, status).inc()
        if status >= 400:
            self._errors.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def song(self, genre: str, seconds: float) -> None:
        """Count a song that was predicted; 0 seconds for a spectrogram, whose length is unknown."""
        self._songs.labels(genre).inc()
        self._music.inc(seconds)

    def load(self, replica: str, running: int, waiting: int) -> None:
        """Note how many songs a replica has."""
        self._loads[replica] = (time.monotonic(), running, waiting)

    def text(self) -> bytes:
        """All of it, as CONTENT_TYPE."""
        return generate_latest(self._registry)

    def _load(self, place: int) -> int:
        since = time.monotonic() - self._silence
        return sum(int(load[place]) for load in self._loads.values() if load[0] >= since)


class CountRequests:
    """Calls `count` with the path, status and seconds of each request, for the paths there are.

    Other paths are one, `other`, as anyone can ask for any number of them.
    """

    def __init__(
        self, app: ASGIApp, paths: frozenset[str], count: Callable[[str, int, float], Any]
    ) -> None:
        self._app, self._paths, self._count = app, paths, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._count(path, status, time.monotonic() - started)
