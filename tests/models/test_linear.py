"""The solved weights are those of scikit-learn, in whatever coordinates they were solved for."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mgc_ray.models.linear import Config, Model, fit

BANDS, PATCHES, GENRES, CHUNKS = 12, 5, 3, 240


@pytest.fixture
def music() -> tuple[Tensor, np.ndarray]:
    """x [CHUNKS, BANDS, PATCHES] of different scales, and unevenly frequent genres."""
    random = np.random.default_rng(0)
    genre = random.choice(GENRES, CHUNKS, p=[0.6, 0.3, 0.1])
    x = random.normal(size=(CHUNKS, BANDS, PATCHES))
    x[:, :GENRES] += 0.8 * np.eye(GENRES)[genre][:, :, None]
    x = x * np.geomspace(0.1, 10, BANDS)[:, None] + 3
    return torch.from_numpy(x).float(), genre


def batches(music: tuple[Tensor, np.ndarray], size: int = 50) -> Iterator[tuple[Tensor, Tensor]]:
    x, genre = music
    target = torch.eye(GENRES)[torch.from_numpy(genre)]
    return zip(x.split(size), target.split(size), strict=True)


def solved(music: tuple[Tensor, np.ndarray], **settings: Any) -> Model:
    config = Config(**settings)
    model = Model(config, BANDS, GENRES).eval()
    fit(model, config, batches(music))
    return model


@pytest.mark.parametrize(("balance", "class_weight"), [(0.0, None), (1.0, "balanced")])
def test_logistic_regression_is_that_of_scikit_learn(
    music: tuple[Tensor, np.ndarray], balance: float, class_weight: str | None
) -> None:
    x, genre = music
    values = x.mean(2).numpy()
    values = (values - values.mean(0)) / values.std(0)
    l2 = 0.05
    reference = LogisticRegression(C=1 / (l2 * CHUNKS), class_weight=class_weight, tol=1e-8)
    expected = reference.fit(values, genre).predict_proba(values)
    with torch.no_grad():
        found = solved(music, l2=l2, balance=balance)(x).softmax(1).numpy()
    assert found == pytest.approx(expected, abs=2e-3)


def test_linear_discriminant_analysis_is_that_of_scikit_learn(
    music: tuple[Tensor, np.ndarray],
) -> None:
    x, genre = music
    values = x.mean(2).numpy()
    reference = LinearDiscriminantAnalysis(solver="lsqr").fit(values, genre)
    # ours takes all genres for equally frequent
    joint = reference.predict_log_proba(values) - np.log(reference.priors_)
    expected = joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)
    with torch.no_grad():
        found = solved(music, solver="discriminant", shrinkage=0.0)(x).log_softmax(1).numpy()
    assert found == pytest.approx(expected, abs=0.05)  # 0.001 is added to each variance


def test_all_components_give_what_the_values_themselves_give(
    music: tuple[Tensor, np.ndarray],
) -> None:
    x, _ = music
    with torch.no_grad():
        whole = solved(music)(x)
        assert solved(music, components=BANDS)(x).equal(whole)
        almost = solved(music, components=BANDS - 1)(x)
        one = solved(music, components=1)(x)
    assert not almost.equal(whole)
    assert almost.sub(whole).abs().mean() < 0.3 * one.sub(whole).abs().mean()
    assert torch.linalg.matrix_rank(one - one.mean(0)) == 1


@pytest.mark.parametrize("pooling", ["mean", "mean+max", "mean+deviation", "quantiles"])
@pytest.mark.parametrize("transform", ["standardise", "normal"])
def test_each_way_of_summarising_patches_is_learnt_from(
    music: tuple[Tensor, np.ndarray], pooling: str, transform: str
) -> None:
    x, genre = music
    model = solved(music, pooling=pooling, transform=transform)
    with torch.no_grad():
        right = model(x).argmax(1).numpy() == genre
    assert right.mean() > 0.8
    flat = x[:, :, :1]  # one patch: no deviation
    assert solved((flat, genre), pooling=pooling, transform=transform)(flat).isfinite().all()


def test_a_genre_without_chunks_is_never_predicted(music: tuple[Tensor, np.ndarray]) -> None:
    x, genre = music
    few = genre != 2
    for solver in ("logistic", "discriminant"):
        model = solved((x[torch.from_numpy(few)], genre[few]), solver=solver)
        with torch.no_grad():
            assert model(x).softmax(1)[:, 2].max() < 1e-6


def test_a_temperature_divides_the_logits(music: tuple[Tensor, np.ndarray]) -> None:
    x, _ = music
    with torch.no_grad():
        assert torch.allclose(solved(music, temperature=4.0)(x) * 4, solved(music)(x), atol=1e-4)
