"""How tracks are distributed over the shards of a dataset."""

from mgc_ray.data.dataset import TRACKS_PER_SHARD
from mgc_ray.pipeline.preprocess import shuffled_shards
from tests.data.made_tracks import tracks_of


def test_every_track_is_in_one_shard_of_limited_size() -> None:
    tracks = tracks_of({"jazz": 20, "rock": 21})
    shards = shuffled_shards(tracks)
    assert list(shards) == [0, 1, 2]
    assert [len(part) for part in shards.values()] == [TRACKS_PER_SHARD, TRACKS_PER_SHARD, 9]
    together = [track for part in shards.values() for track in part]
    assert sorted(together, key=repr) == sorted(tracks, key=repr)


def test_each_shard_is_a_random_sample_of_all_genres() -> None:
    # so that what is streamed shard by shard is well mixed
    shards = shuffled_shards(tracks_of({"jazz": 200, "rock": 200}))
    shares = [sum(t.genre == "jazz" for t in part) / len(part) for part in shards.values()]
    assert 0.1 < min(shares) < 0.5 < max(shares) < 0.9


def test_the_order_is_always_the_same() -> None:
    # so that datasets of several splits can share their shards
    tracks = tracks_of({"jazz": 20, "rock": 20})
    assert shuffled_shards(tracks) == shuffled_shards(tracks)
    assert shuffled_shards(tracks)[0] != tracks[:TRACKS_PER_SHARD]
