"""One finished search that many tests look at."""

from pathlib import Path

import pytest

from mgc_ray.tuning.records import TrialRecord
from tests.conftest import make_chunks
from tests.tuning.searching import search, with_hopeless_ones


@pytest.fixture(scope="session")
def finished(
    ray_cluster: dict[str, float], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[TrialRecord]]:
    """One search that most tests below look at: two families, 16 trials, 6 keep their weights."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        records = search(
            folder,
            patch,
            ray_cluster,
            with_hopeless_ones,
            make_chunks(tracks_per_genre=18, noise=1.5),
            families=("cnn", "gru"),
            trials=16,
            max_epochs=9,
            grace_period=1,
            reduction_factor=3,
            keep=6,
        )
    return folder, records
