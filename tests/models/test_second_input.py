"""An embedding as the second input of a network on spectrograms, from its values to its weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks
from mgc_ray.models import families, second_kinds
from mgc_ray.models._classifier import Classifier, new_classifier
from mgc_ray.models._layers import LateFusion
from mgc_ray.settings import Params
from mgc_ray.training.checkpoint import load_checkpoint, save_checkpoint
from mgc_ray.training.epoch import Training, set_statistics
from mgc_ray.training.initial import initial_params
from mgc_ray.training.loop import train
from mgc_ray.training.pretraining import pretrain
from tests.made_chunks import chunks_of_two_kinds, two_kinds

EMBEDDING = "musicnn:MTT_vgg"
SMALL: dict[str, Params] = {
    "cnn": {"blocks": 1, "channels": 4, "hidden": 8},
    "gru": {"blocks": 1, "channels": 4, "hidden": 8},
    "lstm": {"blocks": 1, "channels": 4, "hidden": 8},
    "attention": {"blocks": 1, "channels": 4, "width": 16, "depth": 1},
}


def _classifier(family: str = "cnn", genres: int = 3, **settings: object) -> Classifier:
    return new_classifier(family, SMALL[family] | settings, two_kinds(), genres).eval()


def _batch(size: int = 2) -> dict[str, torch.Tensor]:
    columns = two_kinds().columns.items()
    return {name: torch.randn(size, f.bands, f.frames) for name, f in columns}


def test_the_networks_on_spectrograms_take_one() -> None:
    assert {family for family in families() if second_kinds(family)} == set(SMALL)


# --- the network ---


def test_it_is_the_standardised_mean_over_the_patches_and_comes_last() -> None:
    chunks = chunks_of_two_kinds()
    model = _classifier()
    assert model.names == ["mfcc", "log_mel", EMBEDDING]
    set_statistics(model, chunks.band_statistics)
    batch = {name: torch.from_numpy(values) for name, values in chunks.features.items()}
    batch[EMBEDDING][0, 7] = 1000
    x, values = model.inputs(batch)
    assert x.equal(model.standardise(batch))
    assert x.shape == (len(chunks.track), 20 + 20, 12)
    mean, deviation = (torch.from_numpy(part) for part in chunks.band_statistics[EMBEDDING])
    expected = (batch[EMBEDDING].mean(2) - mean) / deviation
    assert torch.allclose(values[1:], expected[1:], atol=1e-5)
    assert values[0, 7] == 5  # an outlier does not decide alone


def test_a_network_takes_as_much_of_it_as_is_chosen() -> None:
    batch = _batch()
    other = batch | {EMBEDDING: batch[EMBEDDING].clone()}
    other[EMBEDDING][:, :128] += 1  # its group `mean`
    for features, sees in (
        ("all", True),
        (f"log_mel+{EMBEDDING}", True),
        (f"{EMBEDDING}[mean,tags]+log_mel", True),
        (f"log_mel+{EMBEDDING}[max,tags]", False),
        ("log_mel+mfcc", False),
    ):
        model = _classifier(features=features)
        assert isinstance(model.network, LateFusion) == (EMBEDDING in features or features == "all")
        assert model(batch).equal(model(other)) != sees, features
        assert not model(batch).equal(model(batch | {"log_mel": batch["log_mel"] + 1}))


def test_alone_it_is_refused_and_so_is_a_dataset_without_spectrograms() -> None:
    with pytest.raises(
        RequestError,
        match=f"features must have one of mfcc, log_mel, .* beside it, but it is '{EMBEDDING}'",
    ):
        _classifier(features=EMBEDDING)
    with pytest.raises(RequestError, match="family 'cnn' reads features of the kind spectrogram"):
        new_classifier("cnn", SMALL["cnn"], two_kinds().only([EMBEDDING]), 3)


@pytest.mark.parametrize("family", SMALL)
def test_only_the_last_layer_depends_on_the_genres(family: str) -> None:
    torch.manual_seed(0)
    few = _classifier(family).network
    many = _classifier(family, genres=5).network
    other = [n for n, p in few.named_parameters() if p.shape != many.get_parameter(n).shape]
    assert other == ["head.weight", "head.bias"]


def test_each_window_of_a_chunk_is_seen_beside_all_of_it() -> None:
    model, batch = _classifier(crop=0.5, overlap=0.0), _batch()
    x, values = model.inputs(batch)
    halves = [model.network(part, values).softmax(1) for part in (x[:, :, :6], x[:, :, 6:])]
    assert torch.allclose(model.probs(batch).float(), (halves[0] + halves[1]) / 2, atol=1e-6)


# --- training ---


def _training(chunks: Chunks, **settings: object) -> Training:
    return Training("cnn", SMALL["cnn"] | settings, chunks, "cpu", None)


@pytest.mark.parametrize("family", SMALL)
def test_what_only_the_embedding_tells_is_learnt_and_kept(family: str, tmp_path: Path) -> None:
    chunks = chunks_of_two_kinds(12)
    params = SMALL[family] | {"max_epochs": 10, "lr": 5e-3, "batch_size": 16, "crop": 0.5}
    params |= {"features": f"log_mel+{EMBEDDING}[tags]"}
    *_, last = train(family, params, chunks, autocast=False)
    assert last.metrics["val_chunk_accuracy"] > 0.9
    alone = params | {"features": "log_mel"}
    *_, without = train(family, alone, chunks, autocast=False)
    assert without.metrics["val_chunk_accuracy"] < 0.6
    save_checkpoint(tmp_path, last, family, params, chunks.info)
    loaded = load_checkpoint(tmp_path)
    assert [one.task for one in loaded.config.trained_on] == ["tags of MagnaTagATune", "genres"]
    batch = {name: torch.from_numpy(values) for name, values in chunks.features.items()}
    assert loaded.classifier.probs(batch).equal(last.classifier.eval().probs(batch))


def test_augmentation_leaves_it_as_it_is_and_mixup_mixes_both() -> None:
    chunks = chunks_of_two_kinds()
    rows = chunks.rows("train")
    settings = {"freq_mask": 20, "time_mask": 1.0, "gain": 3.0, "pitch_shift": 3.0, "mixup": 0.0}
    plain = _training(chunks, **settings)
    _, expected = plain.classifier.inputs(
        {name: torch.from_numpy(values[rows]) for name, values in chunks.features.items()}
    )
    found = torch.cat([second for (_, second), _ in plain.batches(rows)])
    assert found.sort(0).values.equal(expected.sort(0).values)  # the same values in another order

    # a chunk's genre is written into its embedding, so a blended one shows the shares
    features = dict(chunks.features)
    features[EMBEDDING] = np.zeros_like(features[EMBEDDING])
    features[EMBEDDING][np.arange(len(chunks.genre)), chunks.genre] = 1
    mixed = _training(Chunks(chunks.info, chunks.track, chunks.split, chunks.tracks, features))
    set_statistics(
        mixed.classifier,
        {name: (0 * mean, 0 * mean + 1) for name, (mean, _) in chunks.band_statistics.items()},
    )
    for (_, second), target in mixed.batches(rows):
        assert torch.allclose(second[:, :3], target, atol=1e-6)
        assert target.max(1).values.min() < 1


def test_training_continues_as_if_it_had_not_been_interrupted() -> None:
    chunks = chunks_of_two_kinds()
    params = SMALL["gru"] | {"max_epochs": 3, "averaging": 0.9}
    first, _, last = train("gru", params, chunks, autocast=False)
    assert first.state
    started = train("gru", params, chunks, autocast=False)
    state = next(started).state
    assert state
    *_, again = train("gru", params, chunks, autocast=False, state=state(None))
    assert again.metrics["train_loss"] == last.metrics["train_loss"]


# --- starting from weights ---


def test_pretraining_learns_from_the_spectrograms_alone() -> None:
    epoch = next(pretrain("gru", SMALL["gru"] | {"crop": 0.5}, chunks_of_two_kinds()))
    assert epoch.classifier.names == ["mfcc", "log_mel"]


def test_transfer_starts_from_the_part_that_hears_the_spectrogram(tmp_path: Path) -> None:
    chunks = chunks_of_two_kinds()
    epoch = next(train("cnn", SMALL["cnn"], chunks, autocast=False))
    save_checkpoint(tmp_path, epoch, "cnn", SMALL["cnn"], chunks.info)
    params = initial_params(tmp_path) | {"freeze_epochs": 1}
    started = next(train("transfer", params, chunks, autocast=False)).classifier
    assert started.names == ["mfcc", "log_mel"]
    before = epoch.classifier.network.backbone.state_dict()
    after = started.network.backbone.state_dict()
    kept = [name for name in before if name.startswith("convolutions.")]
    assert kept
    assert all(before[name].equal(after[name]) for name in kept)
