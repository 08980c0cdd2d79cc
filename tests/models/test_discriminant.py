"""The solved weights are those of the textbook, whatever the batches were."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mgc_ray.models import discriminant
from mgc_ray.models._solving import normal_quantiles, to_normal
from mgc_ray.models._statistics import FRAMES, _onsets, _partials, statistics


def tones(count: int, genres: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with more weight on other bands in each genre: x [count, 16, 40], target."""
    generator = torch.Generator().manual_seed(seed)
    genre = torch.arange(count) % genres
    x = torch.randn(count, 16, 40, generator=generator)
    x[torch.arange(count), genre * 3] += 1.0
    return x, torch.nn.functional.one_hot(genre, genres).float()


def solved(x: Tensor, target: Tensor, size: int, **config: float) -> discriminant.Model:
    network = discriminant.Model(discriminant.Config(**config), x.shape[1], target.shape[1])
    discriminant.fit(
        network,
        discriminant.Config(**config),
        iter(list(zip(x.split(size), target.split(size), strict=True))),
    )
    return network.eval()


def test_the_weights_are_those_of_discriminant_analysis() -> None:
    x, target = tones(120, 4, seed=0)
    network = solved(x, target, size=50, shrinkage=0.4, temperature=2.0)
    z = network.embed(x).double().numpy()
    genre = target.argmax(1).numpy()
    means = np.stack([z[genre == g].mean(0) for g in range(4)])
    within = np.cov((z - means[genre]).T, bias=True)
    covariance = 0.6 * within + 0.4 * np.diag(np.diag(within)) + 1e-3 * np.eye(len(within))
    distance = np.stack(  # of Mahalanobis, squared
        [
            np.einsum("ni,in->n", z - mean, np.linalg.solve(covariance, (z - mean).T))
            for mean in means
        ]
    )
    expected = -distance.T / 2 / 2.0
    expected -= expected.mean(1, keepdims=True)  # what all genres have in common does not count
    found = network(x).detach().double().numpy()
    np.testing.assert_allclose(found - found.mean(1, keepdims=True), expected, atol=1e-3)


def test_statistics_become_normally_distributed_between_the_quantiles() -> None:
    normal = normal_quantiles(4)  # at 1/8, 3/8, 5/8 and 7/8
    assert normal.tolist() == pytest.approx([-1.15035, -0.31864, 0.31864, 1.15035], abs=1e-5)
    quantiles = torch.tensor([[0.0, 1.0, 2.0, 6.0], [5.0, 5.0, 5.0, 7.0]])
    values = torch.tensor([[-9.0, 5.0], [0.5, 7.0], [1.0, 6.0], [4.0, 4.0], [9.0, 9.0]])
    expected = [
        [normal[0], (normal[0] + normal[2]) / 2],  # below all; the middle of three equal ones
        [(normal[0] + normal[1]) / 2, normal[3]],
        [normal[1], (normal[2] + normal[3]) / 2],
        [(normal[2] + normal[3]) / 2, normal[0]],
        [normal[3], normal[3]],
    ]
    found = to_normal(values, quantiles)
    assert found.tolist() == [pytest.approx([float(v) for v in row]) for row in expected]


def test_the_size_of_batches_does_not_matter() -> None:
    x, target = tones(60, 3, seed=1)
    one, many = solved(x, target, size=60), solved(x, target, size=7)
    assert torch.allclose(one(x), many(x), atol=1e-3)


def test_it_knows_music_it_has_not_seen() -> None:
    network = solved(*tones(150, 3, seed=2), size=32)
    x, target = tones(60, 3, seed=3)
    assert (network(x).argmax(1) == target.argmax(1)).float().mean() > 0.9


def test_a_share_of_a_genre_counts_as_so_many_tracks_of_it() -> None:
    x, target = tones(80, 2, seed=4)
    other = target.flip(1)
    blended = solved(x, 0.75 * target + 0.25 * other, size=80)
    repeated = solved(x.repeat(4, 1, 1), torch.cat([target, target, target, other]), size=80)
    assert torch.allclose(blended(x), repeated(x), atol=0.05)


def test_a_genre_without_a_track_is_never_predicted() -> None:
    x, target = tones(60, 2, seed=5)
    network = solved(x, torch.nn.functional.pad(target, (0, 1)), size=20)
    assert network(x).softmax(1)[:, 2].max() == 0


@pytest.mark.parametrize("bands", [8, 40, 128])
def test_as_many_statistics_for_any_number_of_frames(bands: int) -> None:
    counts = {statistics(torch.randn(2, bands, n)).shape for n in (1, 31, 200, 2 * FRAMES + 1)}
    assert len(counts) == 1


def test_all_statistics_are_numbers_for_silence_and_for_constant_sound() -> None:
    for x in (torch.zeros(1, 128, 50), torch.ones(1, 128, 900), torch.full((1, 12, 3), -7.0)):
        assert statistics(x).isfinite().all()


def test_statistics_hardly_depend_on_how_often_the_music_is_repeated() -> None:
    x = torch.randn(1, 128, 390, generator=torch.Generator().manual_seed(0)).cumsum(2) / 10
    assert torch.nn.functional.cosine_similarity(statistics(x), statistics(x.repeat(1, 1, 2))) > 0.9


def test_a_held_tone_has_lasting_partials_and_a_beat_has_onsets() -> None:
    held, beat = torch.zeros(1, 128, 120), torch.zeros(1, 128, 120)
    held[:, 60] = 1.0
    beat[:, :, ::10] = 1.0
    # 16 regions of 8 bands: band 60 is in region 7, one of its 8 bands; then 4 frames later
    assert _partials(held)[0, [7, 16 + 7, 32 + 7]].tolist() == [0.125, 0.125, 0.125]
    assert _partials(beat).sum() == 0
    # frames 10, 20 ... 110 of the 118 that have both neighbours
    assert _onsets(beat)[0, 0] == pytest.approx(11 / 118)
    assert _onsets(held)[0, 16:].sum() == 0  # nothing rises
