"""From candidates to one tested ensemble: weights and metrics by hand, the test part read once."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks, ChunkTable, load_chunks, open_chunks
from mgc_ray.data.dataset import read_info
from mgc_ray.ensembling import build
from mgc_ray.ensembling.build import Candidate, HeldOut, build_ensemble, candidates_of
from mgc_ray.ensembling.refit import RefitPlan, Refitted, fit_fold, read_refitted
from mgc_ray.ensembling.saved import load_ensemble, member_probs
from mgc_ray.evaluation.metrics import apply_temperature, track_probs
from mgc_ray.models import full_params
from mgc_ray.models._classifier import Classifier, count_parameters
from mgc_ray.results import FAILED, OUT_OF_FOLD, TEST, VALID, TrialRecord, read_ensemble_info
from mgc_ray.task import Score
from mgc_ray.training.checkpoint import load_checkpoint
from tests.conftest import make_chunks
from tests.ensembling.made_ensembles import SMALL, predicted, trained
from tests.made_chunks import chunks_of_three, write_dataset

GENRES = 3


def _with_test_part(chunks: Chunks) -> Chunks:
    """Every second validation track becomes a test track."""
    valid = [i for i, track in enumerate(chunks.tracks) if track.split == "valid"]
    tracks = list(chunks.tracks)
    for i in valid[::2]:
        tracks[i] = replace(tracks[i], split="test")
    split = np.array([tracks[i].split for i in chunks.track])
    return replace(chunks, tracks=tracks, split=split)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three features with all three parts, and checkpoints of other features each."""
    folder = tmp_path_factory.mktemp("made")
    chunks = _with_test_part(chunks_of_three(12))
    write_dataset(folder / "dataset", chunks)
    parts = load_chunks(folder / "dataset", ("train", "valid"))
    trained(folder / "gru-0000", "gru", parts, features="log_mel", lr=0.003)
    trained(folder / "gru-0001", "gru", parts, features="chroma+mfcc")
    trained(folder / "discriminant-0002", "discriminant", parts, features="log_mel+chroma")
    return folder


def _candidates(made: Path, *names: str) -> list[Candidate]:
    return [
        Candidate(
            name, name.partition("-")[0], (made / name,), Score(0.9 - i / 10, -1.0), 10.0 * (i + 1)
        )
        for i, name in enumerate(names)
    ]


ALL = ("gru-0000", "gru-0001", "discriminant-0002")


# --- by hand, from written-down predictions ---


def _held(made: Path, probs: Sequence[np.ndarray], models: int = 1) -> HeldOut:
    """Candidates gru-0000, gru-0001, ... with these probabilities for 12 tracks of 3 chunks."""
    chunks = make_chunks(12)
    rows = chunks.rows("valid")
    tracks, track = np.unique(chunks.track[rows], return_inverse=True)
    valid = ChunkTable(chunks.info, track, chunks.split[rows], [chunks.tracks[i] for i in tracks])
    candidates = [
        Candidate(
            f"gru-{i:04d}",
            "gru" if i < 2 else "cnn",
            (made / "gru-0000",) * models,
            Score(0.5, -1.0),
            5.0,
        )
        for i in range(len(probs))
    ]
    return HeldOut(VALID, tuple(candidates), valid, [p.repeat(3, 0) for p in probs], made)


def _sure(right: Sequence[int], of_true: float = 0.99) -> np.ndarray:
    """[12, 3] for four tracks of each genre: `of_true` on the true genre, or on the next one."""
    true = np.repeat(np.arange(GENRES), 4)
    predicted = np.where(np.array(right) == 1, true, (true + 1) % GENRES)
    probs = np.full((12, GENRES), (1 - of_true) / 2)
    probs[np.arange(12), predicted] = of_true
    return probs


THREE_OF_FOUR = [1, 1, 1, 0] * GENRES


def test_one_candidate_is_calibrated_and_has_all_the_weight(made: Path, tmp_path: Path) -> None:
    built = build_ensemble([_held(made, [_sure(THREE_OF_FOUR)])], tmp_path / "e")
    (member,) = built.info.members
    assert (member.name, member.weight) == ("gru-0000", 1.0)
    # towards the 75 % that are right (odds of 6 instead of 198), as far as 12 tracks allow
    furthest = np.log(0.99 / 0.005) / np.log(0.75 / 0.125)
    total = member.temperature * built.info.temperature
    assert 1.5 < member.temperature < total < furthest
    odds = 198 ** (1 / total)
    sure, other = odds / (odds + 2), 1 / (odds + 2)
    held_out = built.info.held_out
    assert held_out.track_accuracy == 0.75
    assert held_out.chunk_accuracy == 0.75
    assert (held_out.tracks, held_out.chunks) == (12, 36)
    assert held_out.log_loss == pytest.approx(-(0.75 * np.log(sure) + 0.25 * np.log(other)))
    assert held_out.calibration_error == pytest.approx(sure - 0.75)
    assert held_out.confusion_matrix == [[3, 1, 0], [0, 3, 1], [1, 0, 3]]
    assert built.info.test is None
    assert load_ensemble(tmp_path / "e").info.members == built.info.members


def test_two_that_complement_each_other_share_the_weight(made: Path, tmp_path: Path) -> None:
    first, second = (_sure([1] * 12, 0.9) for _ in range(2))
    first[:6], second[6:] = 1 / 3, 1 / 3
    built = build_ensemble([_held(made, [first, second])], tmp_path / "e")
    weights = {member.name: member.weight for member in built.info.members}
    assert weights == {"gru-0000": 0.5, "gru-0001": 0.5}
    # what is sure is always right, but twelve tracks are too few to make it surer
    assert [member.temperature for member in built.info.members] == pytest.approx([1.0, 1.0], 1e-4)
    assert built.info.temperature == pytest.approx(1.0, 1e-4)
    true_genre = (0.9 + 1 / 3) / 2
    for model in ("gru", "ensemble"):
        log_loss = built.info.models[model].held_out.log_loss
        assert log_loss == pytest.approx(-np.log(true_genre), abs=1e-3)
    assert built.info.models["ensemble"].seconds == 10.0


def test_equal_candidates_tie_to_the_better_trial(made: Path, tmp_path: Path) -> None:
    built = build_ensemble([_held(made, [_sure(THREE_OF_FOUR)] * 2)], tmp_path / "e")
    assert [member.name for member in built.info.members] == ["gru-0000"]
    assert built.info.candidates == ("gru-0000", "gru-0001")


def test_each_family_is_selected_alone_as_well(made: Path, tmp_path: Path) -> None:
    best, good, cnn = ([1] * 11 + [0], [1, 1, 0, 0] * 3, [1, 1, 1, 0] * 3)
    built = build_ensemble([_held(made, [_sure(good), _sure(best), _sure(cnn)])], tmp_path / "e")
    assert list(built.info.models) == ["ensemble", "gru", "cnn"]
    assert {m.name for m in built.members["cnn"]} == {"gru-0002"}
    assert max(built.members["gru"], key=lambda member: member.weight).name == "gru-0001"
    accuracy = {name: model.held_out.track_accuracy for name, model in built.info.models.items()}
    assert accuracy["cnn"] == 0.75
    assert accuracy["gru"] >= 11 / 12
    # of the families alone only their members are calibrated
    (alone,) = (one for one in built.predictions if one.model == "cnn")
    (member,) = built.members["cnn"]
    assert alone.probs == pytest.approx(apply_temperature(_sure(cnn), member.temperature))


def test_each_fold_of_a_configuration_has_an_equal_share_of_its_weight(
    made: Path, tmp_path: Path
) -> None:
    built = build_ensemble([_held(made, [_sure(THREE_OF_FOUR)], models=3)], tmp_path / "e")
    names = [f"gru-0000-fold{fold}" for fold in (1, 2, 3)]
    assert [member.name for member in built.info.members] == names
    assert [member.weight for member in built.info.members] == pytest.approx([1 / 3] * 3)
    assert len({member.temperature for member in built.info.members}) == 1
    assert sorted(path.name for path in (tmp_path / "e/members").iterdir()) == names
    network = load_checkpoint(made / "gru-0000").classifier
    assert built.info.models["gru"].parameters == 3 * count_parameters(network)
    assert built.info.models["gru"].seconds == 5.0  # of all folds together


def test_predictions_have_the_tracks_they_are_of(made: Path, tmp_path: Path) -> None:
    built = build_ensemble([_held(made, [_sure(THREE_OF_FOUR)])], tmp_path / "e")
    assert [(one.model, one.part) for one in built.predictions] == [
        ("ensemble", VALID),
        ("gru", VALID),
    ]
    first = built.predictions[0]
    assert first.track_id[[0, 4, 8]].tolist() == ["blues.8", "disco.8", "rock.8"]
    assert first.group.tolist() == first.track_id.tolist()
    assert first.true.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (first.predicted == first.true).tolist() == [digit == 1 for digit in THREE_OF_FOUR]


# --- from checkpoints and a dataset ---


def test_candidates_with_different_features_are_one_ensemble(made: Path, tmp_path: Path) -> None:
    held = build.validation(made / "dataset", _candidates(made, *ALL), top_k=5)
    assert held.part == VALID
    valid = load_chunks(made / "dataset", ("valid",))
    for candidate, probs in zip(held.candidates, held.probs, strict=True):
        classifier = load_checkpoint(candidate.models[0]).classifier
        (expected,) = member_probs([classifier], valid.features)
        assert probs == pytest.approx(expected, abs=1e-9)
    built = build_ensemble([held], tmp_path / "e")
    ensemble = load_ensemble(tmp_path / "e")
    tracks, _ = predicted(ensemble, valid)
    assert built.predictions[0].probs == pytest.approx(tracks)


def test_only_the_best_candidates_are_considered(made: Path) -> None:
    candidates = _candidates(made, *ALL)[::-1]
    held = build.validation(made / "dataset", candidates, top_k=2)
    assert [candidate.name for candidate in held.candidates] == ["gru-0000", "gru-0001"]


def test_a_tie_of_scores_goes_to_the_lower_loss(made: Path) -> None:
    first, second = _candidates(made, *ALL[:2])
    tied = replace(second, score=Score(first.score.value, first.score.tie + 0.1))
    held = build.validation(made / "dataset", [first, tied], top_k=1)
    assert [candidate.name for candidate in held.candidates] == ["gru-0001"]


def test_the_test_part_is_predicted_once_by_each_model(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = build.validation(made / "dataset", _candidates(made, *ALL), 5)
    built = build_ensemble([held], tmp_path / "e")
    calls: Counter[str] = Counter()
    probs = Classifier.probs

    def counted(self: Classifier, *args: Any) -> torch.Tensor:
        calls["+".join(self.names)] += 1
        return probs(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "probs", counted)
        info, table = build.test_ensemble(built, seed=7)
    used = {m.name for own in built.members.values() for m in own}
    assert calls.total() == len(calls) == len(used) >= 2
    assert (table.seed, table.genres, table.fold) == (7, info.genres, "")

    test = load_chunks(made / "dataset", ("test",))
    tracks, by_chunk = predicted(load_ensemble(tmp_path / "e"), test)
    found = table.of("ensemble", TEST)
    assert found is not None
    assert found.probs == pytest.approx(tracks)
    assert found.true.tolist() == test.track_genre.tolist()
    assert found.track_id.tolist() == [track.track_id for track in test.tracks]
    assert info.test
    assert info.test.track_accuracy == np.mean(tracks.argmax(1) == test.track_genre)
    assert info.test.chunk_accuracy == np.mean(by_chunk.argmax(1) == test.genre)
    assert read_ensemble_info(tmp_path / "e", "") == info
    for name in ("ensemble", "gru", "discriminant"):
        assert table.of(name, VALID) is not None
        assert info.models[name].test is not None
        assert info.models[name].held_out == built.info.models[name].held_out

    (member,) = built.members["discriminant"]
    classifier = load_checkpoint(made / "discriminant-0002").classifier
    (alone,) = member_probs([classifier], test.features)
    expected = apply_temperature(track_probs(alone, test.track)[1], member.temperature)
    of_family = table.of("discriminant", TEST)
    assert of_family is not None
    assert of_family.probs == pytest.approx(expected)


def test_without_a_test_part_there_are_no_test_metrics(tmp_path: Path) -> None:
    chunks = make_chunks()
    write_dataset(tmp_path / "dataset", chunks)
    trained(tmp_path / "gru-0000", "gru", chunks)
    held = build.validation(tmp_path / "dataset", _candidates(tmp_path, "gru-0000"), 5)
    info, table = build.test_ensemble(build_ensemble([held], tmp_path / "e"), seed=0)
    assert info.test is None
    assert {one.part for one in table.predictions} == {VALID}


def test_half_of_the_size_is_what_is_tested(made: Path, tmp_path: Path) -> None:
    held = build.validation(made / "dataset", _candidates(made, "gru-0000"), 5)
    built = build_ensemble([held], tmp_path / "e", half=True)
    _, table = build.test_ensemble(built, seed=0)
    test = load_chunks(made / "dataset", ("test",))
    tracks, _ = predicted(load_ensemble(tmp_path / "e"), test)
    found = table.of("ensemble", TEST)
    assert found is not None
    assert found.probs == pytest.approx(tracks, abs=1e-12)


# --- of several datasets ---


def _longer_chunks(chunks: Chunks, *left_out: str) -> Chunks:
    """Other chunks of the same tracks, two of each, without some of them."""
    features = replace(chunks.info.features, chunk_seconds=5.0)
    names = [chunks.tracks[i].track_id for i in chunks.track]
    rows = [i for i, name in enumerate(names) if i % 3 < 2 and name not in left_out]
    return replace(
        chunks,
        info=replace(chunks.info, features=features),
        track=chunks.track[rows],
        split=chunks.split[rows],
        features={name: x[rows] * 0.9 for name, x in chunks.features.items()},
    )


def _held_with_other(made: Path, folder: Path) -> list[HeldOut]:
    """A candidate on the dataset of `made`, and one on FOLDER/other that is trained here."""
    model, other = folder / "cnn-0000", folder / "other"
    parts = load_chunks(made / "dataset", ("train", "valid"))
    info = replace(_longer_chunks(parts).info, split_id=read_info(other).split_id)
    trained(model, "cnn", replace(_longer_chunks(parts), info=info), features="log_mel")
    candidate = Candidate("cnn-0000", "cnn", (model,), Score(0.5, -1.0))
    return [
        build.validation(other, [candidate], 5),
        build.validation(made / "dataset", _candidates(made, "gru-0000"), 5),
    ]


def test_searches_on_other_chunks_of_the_same_tracks_are_one_ensemble(
    made: Path, tmp_path: Path
) -> None:
    chunks = _with_test_part(chunks_of_three(12))
    left_out = next(track.track_id for track in chunks.tracks if track.split == "test")
    write_dataset(tmp_path / "other", _longer_chunks(chunks, left_out))
    built = build_ensemble(_held_with_other(made, tmp_path), tmp_path / "e")
    info, table = build.test_ensemble(built, seed=0)
    assert built.datasets == (made / "dataset", tmp_path / "other")  # shorter chunks first
    expected = {}
    for name, dataset, checkpoint in (
        ("gru", built.datasets[0], made / "gru-0000"),
        ("cnn", built.datasets[1], tmp_path / "cnn-0000"),
    ):
        part = load_chunks(dataset, ("test",))
        (probs,) = member_probs([load_checkpoint(checkpoint).classifier], part.features)
        (member,) = built.members[name]
        calibrated = apply_temperature(track_probs(probs, part.track)[1], member.temperature)
        ids = [part.tracks[i].track_id for i in np.unique(part.track)]
        expected[name] = dict(zip(ids, calibrated, strict=True))
    assert set(expected["gru"]) - set(expected["cnn"]) == {left_out}
    for name, by_id in expected.items():
        found = table.of(name, TEST)
        assert found is not None
        assert set(found.track_id) == set(expected["cnn"])  # those that both have
        assert found.probs == pytest.approx(np.stack([by_id[one] for one in found.track_id]))
    mixed = table.of("ensemble", TEST)
    assert mixed is not None
    mean = sum(
        member.weight
        * np.stack([expected[member.name.partition("-")[0]][one] for one in mixed.track_id])
        for member in info.members
    )
    assert mixed.probs == pytest.approx(apply_temperature(np.asarray(mean), info.temperature))
    assert info.models["gru"].test is not None
    assert info.models["gru"].test.chunks == 3 * len(mixed.track_id)
    assert info.models["cnn"].test is not None
    assert info.models["cnn"].test.chunks == 2 * len(mixed.track_id)
    assert len(load_ensemble(tmp_path / "e").inputs) == len(info.members)


@pytest.mark.parametrize("what", ["track_id", "group"])
def test_what_another_dataset_is_trained_on_is_not_tested(
    what: str, made: Path, tmp_path: Path
) -> None:
    """Neither the track itself, nor one of the same artist."""
    chunks = _with_test_part(chunks_of_three(12))
    wrong = next(track for track in chunks.tracks if track.split == "test")
    tracks = list(chunks.tracks)
    at = next(i for i, t in enumerate(tracks) if t.split == "train" and t.genre == wrong.genre)
    tracks[at] = replace(tracks[at], **{what: getattr(wrong, what)})
    info = replace(chunks.info, split_id="fedcba9876543210")
    write_dataset(tmp_path / "other", _longer_chunks(replace(chunks, tracks=tracks, info=info)))
    held = _held_with_other(made, tmp_path)
    with pytest.raises(RequestError, match="1 tracks that .* tests or validates .* given"):
        build_ensemble(held, tmp_path / "e")


def test_datasets_without_common_tracks_make_no_ensemble(made: Path, tmp_path: Path) -> None:
    chunks = _with_test_part(chunks_of_three(12))
    blues = [track.track_id for track in chunks.tracks if track.genre == "blues"]
    write_dataset(tmp_path / "other", _longer_chunks(chunks, *blues))
    held = _held_with_other(made, tmp_path)
    with pytest.raises(RequestError, match="in common, of 2 of 3 genres: .*track_id"):
        build_ensemble(held, tmp_path / "e")


# --- of refitted configurations ---


def test_out_of_fold_predictions_are_those_of_the_folds(made: Path, tmp_path: Path) -> None:
    chunks = open_chunks(made / "dataset", ("train", "valid"))
    fold_of = np.arange(len(chunks.tracks)) % 2
    params = full_params("gru", SMALL | {"features": "log_mel"})
    other = full_params("discriminant", {"features": "chroma"})
    for name, family, own in (
        ("gru-0000", "gru", params),
        ("discriminant-0001", "discriminant", other),
    ):
        plan = RefitPlan(family, own, epochs=1, folds=2, score=Score(0.5, -1.0))
        plan.write(tmp_path / "refit" / name)
        for fold in range(2):
            fit_fold(tmp_path / "refit" / name, fold, plan, chunks, fold_of, torch.device("cpu"))
    refitted = read_refitted(tmp_path / "refit")
    held = build.out_of_fold(made / "dataset", refitted)
    assert held.part == OUT_OF_FOLD
    assert [candidate.name for candidate in held.candidates] == [one.name for one in refitted]
    assert held.chunks.track.tolist() == chunks.track.tolist()
    for candidate, probs in zip(held.candidates, held.probs, strict=True):
        for fold, folder in enumerate(candidate.models):
            rows = np.flatnonzero(fold_of[chunks.track] == fold)
            classifier = load_checkpoint(folder).classifier
            assert isinstance(chunks, Chunks)
            features = {name: x[rows] for name, x in chunks.features.items()}
            assert probs[rows] == pytest.approx(member_probs([classifier], features)[0], abs=1e-6)
    built = build_ensemble([held], tmp_path / "e")
    info, table = build.test_ensemble(built, seed=0)
    assert info.selected_on == OUT_OF_FOLD
    assert info.held_out.tracks == len(chunks.tracks)
    assert table.of("ensemble", OUT_OF_FOLD) is not None
    test = load_chunks(made / "dataset", ("test",))
    tracks, _ = predicted(load_ensemble(tmp_path / "e"), test)
    found = table.of("ensemble", TEST)
    assert found is not None
    assert found.probs == pytest.approx(tracks)
    assert not list((tmp_path / "e").rglob("held.npz"))


def test_what_was_made_on_another_split_is_refused(made: Path, tmp_path: Path) -> None:
    """As other tracks may be tested there: in selection, in refits and in the test."""
    dataset = tmp_path / "dataset"
    shutil.copytree(made / "dataset", dataset)
    held = build.validation(dataset, _candidates(made, "gru-0000"), 1)
    built = build_ensemble([held], tmp_path / "e")
    plan = RefitPlan("gru", full_params("gru", SMALL), epochs=1, folds=2, score=Score(0.5, -1.0))
    refitted = [Refitted("gru-0000", plan, (tmp_path / "fold-1", tmp_path / "fold-2"))]
    replace(read_info(dataset), split_id="0123456789abcdef").write(dataset)
    for refused in (
        lambda: build.validation(dataset, _candidates(made, "gru-0000"), 1),
        lambda: build.out_of_fold(dataset, refitted),
        lambda: build.test_ensemble(built, seed=0),
    ):
        with pytest.raises(
            RequestError, match="older version, but .* holds 0123456789abcdef, where other tracks"
        ):
            refused()


def test_without_a_complete_refit_there_is_no_ensemble(made: Path, tmp_path: Path) -> None:
    plan = RefitPlan("gru", full_params("gru", SMALL), epochs=1, folds=2, score=Score(0.5, -1.0))
    plan.write(tmp_path / "gru-0000")
    with pytest.raises(
        RequestError, match="at least one that is refitted on all folds, .*--resume"
    ):
        build.out_of_fold(made / "dataset", read_refitted(tmp_path))


# --- candidates, and what is refused ---


def _record(number: int, accuracy: float, **changed: Any) -> TrialRecord:
    best = {"val_track_accuracy": accuracy, "val_log_loss": 2 - accuracy, "val_loss": 1.0}
    record = TrialRecord(f"gru-{number:04d}", "gru", {}, best_epoch=1, curve=[best], seconds=3.0)
    return replace(record, **({"status": "completed"} | changed))


def test_candidates_are_the_usable_trials_that_kept_their_weights(tmp_path: Path) -> None:
    records = [
        _record(3, 0.5, metric="log_loss"),
        _record(0, 0.5),
        _record(1, 0.5, status=FAILED),
        _record(2, 0.5),
        _record(4, 0.5, best_epoch=0, curve=[]),
    ]
    for number in (0, 1, 3, 4):  # 2 did not keep its weights
        folder = tmp_path / "trials" / f"gru-{number:04d}" / "checkpoint"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    first, second = candidates_of(tmp_path, records)
    assert (first.name, first.score) == ("gru-0000", Score(0.5, -1.0))
    assert (second.name, second.score) == ("gru-0003", Score(-1.5, -1.0))
    assert first.models == (tmp_path / "trials" / "gru-0000" / "checkpoint",)
    assert first.seconds == 3.0


def test_without_candidates_there_is_no_ensemble(made: Path) -> None:
    with pytest.raises(RequestError, match="at least one trial that kept its weights, but there"):
        build.validation(made / "dataset", [], 5)


@pytest.mark.parametrize("other", ["genres", "features"])
def test_candidates_of_another_dataset_are_refused(made: Path, tmp_path: Path, other: str) -> None:
    chunks = make_chunks() if other == "features" else chunks_of_three()
    info = replace(chunks.info, genres=("a", "b", "rock"))
    if other == "genres":
        tracks = [replace(track, genre="rock") for track in chunks.tracks]
        chunks = replace(chunks, info=info, tracks=tracks)
    trained(tmp_path / "gru-0000", "gru", chunks)
    with pytest.raises(
        RequestError, match=r"trained on other genres or features.*\(candidate gru-0000\)"
    ):
        build.validation(made / "dataset", _candidates(tmp_path, "gru-0000"), 5)


def test_a_folder_with_other_things_is_refused_before_anything_is_computed(
    made: Path, tmp_path: Path
) -> None:
    (tmp_path / "cat.jpg").touch()
    with pytest.raises(RequestError, match="holds other things: give a new folder"):
        build_ensemble([_held(made, [_sure(THREE_OF_FOUR)])], tmp_path)
