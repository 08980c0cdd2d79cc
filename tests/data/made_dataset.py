"""A tiny dataset on disk: four tracks in two shards."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mgc_ray.config import DatasetConfig
from mgc_ray.data.dataset import (
    DatasetInfo,
    TrackPlace,
    finish,
    shard_path,
    split_identity,
    write_shard,
    write_tracks,
)
from mgc_ray.data.features import FeatureSet, TrackFeatures
from mgc_ray.data.features.array import Array
from mgc_ray.data.tracks import Track

BANDS, FRAMES = 2, 3
SPLIT_OF = {"a": "train", "b": "valid", "c": "train", "d": "test"}
GENRE_OF = {"a": "jazz", "b": "jazz", "c": "blues", "d": "blues"}


def array_of(value_type: Any = "float32") -> FeatureSet:
    return FeatureSet({"array": Array(bands=BANDS, frames=FRAMES, value_type=value_type)})


def info_of(features: FeatureSet | None = None, **changed: Any) -> DatasetInfo:
    """An unfinished dataset; `changed` are fields of DatasetInfo or of its configuration."""
    fields = {name: changed.pop(name) for name in DatasetInfo.__annotations__ if name in changed}
    info = DatasetInfo(
        config=DatasetConfig(tracks="music", split_seed=3),
        features=features or array_of(),
        listing="abc",
        genres=("blues", "jazz"),
        tracks=4,
        shards=2,
    )
    return replace(info, config=replace(info.config, **changed), **fields)


def track_of(name: str) -> Track:
    return Track(f"/music/{name}.wav", GENRE_OF[name], name, "Ella", "Ella", SPLIT_OF[name])


def chunks_of(name: str, count: int = 2) -> np.ndarray:
    """[count, 2, 3] numbers found nowhere else: 100 for each track, 10 for each chunk."""
    base = 100 * "abcd".index(name) + 10 * np.arange(count)
    return (base[:, None, None] + np.arange(6).reshape(2, 3)).astype(np.float32)


def features_of(name: str, count: int = 2, value_type: str = "float32") -> TrackFeatures:
    chunks = chunks_of(name, count).astype(value_type)
    return TrackFeatures({"array": chunks}, seconds=3.0 * count, content_hash=f"hash {name}")


def place_of(shard: int, row_group: int, chunks: int, name: str) -> TrackPlace:
    return TrackPlace(shard, row_group, chunks, 3.0 * chunks, f"hash {name}", f"hash {name}")


def written_dataset(folder: Path, info: DatasetInfo | None = None) -> Path:
    """Tracks b and a in the first shard, d and c in the second; two chunks each."""
    info = info or info_of()
    value_type = str(info.features.columns["array"].dtype)
    places = {}
    for shard, names in enumerate(("ba", "dc")):
        tracks = [(track_of(name), features_of(name, 2, value_type)) for name in names]
        write_shard(shard_path(folder, shard), info, tracks, [])
        places |= {name: place_of(shard, i, 2, name) for i, name in enumerate(names)}
    rows = [(track_of(name), places[name]) for name in "abcd"]
    write_tracks(folder, rows)
    finish(folder, replace(info, split_id=split_identity(rows, info)))
    return folder
