"""Starting from weights: what is taken over, what learns, and how fast."""

from pathlib import Path

import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks
from mgc_ray.models import family_module, transfer
from mgc_ray.models._classifier import Classifier
from mgc_ray.training.checkpoint import load_checkpoint, save_checkpoint
from mgc_ray.training.initial import initial_params
from mgc_ray.training.loop import train
from tests.conftest import make_chunks
from tests.ensembling.made_ensembles import ensemble_of
from tests.made_chunks import arrays

SMALL = {
    "cnn": {"blocks": 2, "channels": 4, "hidden": 8},
    "gru": {"blocks": 2, "channels": 4, "hidden": 8},
    "lstm": {"blocks": 2, "channels": 4, "hidden": 8},
    "attention": {"blocks": 2, "channels": 4, "width": 16, "depth": 2},
}


def _checkpoint(folder: Path, family: str, chunks: Chunks) -> Path:
    params = SMALL[family] | {"batch_size": 8, "max_epochs": 2}
    epoch = next(train(family, params, chunks, autocast=False))
    save_checkpoint(folder, epoch, family, params, chunks.info)
    return folder


def _classifier(params: dict[str, object], genres: int = 3, bands: int = 16) -> Classifier:
    config = transfer.Config(**params)  # type: ignore[arg-type]
    classifier = Classifier("transfer", config, arrays(bands), genres)
    transfer.initialise(classifier, config)
    return classifier


@pytest.mark.parametrize("family", SMALL)
def test_all_but_the_last_layer_is_taken_over(family: str, tmp_path: Path, chunks: Chunks) -> None:
    folder = _checkpoint(tmp_path, family, chunks)
    source = load_checkpoint(folder).classifier.network.state_dict()
    found = _classifier(initial_params(folder), genres=5).network.backbone.state_dict()
    assert found.keys() == source.keys()
    different = [name for name in source if not torch.equal(source[name], found[name])]
    assert len(different) == 2  # weight and bias of the last layer
    assert all(name.startswith("head.") for name in different)


def test_weights_pass_through_a_second_transfer(tmp_path: Path, chunks: Chunks) -> None:
    first = _checkpoint(tmp_path / "first", "gru", chunks)
    params = initial_params(first) | {"max_epochs": 2, "batch_size": 8}
    epoch = next(train("transfer", params, chunks, autocast=False))
    save_checkpoint(tmp_path / "second", epoch, "transfer", params, chunks.info)
    again = initial_params(tmp_path / "second")
    assert again["backbone"] == "gru"
    assert again["backbone_config"] == initial_params(first)["backbone_config"]
    loaded = load_checkpoint(tmp_path / "second")
    weights = _classifier(again).network.backbone.recurrent.state_dict()
    expected = loaded.classifier.network.backbone.recurrent.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert [one.task for one in loaded.config.trained_on] == ["genres", "genres"]


def test_a_loaded_member_needs_its_first_weights_no_more(tmp_path: Path, chunks: Chunks) -> None:
    first = _checkpoint(tmp_path / "first", "gru", chunks)
    params = initial_params(first) | {"max_epochs": 1, "batch_size": 8}
    epoch = next(train("transfer", params, chunks, autocast=False))
    save_checkpoint(tmp_path / "second", epoch, "transfer", params, chunks.info)
    (first / "model.safetensors").unlink()
    assert load_checkpoint(tmp_path / "second").config.family == "transfer"


@pytest.mark.parametrize("family", SMALL)
def test_each_parameter_has_one_rate_which_falls_towards_the_input(
    family: str, tmp_path: Path, chunks: Chunks
) -> None:
    params = initial_params(_checkpoint(tmp_path, family, chunks)) | {"layer_decay": 0.5}
    config = transfer.Config(**params)
    classifier = _classifier(params)
    shares = transfer.lr_shares(classifier, config)
    ids = [id(p) for part, _ in shares for p in part]
    assert sorted(ids) == sorted(id(p) for p in classifier.parameters())
    assert [share for _, share in shares] == [0.5**n for n in range(len(shares) - 1, -1, -1)]
    head = {id(p) for p in classifier.network.head.parameters()}
    assert {id(p) for p in shares[-1][0]} == head


def test_frozen_layers_stay_as_they_were_and_the_others_learn(
    tmp_path: Path, chunks: Chunks
) -> None:
    folder = _checkpoint(tmp_path, "gru", chunks)
    before = load_checkpoint(folder).classifier.network.state_dict()
    params = initial_params(folder) | {"batch_size": 8, "max_epochs": 4, "patience": 9}
    settings = params | {"freeze_epochs": 2, "frozen_layers": 1}
    for epoch in train("transfer", settings, chunks, autocast=False):
        now = epoch.classifier.network.backbone.state_dict()
        learnt = {
            name.rsplit(".", 2)[0] for name in now if not torch.equal(now[name], before[name])
        }
        if epoch.number <= 2:
            assert learnt == {"head"}
    changed = {name for name in now if not torch.equal(now[name], before[name])}
    assert not any(name.startswith("convolutions.0.") for name in changed)  # with its batch norm
    assert any(name.startswith("convolutions.1.") for name in changed)
    assert any(name.startswith("recurrent.") for name in changed)


def test_weights_for_other_bands_are_refused(tmp_path: Path, chunks: Chunks) -> None:
    params = initial_params(_checkpoint(tmp_path, "cnn", chunks))
    with pytest.raises(RequestError, match=r"must fit.*bands must be the same"):
        _classifier(params, bands=40)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="give a checkpoint, an ensemble, or what"):
        initial_params(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_weights_that_cannot_be_read_are_refused_before_training(
    damage: str, tmp_path: Path, chunks: Chunks
) -> None:
    weights = _checkpoint(tmp_path, "cnn", chunks) / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if damage == "cut":
        weights.write_bytes(content[:-10])
    with pytest.raises(RequestError, match=f"the weights in {tmp_path} cannot be read .*: start"):
        initial_params(tmp_path)


def test_an_ensemble_gives_its_member_of_the_highest_weight(tmp_path: Path, chunks: Chunks) -> None:
    members = [(_checkpoint(tmp_path / f, f, chunks), w) for f, w in (("gru", 0.4), ("cnn", 0.6))]
    ensemble_of(tmp_path / "ensemble", members, chunks)
    params = initial_params(tmp_path / "ensemble")
    assert params["backbone"] == "cnn"
    assert params["init_from"] == str(tmp_path / "ensemble" / "members" / "cnn")


def test_transfer_learns_faster_than_random_weights(tmp_path: Path) -> None:
    many, few = make_chunks(12, seed=0), make_chunks(6, noise=2.0, seed=1)
    params = SMALL["gru"] | {"batch_size": 8, "max_epochs": 12, "lr": 3e-3}
    *_, epoch = train("gru", params, many, autocast=False)
    save_checkpoint(tmp_path, epoch, "gru", params, many.info)
    shared = {"batch_size": 8, "max_epochs": 2, "lr": 1e-3, "mixup": 0.0}
    fresh = list(train("gru", SMALL["gru"] | shared, few, autocast=False))[-1]
    tuned = list(train("transfer", initial_params(tmp_path) | shared, few, autocast=False))[-1]
    assert tuned.metrics["val_loss"] < fresh.metrics["val_loss"]
    assert family_module("transfer") is transfer
