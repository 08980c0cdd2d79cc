"""The saved ensemble: whole, self-sufficient, and refused when it is anything else."""

import json
from pathlib import Path

import numpy as np
import pytest

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks
from mgc_ray.ensembling.artefact import load_ensemble, member_probs, save_ensemble
from mgc_ray.training.checkpoint import load_checkpoint, save_checkpoint
from mgc_ray.training.loop import train

PARAMS = {"blocks": 2, "channels": 4, "hidden": 8, "max_epochs": 1}


@pytest.fixture
def saved(tmp_path: Path, chunks: Chunks) -> Path:
    members = []
    for family, weight in (("gru", 0.75), ("cnn", 0.25)):
        folder = tmp_path / family
        epoch = next(train(family, PARAMS, chunks))
        save_checkpoint(folder, epoch, family, PARAMS, chunks.info)
        members.append((f"{family}-0000", folder, weight))
    first = load_checkpoint(tmp_path / "gru")
    save_ensemble(tmp_path / "ensemble", members, first, {"protocol": "given"})
    return tmp_path / "ensemble"


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "ensemble.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_probabilities_are_the_weighted_mean_of_the_members(
    saved: Path, tmp_path: Path, chunks: Chunks
) -> None:
    ensemble = load_ensemble(saved)
    x = chunks.spectrograms[:7]
    expected = sum(
        weight * member_probs(load_checkpoint(tmp_path / family), x)
        for family, weight in (("gru", 0.75), ("cnn", 0.25))
    )
    assert ensemble.chunk_probs(x) == pytest.approx(expected, abs=1e-7)
    assert ensemble.chunk_probs(x).sum(1) == pytest.approx(1)


def test_a_tracks_genres_come_most_probable_first(saved: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(16, 30)).astype(np.float32) - 30
    np.save(tmp_path / "track.npy", x)
    genres = load_ensemble(saved).predict(tmp_path / "track.npy")
    assert list(genres.values()) == sorted(genres.values(), reverse=True)
    assert set(genres) == {"blues", "disco", "rock"}
    assert sum(genres.values()) == pytest.approx(1)


def test_the_folder_is_all_that_is_needed(saved: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "model"
    moved.parent.mkdir()
    saved.rename(moved)
    for family in ("gru", "cnn"):
        for path in (tmp_path / family).iterdir():
            path.unlink()
    assert len(load_ensemble(moved).members) == 2


def test_it_takes_the_place_of_an_earlier_ensemble_but_of_nothing_else(
    saved: Path, tmp_path: Path
) -> None:
    first = load_checkpoint(tmp_path / "gru")
    members = [("only", tmp_path / "gru", 1.0)]
    save_ensemble(saved, members, first, {})
    assert [path.name for path in (saved / "members").iterdir()] == ["only"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").touch()
    with pytest.raises(RequestError, match="holds other things"):
        save_ensemble(other, members, first, {})
    assert (other / "cat.jpg").exists()


@pytest.mark.parametrize("name", ["../../gru", "/etc", "..", "", "a/b"])
def test_a_member_outside_of_the_folder_is_refused(saved: Path, name: str) -> None:
    _edit(saved, members=[{"name": name, "weight": 1.0}])
    with pytest.raises(RequestError, match="no folders of its own"):
        load_ensemble(saved)


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [float("nan"), 1.0]])
def test_weights_that_do_not_sum_to_1_are_refused(saved: Path, weights: list[float]) -> None:
    names = ["gru-0000", "cnn-0000"]
    _edit(saved, members=[{"name": n, "weight": w} for n, w in zip(names, weights, strict=True)])
    with pytest.raises(RequestError, match="must be above 0 and sum to 1"):
        load_ensemble(saved)


def test_members_of_different_genres_are_refused(saved: Path) -> None:
    path = saved / "members" / "cnn-0000" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"genres": ["a", "b", "c"]}))
    with pytest.raises(RequestError, match="same genres and features"):
        load_ensemble(saved)


def test_a_folder_without_an_ensemble_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match="no ensemble: ensemble.json is missing; name the folder"
    ):
        load_ensemble(tmp_path)


def test_half_the_size_gives_the_same_answers(saved: Path, tmp_path: Path, chunks: Chunks) -> None:
    first = load_checkpoint(tmp_path / "gru")
    members = [(f, tmp_path / f, w) for f, w in (("gru", 0.75), ("cnn", 0.25))]
    save_ensemble(tmp_path / "half", members, first, {"protocol": "given"}, half=True)

    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))

    assert size(tmp_path / "half") < 0.65 * size(saved)  # headers and statistics stay
    exact, small = (load_ensemble(tmp_path / name) for name in ("ensemble", "half"))
    x = chunks.spectrograms
    assert small.chunk_probs(x) == pytest.approx(exact.chunk_probs(x), abs=2e-3)


def test_the_temperature_makes_a_track_less_sure_and_changes_no_answer(
    saved: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "track.npy", np.random.default_rng(0).normal(size=(16, 30)) - 30)
    before = load_ensemble(saved).predict(tmp_path / "track.npy")
    _edit(saved, temperature=3.0)
    after = load_ensemble(saved).predict(tmp_path / "track.npy")
    assert list(after) == list(before)
    assert max(after.values()) < max(before.values())
