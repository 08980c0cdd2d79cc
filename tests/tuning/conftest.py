"""One finished search that many tests look at."""

from pathlib import Path

import pytest

from mgc_ray.results import TrialRecord
from mgc_ray.tuning.cluster import Cluster
from tests.conftest import make_chunks
from tests.tuning.searching import search, with_useless_rates


@pytest.fixture(scope="session")
def finished(
    ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[TrialRecord]]:
    """Folder and records of a search of two families, 16 trials, of which 6 keep their weights."""
    folder = tmp_path_factory.mktemp("search")
    records = search(
        folder,
        ray_cluster,
        with_useless_rates,
        make_chunks(tracks_per_genre=18, noise=1.5),
        families=("cnn", "gru"),
        trials=16,
        max_epochs=9,
        grace_period=1,
        reduction_factor=3,
        keep=6,
    )
    return folder, records
