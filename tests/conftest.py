"""Fixtures that many tests share: a tiny dataset in memory, a real Ray cluster, a real search."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mgc_ray.data.chunks import Chunks
from mgc_ray.data.dataset import DatasetInfo
from mgc_ray.data.spectrogram import Precomputed
from mgc_ray.data.tracks import Track
from tests.commands import command

GENRES = ("blues", "disco", "rock")


def make_chunks(
    tracks_per_genre: int = 6,
    chunks_per_track: int = 3,
    bands: int = 16,
    frames: int = 12,
    noise: float = 1.0,
    seed: int = 0,
) -> Chunks:
    """Separable chunks: genre g is louder in every third band from band g on.

    Two thirds of each genre's tracks are train, the rest valid.
    """
    random = np.random.default_rng(seed)
    tracks, spectrograms, owner, split = [], [], [], []
    for g, genre in enumerate(GENRES):
        for i in range(tracks_per_genre):
            side = "train" if i < tracks_per_genre * 2 // 3 else "valid"
            track_id = f"{genre}.{i}"
            tracks.append(
                Track(f"{track_id}.npy", genre, track_id, artist="", group=track_id, split=side)
            )
            for _ in range(chunks_per_track):
                x = random.normal(size=(bands, frames)) * noise - 30
                x[g :: len(GENRES)] += 2
                spectrograms.append(x)
                owner.append(len(tracks) - 1)
                split.append(side)
    info = DatasetInfo(
        features=Precomputed(bands, frames, "float32"),
        genres=GENRES,
        protocol="given",
        seed=0,
        source="made by a test",
        listing="",
        shards=1,
        tracks=len(tracks),
        finished=True,
    )
    return Chunks(
        info, np.array(owner), np.array(split), tracks, np.array(spectrograms, np.float32)
    )


@pytest.fixture
def chunks() -> Chunks:
    return make_chunks()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[dict[str, float]]:
    """One cluster of two CPUs for all tests that need Ray in this process."""
    import ray

    from mgc_ray.tuning.cluster import connected

    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    with connected() as resources:
        yield resources
    ray.shutdown()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which a smoke search of two families has run; see said.json."""
    cwd = tmp_path_factory.mktemp("home")
    done = command(
        "search", "--family", "gru", "cnn", "--smoke", "--name", "first", "--json", cwd=cwd
    )
    (cwd / "said.json").write_text(done.stdout)
    (cwd / "said.txt").write_text(done.stderr)
    return cwd
