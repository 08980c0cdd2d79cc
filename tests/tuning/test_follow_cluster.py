"""How many trials run follows the nodes that a cluster has."""

from types import SimpleNamespace
from typing import Any

import pytest

from mgc_ray.results import TrialResources
from mgc_ray.tuning import callbacks
from mgc_ray.tuning.callbacks import FollowCluster
from mgc_ray.tuning.cluster import Cluster


def _ended(count: int) -> list[Any]:
    return [SimpleNamespace(is_finished=lambda: True) for _ in range(count)]


@pytest.mark.parametrize(
    ("concurrent", "expected"), [(None, [4, 8, 1, 8]), (6, [4, 6, 1, 6]), (1, [1, 1, 1, 1])]
)
def test_more_trials_run_when_nodes_join_and_fewer_when_they_leave(
    monkeypatch: pytest.MonkeyPatch, concurrent: int | None, expected: list[int]
) -> None:
    asked: list[tuple[int, Any]] = []
    monkeypatch.setattr(
        callbacks,
        "request_resources",
        lambda bundles: asked.append((len(bundles), bundles[0] if bundles else None)),
    )
    monkeypatch.setattr(callbacks, "_LOOK", 0)
    limiter = SimpleNamespace(max_concurrent=4)
    resources = TrialResources(2.0, 0.25, 4)
    follow = FollowCluster(limiter, resources, concurrent, trials=20)  # type: ignore[arg-type]
    found = []
    for nodes in (((8, 1),), ((8, 1), (8, 1)), (), ((8, 1), (8, 1))):
        cluster = Cluster(sum(cpus for cpus, _ in nodes), len(nodes), nodes or ((0, 0),))
        monkeypatch.setattr(callbacks, "cluster_now", lambda cluster=cluster: cluster)
        follow.on_step_begin(0, _ended(0))
        found.append(limiter.max_concurrent)
    assert found == expected
    # a cluster that grows is asked once for what could run, then for what is left
    needs = {"CPU": 2.0, "GPU": 0.25}
    most = concurrent or 20
    assert asked == [(most, needs)]
    follow.on_step_begin(0, _ended(17))
    assert asked[-1] == (min(most, 3), needs)
    follow.end()
    assert asked[-1] == (0, None)
