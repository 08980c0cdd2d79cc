"""A family that is solved for is scored by cross-validation, and keeps a model of train alone."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mgc_ray import task
from mgc_ray.config import SearchConfig, TuneConfig
from mgc_ray.data.chunks import Chunks
from mgc_ray.data.features import FeatureSet, musicnn
from mgc_ray.data.split.folds import draw_folds
from mgc_ray.ensembling.refit import plan_refit
from mgc_ray.results import COMPLETED, FOLDS, STOPPED_EARLY, TrialRecord, ranked
from mgc_ray.training.batches import batches
from mgc_ray.training.checkpoint import load_checkpoint, save_checkpoint
from mgc_ray.training.epoch import predict_probs
from mgc_ray.training.loop import train
from mgc_ray.tuning.asha import AshaByFamily
from mgc_ray.tuning.run import fixed_params
from tests.conftest import make_chunks

FAMILY = "discriminant"  # which takes spectrograms


@pytest.fixture(scope="module")
def noisy() -> Chunks:
    return make_chunks(tracks_per_genre=12, noise=6.0)


def test_each_epoch_predicts_another_fold_by_a_model_of_the_others(noisy: Chunks) -> None:
    epochs = list(train(FAMILY, {"folds": 4}, noisy))
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert [epoch.last for epoch in epochs] == [False, False, False, True]
    assert all(epoch.best for epoch in epochs)
    fold_of = np.array(draw_folds(noisy.tracks, 4, noisy.info.seed))
    probs = np.zeros((len(noisy.track), 3))
    for fold in range(4):
        held = fold_of[noisy.track] == fold
        parts = dataclasses.replace(noisy, split=np.where(held, "valid", "train"))
        (epoch,) = train(FAMILY, {}, parts, statistics=noisy.band_statistics)
        source = batches(parts, ["array"], torch.device("cpu"))
        probs[held] = predict_probs(epoch.classifier, source, np.flatnonzero(held))
        so_far = np.flatnonzero(fold_of[noisy.track] <= fold)
        expected, _, _ = task.validation_metrics(
            probs[so_far], noisy.track[so_far], noisy.track_genre
        )
        for name, value in expected.items():
            assert epochs[fold].metrics[name] == pytest.approx(value, abs=1e-6)
        assert epochs[fold].metrics[FOLDS] == fold + 1
    assert 0.4 < epochs[-1].metrics["val_track_accuracy"] < 1


def test_the_model_and_its_validation_predictions_are_of_the_training_part(noisy: Chunks) -> None:
    (alone,) = train(FAMILY, {}, noisy)
    *_, last = train(FAMILY, {"folds": 3}, noisy)
    for name, value in alone.classifier.state_dict().items():
        assert last.classifier.state_dict()[name].equal(value)
    assert last.validation
    assert alone.validation
    assert (last.validation.probs == alone.validation.probs).all()
    assert FOLDS not in alone.metrics


def test_a_leaky_split_is_scored_by_its_validation_part(noisy: Chunks) -> None:
    config = dataclasses.replace(noisy.info.config, protocol="random-chunks")
    leaky = dataclasses.replace(noisy, info=dataclasses.replace(noisy.info, config=config))
    (epoch,) = train(FAMILY, {"folds": 3}, leaky)
    assert FOLDS not in epoch.metrics


def record(number: int, scores: list[float], status: str = COMPLETED) -> TrialRecord:
    curve = [
        {"val_track_accuracy": value, "val_loss": 1.0, FOLDS: float(fold)}
        for fold, value in enumerate(scores, start=1)
    ]
    return TrialRecord(
        f"linear-{number:04d}", "linear", {}, status=status, best_epoch=len(curve), curve=curve
    )


def test_the_score_of_folds_is_that_of_all_so_far_and_not_of_the_best() -> None:
    curve = record(0, [0.9, 0.7, 0.8]).curve
    assert task.scores_so_far(curve, "track_accuracy") == [0.9, 0.7, 0.8]
    for metrics in curve:
        del metrics[FOLDS]
    assert task.scores_so_far(curve, "track_accuracy") == [0.9, 0.9, 0.9]


def test_a_trial_that_was_stopped_after_an_easy_fold_ranks_below_all_that_were_not() -> None:
    records = [record(0, [0.9], STOPPED_EARLY), record(1, [0.95, 0.7]), record(2, [0.6, 0.8])]
    assert [one.number for one in ranked(records)] == [2, 1, 0]


def test_asha_stops_a_trial_that_is_bad_on_the_first_fold() -> None:
    asha = AshaByFamily(TuneConfig(max_epochs=9), [record(i, [0.8] * 5) for i in range(4)])
    asha._replay(record(9, [0.2]))
    (of_family,) = asha._by_family.values()
    assert of_family._num_stopped == 1


@pytest.mark.parametrize(
    ("families", "folds"), [(("linear",), 5), (("linear", "cnn"), 0), (("discriminant",), 0)]
)
def test_all_trials_of_a_search_are_scored_on_the_same_tracks(
    families: tuple[str, ...], folds: int
) -> None:
    config = SearchConfig(family=families)
    assert [fixed_params(one, config, None)["folds"] for one in families] == [folds] * len(families)


def test_a_refit_has_folds_of_its_own() -> None:
    one = record(0, [0.9, 0.7, 0.8])
    plan = plan_refit(one, {"schedule": "constant", "max_epochs": 30, "folds": 3}, 5)
    assert (plan.epochs, plan.params["folds"]) == (1, 0)


def test_an_embedding_is_learnt_from_and_its_network_is_recorded(tmp_path: Path) -> None:
    feature = musicnn.Feature(model="MTT_vgg")
    noisy = make_chunks(tracks_per_genre=8, bands=feature.bands, frames=1, noise=0.5)
    info = dataclasses.replace(noisy.info, features=FeatureSet({"musicnn:MTT_vgg": feature}))
    values = {"musicnn:MTT_vgg": noisy.features["array"]}
    chunks = dataclasses.replace(noisy, info=info, features=values)
    params = {"features": "musicnn:MTT_vgg[mean,tags]"}
    *_, last = train("linear", params, chunks)
    assert last.metrics["val_track_accuracy"] > 0.9
    save_checkpoint(tmp_path, last, "linear", params, info)
    loaded = load_checkpoint(tmp_path)
    first, own = loaded.config.trained_on
    assert str(first) == "MTT_vgg of musicnn 0.1.0, ISC licence (tags of MagnaTagATune)"
    assert own.task == "genres"
    batch = {name: torch.from_numpy(x[:5]) for name, x in values.items()}
    with torch.no_grad():
        assert loaded.classifier(batch).equal(last.classifier.eval()(batch))
