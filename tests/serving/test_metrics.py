"""Counts of all replicas, as Prometheus reads them."""

import asyncio
import time
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

from prometheus_client.parser import text_string_to_metric_families

from mgc_ray.serving.metrics import CountRequests, Totals


def samples(text: bytes) -> dict[str, float]:
    """Values by name and labels: `requests{/predict,200}`."""
    values = {}
    for family in text_string_to_metric_families(text.decode()):
        for one in family.samples:
            labels = ",".join(value for _, value in sorted(one.labels.items()))
            name = one.name.removeprefix("mgc_ray_")
            values[f"{name}{{{labels}}}" if labels else name] = one.value
    return values


def test_requests_errors_seconds_songs_and_the_queue_are_counted() -> None:
    totals = Totals(replicas=2, queue=64, silence=60)
    totals.request("/predict", 200, 0.2)
    totals.request("/predict", 200, 2.0)
    totals.request("/predict", 415, 0.02)
    totals.request("other", 404, 0.001)
    totals.song("rock", 30.0)
    totals.song("rock", 10.5)
    totals.song("jazz", 0.0)
    totals.load("one", 16, 3)
    totals.load("two", 2, 0)
    totals.load("two", 1, 0)
    found = samples(totals.text())
    assert found["requests_total{/predict,200}"] == 2
    assert found["requests_total{/predict,415}"] == 1
    assert found["errors_total{/predict,415}"] == found["errors_total{other,404}"] == 1
    assert "errors_total{/predict,200}" not in found
    assert found["request_seconds_count{/predict}"] == 3
    assert found["request_seconds_sum{/predict}"] == pytest.approx(2.22)
    assert found["request_seconds_bucket{0.3,/predict}"] == 2
    assert (found["songs_total{rock}"], found["songs_total{jazz}"]) == (2, 1)
    assert found["music_seconds_total"] == 40.5
    assert (found["running_songs"], found["queue_songs"]) == (17, 3)
    assert (found["queue_limit"], found["replicas"]) == (64, 2)


def test_the_load_of_a_replica_that_is_gone_counts_no_more() -> None:
    totals = Totals(replicas=2, queue=64, silence=0.05)
    totals.load("gone", 16, 9)
    time.sleep(0.1)
    totals.load("alive", 1, 0)
    found = samples(totals.text())
    assert (found["running_songs"], found["queue_songs"]) == (1, 0)


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/predict", 200, ("/predict", 200)),
        ("/predict", 0, ("/predict", 500)),  # it raised before a response
        ("/.git/config", 404, ("other", 404)),
    ],
)
def test_a_request_is_counted_by_its_path_and_status(
    path: str, status: int, expected: tuple[str, int]
) -> None:
    counted: list[tuple[str, int]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if not status:
            raise ValueError
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b""})

    def count(path: str, status: int, seconds: float) -> None:
        assert 0 <= seconds < 10
        counted.append((path, status))

    async def ignore(message: Any = None) -> Any: ...

    app = CountRequests(application, frozenset({"/predict"}), count)
    call = app({"type": "http", "path": path}, ignore, ignore)
    if status:
        asyncio.run(call)
    else:
        with pytest.raises(ValueError):  # noqa: PT011
            asyncio.run(call)
    assert counted == [expected]
