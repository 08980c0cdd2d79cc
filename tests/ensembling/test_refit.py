"""Refitting on folds: which model has seen what, and that nothing finished is done again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks
from mgc_ray.ensembling.refit import (
    RefitPlan,
    configurations,
    fit_fold,
    fold_folder,
    is_done,
    plan_refit,
    read_refitted,
)
from mgc_ray.models import full_params
from mgc_ray.results import COMPLETED, FAILED, TrialRecord
from mgc_ray.settings import Params
from mgc_ray.task import Score
from mgc_ray.training.checkpoint import load_checkpoint
from tests.made_chunks import chunks_of_three

CPU = torch.device("cpu")
PARAMS: Params = full_params(
    "gru", {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8, "max_epochs": 3}
)
PLAN = RefitPlan("gru", PARAMS, epochs=2, folds=3, score=Score(0.5, -1.0))


@pytest.fixture
def fold_of(chunks: Chunks) -> np.ndarray:
    return np.arange(len(chunks.tracks)) % 3


def _refit(
    folder: Path,
    chunks: Chunks,
    fold_of: np.ndarray,
    folds: tuple[int, ...] = (0, 1, 2),
    plan: RefitPlan = PLAN,
) -> None:
    plan.write(folder)
    for fold in folds:
        fit_fold(folder, fold, plan, chunks, fold_of, CPU)


def _marked(chunks: Chunks, tracks: np.ndarray) -> Chunks:
    """The chunks of these tracks (bool [K]) are 1000 higher."""
    features = chunks.features["array"].copy()
    features[tracks[chunks.track]] += 1000.0
    return replace(chunks, features={"array": features})


def test_every_chunk_is_predicted_by_the_model_of_its_own_fold(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    _refit(tmp_path / "gru-0001", chunks, fold_of)
    (refitted,) = read_refitted(tmp_path)
    assert refitted.complete
    assert refitted.name == "gru-0001"
    assert refitted.plan == PLAN
    assert refitted.seconds > 0
    assert refitted.rows.tolist() == list(range(len(chunks.track)))
    probs = refitted.out_of_fold(refitted.rows)
    for fold, folder in enumerate(refitted.folds):
        classifier = load_checkpoint(folder).classifier
        rows = np.flatnonzero(fold_of[chunks.track] == fold)
        x = {"array": torch.from_numpy(chunks.features["array"][rows])}
        with torch.no_grad():
            expected = classifier.probs(x)
        assert probs[rows] == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_model_learns_from_all_folds_but_its_own(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    """Other features in a fold change all models but the one that leaves this fold out."""
    statistics = chunks.band_statistics
    marked = _marked(chunks, fold_of == 1)
    marked.__dict__["band_statistics"] = statistics  # those would reach every fold
    _refit(tmp_path / "plain" / "gru-0001", chunks, fold_of)
    _refit(tmp_path / "marked" / "gru-0001", marked, fold_of)
    for fold in range(3):
        plain, other = (
            load_checkpoint(fold_folder(tmp_path / name / "gru-0001", fold)).classifier
            for name in ("plain", "marked")
        )
        same = all(
            value.equal(other.state_dict()[name]) for name, value in plain.state_dict().items()
        )
        assert same == (fold == 1)


def test_all_folds_are_standardised_alike_by_the_training_part(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    """So that members of one ensemble can share what they compute from a song."""
    _refit(tmp_path / "gru-0001", chunks, fold_of)
    expected = chunks.features["array"][chunks.rows("train")]
    found = set()
    for fold in range(3):
        classifier = load_checkpoint(fold_folder(tmp_path / "gru-0001", fold)).classifier
        assert classifier.mean.numpy() == pytest.approx(expected.mean((0, 2)), abs=1e-3)
        assert classifier.deviation.numpy() == pytest.approx(expected.std((0, 2)), rel=1e-3)
        found.add(classifier.standardisation())
    assert len(found) == 1


def test_training_is_as_long_as_planned_whatever_the_fold_left_out_gives(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    _refit(tmp_path / "gru-0001", chunks, fold_of, (0,))
    assert load_checkpoint(fold_folder(tmp_path / "gru-0001", 0)).epoch == 2


def test_a_refit_reads_the_features_of_its_trial(tmp_path: Path) -> None:
    chunks = chunks_of_three()
    plan = replace(PLAN, params=PARAMS | {"features": "chroma+mfcc"}, epochs=1)
    _refit(tmp_path / "gru-0001", chunks, np.arange(len(chunks.tracks)) % 3, (0,), plan)
    loaded = load_checkpoint(fold_folder(tmp_path / "gru-0001", 0))
    assert list(loaded.features.columns) == ["chroma", "mfcc"]


def test_an_unfinished_refit_is_not_complete(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    folder = tmp_path / "gru-0001"
    _refit(folder, chunks, fold_of, (1,))
    assert is_done(folder, 1)
    assert not is_done(folder, 0)
    (refitted,) = read_refitted(tmp_path)
    assert refitted.folds == (fold_folder(folder, 1),)
    assert not refitted.complete
    with pytest.raises(ValueError, match=f"must cover {len(chunks.track)} chunks"):
        refitted.out_of_fold(np.arange(len(chunks.track)))


def test_a_track_in_no_fold_is_always_trained_on_and_never_evaluated(
    tmp_path: Path, chunks: Chunks, fold_of: np.ndarray
) -> None:
    without = np.where(np.arange(len(fold_of)) < 4, -1, fold_of)
    marked = _marked(chunks, without < 0)
    marked.__dict__["band_statistics"] = chunks.band_statistics
    _refit(tmp_path / "plain" / "gru-0001", chunks, without)
    _refit(tmp_path / "marked" / "gru-0001", marked, without)
    (plain,), (other,) = (read_refitted(tmp_path / name) for name in ("plain", "marked"))
    assert plain.rows.tolist() == np.flatnonzero(without[chunks.track] >= 0).tolist()
    for folders in zip(plain.folds, other.folds, strict=True):
        one, two = (load_checkpoint(folder).classifier.network for folder in folders)
        assert not one.head[-1].weight.equal(two.head[-1].weight)


def test_refitted_configurations_are_read_best_first(tmp_path: Path) -> None:
    for name, score in (("a", (0.5, -1.0)), ("b", (0.7, -3.0)), ("c", (0.7, -2.0))):
        replace(PLAN, score=Score(*score)).write(tmp_path / name)
    assert [one.name for one in read_refitted(tmp_path)] == ["c", "b", "a"]
    assert read_refitted(tmp_path / "nowhere") == []


def test_a_damaged_plan_is_refused_with_its_place(tmp_path: Path) -> None:
    PLAN.write(tmp_path / "a")
    (tmp_path / "a" / "refit.json").write_text('{"family": "gru"}')
    with pytest.raises(RequestError, match=r"a/refit\.json is damaged, or .*: delete its folder"):
        read_refitted(tmp_path)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("folds", [10**12, 0, -1])
def test_a_plan_of_any_number_of_folds_is_read_at_once(tmp_path: Path, folds: int) -> None:
    replace(PLAN, folds=folds).write(tmp_path / "a")
    for name in ("fold-0", "fold-1", "fold-x", "fold-9999999999999"):
        (tmp_path / "a" / name).mkdir()
    (refitted,) = read_refitted(tmp_path)
    assert not refitted.folds
    assert not refitted.complete


# --- which configurations, and for how long ---


def _record(number: int, family: str, accuracy: float, status: str = COMPLETED) -> TrialRecord:
    first = {"val_track_accuracy": 0.0, "val_log_loss": 2.0, "val_loss": 2.0}
    best = {"val_track_accuracy": accuracy, "val_log_loss": 1 + accuracy, "val_loss": 1.0}
    return TrialRecord(
        trial=f"{family}-{number:04d}",
        family=family,
        params={},
        status=status,
        best_epoch=2,
        curve=[first, best, first],
    )


def test_the_best_of_each_family_come_first_then_the_best_of_all() -> None:
    records = [
        _record(0, "gru", 0.9),
        _record(1, "gru", 0.8),
        _record(2, "cnn", 0.5),
        _record(3, "gru", 0.7),
        _record(4, "lstm", 0.6, FAILED),
    ]
    names = [one.trial for one in configurations(records, 3)]
    assert names == ["gru-0000", "cnn-0002", "gru-0001"]
    assert [one.trial for one in configurations(records, 1)] == ["gru-0000", "cnn-0002"]
    assert len(configurations(records, 99)) == 4


def test_a_constant_rate_ends_at_the_trials_best_epoch_and_a_cosine_is_run_whole() -> None:
    record = _record(0, "gru", 0.9)
    constant = plan_refit(record, {"schedule": "constant", "max_epochs": 30}, folds=5)
    assert (constant.epochs, constant.folds, constant.score) == (2, 5, Score(0.9, -1.0))
    assert plan_refit(record, {"schedule": "cosine", "max_epochs": 30}, folds=5).epochs == 30


def test_the_score_is_by_the_metric_of_the_trial() -> None:
    record = _record(0, "gru", 0.5)
    record.metric = "log_loss"
    plan = plan_refit(record, {"schedule": "constant"}, folds=2)
    assert plan.score == Score(-1.5, -1.0)
