"""What tests of preprocessing start from."""

from pathlib import Path

import pytest

import mgc_ray.pipeline.preprocess
from tests.pipeline.making import make, music


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tracks per shard, so that small tables have several."""
    monkeypatch.setattr(mgc_ray.pipeline.preprocess, "TRACKS_PER_SHARD", 4)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of music and the finished dataset of it, in two shards."""
    make(music(tmp_path / "music"), tmp_path / "dataset")
    return tmp_path / "music", tmp_path / "dataset"
