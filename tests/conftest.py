"""Fixtures that many tests share: a tiny dataset in memory, a real Ray cluster, a real search."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mgc_ray.config import ClusterConfig, DatasetConfig
from mgc_ray.data.chunks import Chunks
from mgc_ray.data.dataset import DatasetInfo
from mgc_ray.data.features import FeatureSet
from mgc_ray.data.features._librosa import share_compiled_code
from mgc_ray.data.features.array import Array
from mgc_ray.data.files import exclusive_lock
from mgc_ray.data.tracks import Track
from mgc_ray.terminal.process import prepare_process
from tests.commands import command

if TYPE_CHECKING:
    from mgc_ray.tuning.cluster import Cluster

GENRES = ("blues", "disco", "rock")
_QUICK = ("corpus", "data", "ensembling", "evaluation", "models", "reporting", "training")

prepare_process()  # before Ray is imported, as commands do
share_compiled_code()  # tests import librosa by themselves
# One thread of PyTorch, here and in processes that tests start: their networks are tiny, and more
# threads than cores wait for one another. PyTorch reads it when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders with quick tests come last, so that two processes end at about the same time."""
    items.sort(key=lambda item: item.nodeid.split("/")[1] in _QUICK)


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
    feature = Array(bands=bands, frames=frames, value_type="float32")
    info = DatasetInfo(
        config=DatasetConfig(tracks="made by a test", protocol="given"),
        features=FeatureSet({"array": feature}),
        listing="",
        genres=GENRES,
        tracks=len(tracks),
        shards=1,
        finished=True,
    )
    arrays = {"array": np.array(spectrograms, np.float32)}
    return Chunks(info, np.array(owner), np.array(split), tracks, arrays)


@pytest.fixture
def chunks() -> Chunks:
    return make_chunks()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator["Cluster"]:
    """One cluster of two CPUs for all tests that need Ray in this process."""
    import ray

    from mgc_ray.tuning import cluster

    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    cluster.quieten_ray()
    with cluster.ray_cluster(ClusterConfig()) as connected:
        yield connected
    ray.shutdown()


@pytest.fixture(scope="session")
def home(ray_cluster: "Cluster", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which a smoke search of two families has run; see printed.json.

    All processes of one run of the tests share it.
    """
    base = tmp_path_factory.getbasetemp()
    cwd = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "home"
    cwd.mkdir(exist_ok=True)
    with exclusive_lock(cwd, lambda holder: None):
        if not (cwd / "printed.txt").exists():
            families = ("--family", "gru", "cnn")
            done = command("search", *families, "--smoke", "--name", "first", "--json", cwd=cwd)
            (cwd / "printed.json").write_text(done.stdout)
            (cwd / "printed.txt").write_text(done.stderr)
    return cwd
