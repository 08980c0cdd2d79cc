"""A function applied to many items on all CPUs: results, errors, and how items become tasks."""

import pytest

from mgc_ray import RequestError
from mgc_ray.tuning.cluster import Cluster
from mgc_ray.tuning.tasks import Shared, parallel_map, pieces_of


def test_pieces_are_large_at_first_and_small_at_the_end() -> None:
    items = list(range(1000))
    pieces = pieces_of(items, 4, 8, 64)
    assert [item for piece in pieces for item in piece] == items
    # 64 while a quarter of what is left is more: 12 of them leave 232, of which 58 is a quarter
    sizes = [64] * 12 + [58, 43, 32, 24, 18, 14, 10, 8, 8, 8, 8, 1]
    assert [len(piece) for piece in pieces] == sizes
    assert pieces_of(items[:3], 64, 8, 64) == [items[:3]]
    assert pieces_of([], 4, 8, 64) == []


def test_a_million_tracks_do_not_become_a_million_tasks() -> None:
    for at_least, at_most, count in ((8, 64, 1_000_000), (1, 4, 62_500)):
        sizes = [len(piece) for piece in pieces_of(range(count), 4, at_least, at_most)]
        assert sum(sizes) == count
        assert 4000 <= len(sizes) < 4200


def test_each_item_has_one_result(ray_cluster: Cluster) -> None:
    factor = Shared("three", 3)
    results = list(parallel_map(range(40), lambda item: factor.get() * item, 1, 4))
    assert sorted(results) == [3 * item for item in range(40)]
    assert list(parallel_map([], lambda item: item, 1, 4)) == []


@pytest.mark.parametrize("error", [RequestError("a rule"), OSError(28, "No space left on device")])
def test_an_error_of_a_task_is_raised_as_what_it_was(
    ray_cluster: Cluster, error: Exception
) -> None:
    def fail(item: int) -> int:
        raise error

    with pytest.raises(type(error)) as raised:
        list(parallel_map([1, 2], fail, 1, 1))
    assert str(raised.value) == str(error)
