"""What is around every family's network: features in, standardisation, windows, shared work."""

import copy

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.config import TrainConfig
from mgc_ray.data.features import FeatureSet, musicnn
from mgc_ray.models import discriminant, family_module
from mgc_ray.models._classifier import Classifier, Shared, features_read, new_classifier
from mgc_ray.training.epoch import set_statistics
from tests.made_chunks import arrays, chunks_of_three, three_features
from tests.waits import on_meta, waits

CNN = {"blocks": 1, "channels": 2, "hidden": 4}
VGG = musicnn.Feature(model="MTT_vgg")


def _cnn(dataset: FeatureSet, **settings: object) -> Classifier:
    return new_classifier("cnn", CNN | settings, dataset, 3).eval()


def _random_batch(features: FeatureSet, size: int = 2) -> dict[str, torch.Tensor]:
    shapes = {name: (size, f.bands, f.frames) for name, f in features.columns.items()}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


# --- standardisation ---


def test_each_band_is_standardised_by_its_own_mean_and_deviation() -> None:
    model = _cnn(arrays(bands=2, frames=2))
    model.mean.copy_(torch.tensor([10.0, -5.0]))
    model.deviation.copy_(torch.tensor([2.0, 0.5]))
    x = torch.tensor([[[12, 8], [-5, -4]]], dtype=torch.int16)
    assert model.standardise({"array": x}).tolist() == [[[1.0, -1.0], [0.0, 2.0]]]


def test_band_statistics_are_those_of_each_feature_in_the_order_of_the_bands() -> None:
    chunks = chunks_of_three()
    model = _cnn(chunks.info.features)
    set_statistics(model, chunks.band_statistics)
    rows = chunks.rows("train")
    for name, start, end in (("log_mel", 0, 20), ("chroma", 20, 32), ("mfcc", 32, 52)):
        values = chunks.features[name][rows]
        assert model.mean[start:end].numpy() == pytest.approx(values.mean((0, 2)), abs=1e-3)
        assert model.deviation[start:end].numpy() == pytest.approx(values.std((0, 2)), rel=1e-3)
    batch = {name: torch.from_numpy(x[rows]) for name, x in chunks.features.items()}
    x = model.standardise(batch)
    # the interpolated frames of mfcc lie between others, so they vary less
    assert x[:, :32].std((0, 2)).numpy() == pytest.approx(1, abs=0.01)
    assert x.mean((0, 2)).numpy() == pytest.approx(0, abs=0.01)


# --- several features ---


def test_features_are_stacked_in_the_order_of_the_dataset() -> None:
    batch = _random_batch(three_features())
    stacked = _cnn(three_features()).standardise(batch)
    assert stacked.shape == (2, 20 + 12 + 20, 12)
    assert stacked[:, :20].equal(batch["log_mel"])
    assert stacked[:, 20:32].equal(batch["chroma"])
    reversed_batch = dict(reversed(batch.items()))
    assert _cnn(three_features()).standardise(reversed_batch).equal(stacked)


def test_a_feature_with_another_frame_rate_is_interpolated_to_the_first() -> None:
    batch = _random_batch(three_features(), size=1)
    batch["mfcc"][:] = torch.arange(6.0)
    stacked = _cnn(three_features()).standardise(batch)[0, 32:]
    # frame i of 12 lies at (i + 0.5) / 2 - 0.5 of 6; beyond the ends the end is repeated
    expected = [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5]
    assert stacked[0].tolist() == pytest.approx(expected)
    assert stacked.eq(stacked[:1]).all()


def test_alone_a_feature_keeps_its_own_frame_rate() -> None:
    model = _cnn(three_features(), features="mfcc")
    batch = _random_batch(three_features())
    assert model.frames == 6
    assert model.standardise(batch).equal(batch["mfcc"])


@pytest.mark.parametrize(
    ("given", "names", "pitched"),
    [
        ("all", ["log_mel", "chroma", "mfcc"], 20),
        ("chroma+log_mel", ["log_mel", "chroma"], 20),
        ("chroma", ["chroma"], 0),
        ("mfcc+chroma", ["chroma", "mfcc"], 0),
        ("log_mel", ["log_mel"], 20),
    ],
)
def test_the_setting_features_chooses_what_the_network_reads(
    given: str, names: list[str], pitched: int
) -> None:
    model = _cnn(three_features(), features=given)
    assert model.names == names
    assert len(model.mean) == sum(three_features().columns[name].bands for name in names)
    assert model.pitched_bands == pitched
    batch = _random_batch(three_features())
    logits = model(batch)
    changed = batch | {n: x + 1 for n, x in batch.items() if n not in names}
    assert model(changed).equal(logits)


@pytest.mark.parametrize("given", ["contrast", "log_mel+contrast", "chroma+chroma", ""])
def test_features_that_the_dataset_does_not_have_are_refused(given: str) -> None:
    with pytest.raises(
        RequestError,
        match=f"has log_mel, chroma, mfcc for family 'cnn', but features is '{given}'".replace(
            "+", r"\+"
        ),
    ):
        _cnn(three_features(), features=given)


def test_a_network_reads_only_the_groups_of_outputs_that_are_chosen() -> None:
    features = FeatureSet({"musicnn": musicnn.Feature(), "musicnn:MTT_vgg": VGG})
    model = new_classifier(
        "linear", {"features": "musicnn:MTT_vgg[tags,mean]+musicnn"}, features, 3
    )
    assert model.names == ["musicnn", "musicnn:MTT_vgg"]
    assert len(model.mean) == 1756 + 128 + 50
    values = np.arange(VGG.bands, dtype=np.float32)
    statistics = {
        "musicnn": (np.zeros(1756, np.float32), np.ones(1756, np.float32)),
        "musicnn:MTT_vgg": (values, values + 1),
    }
    set_statistics(model, statistics)
    on_device = {name: on_meta(2, f.bands, 1) for name, f in features.columns.items()}
    moved = copy.deepcopy(model).to("meta")
    with waits() as found:
        moved.inputs(on_device)
    assert found == []
    # in the order of the outputs: mean 128, max 128, penultimate 256, tags 50
    assert model.mean[1756:].tolist() == [*range(128), *range(512, 562)]
    assert model.deviation[-1] == 562
    batch = {"musicnn": torch.randn(2, 1756, 1), "musicnn:MTT_vgg": torch.randn(2, 562, 1)}
    logits = model(batch)
    other = batch["musicnn:MTT_vgg"].clone()
    other[:, 128:512] += 1
    assert model(batch | {"musicnn:MTT_vgg": other}).equal(logits)
    other[:, 0] += 1
    assert not model(batch | {"musicnn:MTT_vgg": other}).equal(logits)


@pytest.mark.parametrize(
    "given", ["musicnn[loud]", "musicnn[tags,tags]", "musicnn[]", "musicnn[tags"]
)
def test_groups_that_an_embedding_does_not_have_are_refused(given: str) -> None:
    features = FeatureSet({"musicnn": musicnn.Feature()})
    with pytest.raises(
        RequestError, match=r"features must (name groups of musicnn|be some of the)"
    ):
        new_classifier("linear", {"features": given}, features, 3)


def test_a_family_gets_only_the_kinds_of_features_that_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(family_module("cnn"), "READS", ("embedding",), raising=False)
    with pytest.raises(
        RequestError,
        match="family 'cnn' reads features of the kind embedding, but the dataset has log_mel 20 "
        "bands x 12 frames, .*: choose another family",
    ):
        features_read("cnn", TrainConfig(), three_features())


# --- prediction ---


def test_prediction_goes_over_a_chunk_in_overlapping_windows() -> None:
    features = arrays(bands=8, frames=10)
    model = _cnn(features, crop=0.4, overlap=0.5)
    x = torch.randn(2, 8, 10)
    assert model.length(10) == 4
    windows = [model({"array": x[:, :, i : i + 4]}).softmax(1) for i in (0, 2, 4, 6)]
    found = model.probs({"array": x})
    assert found.dtype == torch.float64
    assert torch.allclose(found.float(), torch.stack(windows).mean(0), atol=1e-6)
    whole = _cnn(features)
    assert torch.allclose(
        whole.probs({"array": x}).float(), whole({"array": x}).softmax(1), atol=1e-6
    )


class _Counted:
    """Counts the calls of `discriminant.Model.describe`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        describe = discriminant.Model.describe

        def counted(x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return describe(x)

        monkeypatch.setattr(discriminant.Model, "describe", staticmethod(counted))


def test_classifiers_with_equal_standardisation_share_their_descriptions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = arrays(bands=8, frames=40)
    models = [new_classifier("discriminant", {}, features, 3).eval() for _ in range(3)]
    models[2].mean.add_(1)
    batch = _random_batch(features)
    alone = [model.probs(batch) for model in models]
    counted, shared = _Counted(monkeypatch), Shared()
    together = [model.probs(batch, shared) for model in models]
    assert counted.calls == 2  # of the first two, and of the third, which is standardised otherwise
    assert all(a.equal(b) for a, b in zip(alone, together, strict=True))
    assert not alone[0].equal(alone[1])


def test_each_window_has_a_description_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    features = arrays(bands=8, frames=80)
    settings = {"crop": 0.5, "overlap": 0.0}
    models = [new_classifier("discriminant", settings, features, 3).eval() for _ in range(2)]
    batch = _random_batch(features)
    alone = [model.probs(batch) for model in models]
    counted, shared = _Counted(monkeypatch), Shared()
    together = [model.probs(batch, shared) for model in models]
    assert counted.calls == 2
    assert all(a.equal(b) for a, b in zip(alone, together, strict=True))


def test_the_standardisation_is_known_again_after_it_has_changed_in_training() -> None:
    model = _cnn(arrays())
    before = model.standardisation()
    assert _cnn(arrays()).standardisation() == before
    assert _cnn(arrays(frames=13)).standardisation() != before
    model.train().mean.add_(1)
    assert model.standardisation() != before
