"""How items are parted into tasks."""

from mgc_ray.tuning.parallel import pieces_of


def test_pieces_are_large_at_first_and_small_at_the_end() -> None:
    items = list(range(1000))
    pieces = pieces_of(items, 4, 8, 64)
    assert [item for piece in pieces for item in piece] == items
    # 64 while a quarter of what is left is more: 12 of them leave 232, of which 58 is a quarter
    sizes = [64] * 12 + [58, 43, 32, 24, 18, 14, 10, 8, 8, 8, 8, 1]
    assert [len(piece) for piece in pieces] == sizes
    assert pieces_of(items[:3], 64, 8, 64) == [items[:3]]
    assert pieces_of([], 4, 8, 64) == []


def test_a_million_tracks_are_no_million_tasks() -> None:
    for at_least, at_most, count in ((8, 64, 1_000_000), (1, 4, 62_500)):
        sizes = [len(piece) for piece in pieces_of(range(count), 4, at_least, at_most)]
        assert sum(sizes) == count
        assert 4000 <= len(sizes) < 4200
