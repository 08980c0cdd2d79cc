"""Which run of a trial may write, after its node was taken for dead."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgc_ray.data.chunks import Chunks
from mgc_ray.data.storage import SharedFolder, Storage, StorageError
from mgc_ray.tuning import trial as trials
from mgc_ray.tuning.attempts import begin_attempt, end_attempts
from mgc_ray.tuning.trial import TrialContext, run_trial
from tests.conftest import make_chunks


@pytest.fixture(params=["a folder that all nodes see", "a storage"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> SharedFolder:
    (tmp_path / "a").mkdir()
    if request.param == "a storage":
        return SharedFolder(tmp_path / "a", Storage(str(tmp_path / "storage")), "a")
    return SharedFolder(tmp_path / "a", None)


def test_only_the_latest_run_of_a_trial_may_write(shared: SharedFolder) -> None:
    first = begin_attempt(shared, "trials", "gru-0001")
    other = begin_attempt(shared, "trials", "gru-0002")
    first.check()
    (first.files.folder / "gru-0001").mkdir(parents=True)
    second = begin_attempt(shared, "trials", "gru-0001")
    for one in (second, other):
        one.check()
    with pytest.raises(StorageError):
        first.check()
    if shared.storage:  # all is the node's own copy
        assert not first.files.folder.exists()
        assert second.files.folder != first.files.folder
    end_attempts(shared, "gru-0001")
    other.check()
    with pytest.raises(StorageError):
        second.check()
    end_attempts(shared)
    with pytest.raises(StorageError):
        other.check()
    assert not (shared.folder / "attempts").exists()


@dataclass(frozen=True)
class Frozen(Chunks):
    """Chunks of a trial that freezes in its third epoch, while it is run again elsewhere."""

    search: SharedFolder
    reads: list[dict[str, bytes]]

    @property
    def track_genre(self) -> np.ndarray:  # type: ignore[override]
        if len(self.reads) == 3:  # one before training, one at the end of each epoch
            later = begin_attempt(self.search, "trials", "gru-0000")
            folder = later.files.folder / "gru-0000" / "checkpoint"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.safetensors").write_text("of the later run")
            later.files.send("gru-0000/checkpoint")
        self.reads.append(_content(self.search))
        return np.array([self.info.genres.index(t.genre) for t in self.tracks], np.int64)


def _content(search: SharedFolder) -> dict[str, bytes]:
    place = Path(search.storage.uri) if search.storage else search.folder
    return {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_a_trial_whose_node_thaws_writes_nothing_any_more(
    shared: SharedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(trials.tune, "report", reports.append)
    sound = make_chunks()
    chunks = Frozen(*[getattr(sound, field.name) for field in fields(Chunks)], shared, [])
    params = {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8}
    context = TrialContext(shared, "track_accuracy", {"gru": {"max_epochs": 8}}, {}, 1)
    run_trial({"family": "gru", "trial": "gru-0000", "params": params}, chunks, context)
    assert [report.get("epoch") for report in reports[:-1]] == [1, 2]
    assert "another driver has taken" in reports[-1]["machine_error"][1]
    assert _content(shared) == chunks.reads[-1]
    assert b"of the later run" in chunks.reads[-1].values()
