"""Small features and chunks of them, made without audio, in memory and on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mgc_ray.data.chunks import Chunks
from mgc_ray.data.dataset import TrackPlace, finish, shard_path, write_shard, write_tracks
from mgc_ray.data.features import Feature, FeatureSet, TrackFeatures, chroma, mfcc, musicnn
from mgc_ray.data.features.array import Array
from mgc_ray.data.features.log_mel import LogMel
from tests.conftest import make_chunks


def arrays(bands: int = 16, frames: int = 12) -> FeatureSet:
    """What `make_chunks` has: one feature, "array"."""
    return FeatureSet({"array": Array(bands=bands, frames=frames, value_type="float32")})


def three_features() -> FeatureSet:
    """log_mel [20, 12], pitched; chroma [12, 12]; mfcc [20, 6], at half the frame rate."""
    log_mel = LogMel(n_mels=20, chunk_samples=11 * 256)
    slower = LogMel(n_mels=20, chunk_samples=11 * 256, hop_length=512)
    columns: dict[str, Feature] = {
        "log_mel": log_mel,
        "chroma": chroma.Feature(log_mel=log_mel),
        "mfcc": mfcc.Feature(log_mel=slower),
    }
    return FeatureSet(columns, chunk_seconds=11 * 256 / 22_050)


def chunks_of_three(tracks_per_genre: int = 6) -> Chunks:
    """`make_chunks` as log_mel; chroma and mfcc are noise that says nothing of the genre.

    Bands of chroma have mean 100 and deviation 2, those of mfcc mean -7 and deviation 0.5.
    """
    plain = make_chunks(tracks_per_genre, bands=20)
    random = np.random.default_rng(7)
    count = len(plain.track)
    features = {
        "log_mel": plain.features["array"],
        "chroma": random.normal(100, 2, (count, 12, 12)).astype(np.float32),
        "mfcc": random.normal(-7, 0.5, (count, 20, 6)).astype(np.float32),
    }
    return replace(plain, info=replace(plain.info, features=three_features()), features=features)


def two_kinds() -> FeatureSet:
    """mfcc [20, 12], and an embedding [562, 2] between it and log_mel [20, 12]."""
    log_mel = LogMel(n_mels=20, chunk_samples=11 * 256)
    columns: dict[str, Feature] = {
        "mfcc": mfcc.Feature(log_mel=log_mel),
        "musicnn:MTT_vgg": musicnn.Feature(model="MTT_vgg", chunk_samples=2 * 187 * 256),
        "log_mel": log_mel,
    }
    return FeatureSet(columns, chunk_seconds=11 * 256 / 22_050)


def chunks_of_two_kinds(tracks_per_genre: int = 6) -> Chunks:
    """Only `tags` of the embedding tell the genre: the first three, one each; all else is noise."""
    plain = make_chunks(tracks_per_genre)
    random, count = np.random.default_rng(7), len(plain.track)
    features = {
        name: random.normal(size=(count, f.bands, f.frames)).astype(np.float32)
        for name, f in two_kinds().columns.items()
    }
    features["musicnn:MTT_vgg"][np.arange(count), 512 + plain.genre] += 4
    return replace(plain, info=replace(plain.info, features=two_kinds()), features=features)


def write_dataset(folder: Path, chunks: Chunks, tracks_per_shard: int = 2) -> Path:
    """The same chunks as a dataset on disk, tracks in the order of their parts."""
    order = sorted(range(len(chunks.tracks)), key=lambda i: chunks.tracks[i].split)
    shards = [order[i : i + tracks_per_shard] for i in range(0, len(order), tracks_per_shard)]
    info = replace(chunks.info, shards=len(shards), finished=False)
    places = []
    for number, members in enumerate(shards):
        tracks = []
        for row_group, i in enumerate(members):
            columns = {name: x[chunks.track == i] for name, x in chunks.features.items()}
            features = TrackFeatures(columns, seconds=1.0, content_hash=str(i))
            tracks.append((chunks.tracks[i], features))
            place = TrackPlace(number, row_group, features.chunks, 1.0, str(i), str(i))
            places.append((chunks.tracks[i], place))
        write_shard(shard_path(folder, number), info, tracks, [])
    write_tracks(folder, places)
    finish(folder, info)
    return folder
