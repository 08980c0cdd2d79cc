"""Refitting a search's best configurations on folds, on a real Ray cluster."""

from pathlib import Path

import pytest

from mgc_ray.data.chunks import Chunks
from mgc_ray.data.split import draw_folds
from mgc_ray.data.storage import Exchange
from mgc_ray.ensembling.folds import read_refitted
from mgc_ray.tuning.records import COMPLETED, FAILED, TrialRecord
from mgc_ray.tuning.refit import configurations, epochs_of, refit
from mgc_ray.tuning.settings import TuneSettings

SMALL = {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8}
SETTINGS = TuneSettings(max_epochs=3)


def record(number: int, family: str, accuracy: float, **params: object) -> TrialRecord:
    best = {"val_track_accuracy": accuracy, "val_loss": 1.0}
    return TrialRecord(
        trial=f"{family}-{number:04d}",
        family=family,
        params=SMALL | params,
        status=COMPLETED,
        best_epoch=2,
        curve=[best | {"val_track_accuracy": 0.0}, best, best | {"val_track_accuracy": 0.1}],
    )


def test_the_best_of_each_family_come_first_then_the_best_of_all() -> None:
    records = [
        record(0, "gru", 0.9),
        record(1, "gru", 0.8),
        record(2, "cnn", 0.5),
        record(3, "gru", 0.7),
        record(4, "lstm", 0.6),
    ]
    records[4].status = FAILED
    names = [one.trial for one in configurations(records, 3)]
    assert names == ["gru-0000", "cnn-0002", "gru-0001"]
    assert [one.trial for one in configurations(records, 1)] == ["gru-0000", "cnn-0002"]


def test_a_constant_rate_ends_at_the_trials_best_epoch_and_a_cosine_runs_out() -> None:
    one = record(0, "gru", 0.9)
    assert epochs_of(one, {"schedule": "constant", "max_epochs": 30}) == 2
    assert epochs_of(one, {"schedule": "cosine", "max_epochs": 30}) == 30


def test_refit_covers_all_tracks_and_goes_on_where_it_stopped(
    tmp_path: Path, chunks: Chunks, ray_cluster: dict[str, float]
) -> None:
    records = [record(0, "gru", 0.9), record(1, "cnn", 0.8)]
    refit(Exchange(tmp_path, None), records, chunks, SETTINGS, ray_cluster, folds=3, top=2)
    found = read_refitted(tmp_path / "refit")
    assert [one.name for one in found] == ["gru-0000", "cnn-0001"]
    assert all(one.complete for one in found)
    assert found[0].rows.tolist() == list(range(len(chunks.track)))
    files = sorted((tmp_path / "refit").glob("*/*/held.npz"))
    assert len(files) == 6
    before = {path: path.stat().st_mtime_ns for path in files}
    files[2].unlink()
    refit(Exchange(tmp_path, None), records, chunks, SETTINGS, ray_cluster, folds=3, top=2)
    after = {path: path.stat().st_mtime_ns for path in files}
    assert [path for path in files if after[path] != before[path]] == [files[2]]


def test_no_group_is_predicted_by_a_model_that_has_seen_it(chunks: Chunks) -> None:
    folds = draw_folds(chunks.tracks, 3, 0)
    of_group: dict[str, set[int]] = {}
    for track, fold in zip(chunks.tracks, folds, strict=True):
        of_group.setdefault(track.group, set()).add(fold)
    assert all(len(one) == 1 for one in of_group.values())


def test_a_configuration_that_diverges_is_left_out_with_a_reason(
    tmp_path: Path,
    chunks: Chunks,
    ray_cluster: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = [record(0, "gru", 0.9, lr=1e30), record(1, "cnn", 0.8)]
    refit(Exchange(tmp_path, None), records, chunks, SETTINGS, ray_cluster, folds=2, top=2)
    complete = {one.name: one.complete for one in read_refitted(tmp_path / "refit")}
    assert complete == {"gru-0000": False, "cnn-0001": True}
    assert "gru-0000 is left out of the refit" in capsys.readouterr().err
