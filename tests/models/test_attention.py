"""Rotary positions, and what of a transformer could silently be wrong."""

import torch

from mgc_ray.models.attention import Block, Config, Model, rotate


def test_a_product_of_rotated_steps_depends_on_their_distance_alone() -> None:
    query, key = torch.randn(8), torch.randn(8)
    queries, keys = rotate(query.expand(20, 8)), rotate(key.expand(20, 8))
    products = queries @ keys.T
    for distance in (0, 1, 5):
        along = products.diagonal(distance)
        assert torch.allclose(along, along[:1], atol=1e-4)
    assert not torch.allclose(products[0, 1], products[0, 5], atol=1e-3)


def test_rotation_keeps_lengths_and_leaves_the_first_step() -> None:
    x = torch.randn(2, 3, 7, 16)
    turned = rotate(x)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert turned[:, :, 0].equal(x[:, :, 0])


def test_skipped_samples_pass_through_and_the_mean_change_stays() -> None:
    torch.manual_seed(0)
    block = Block(width=8, heads=2, dropout=0.0, skip=0.5)
    change = torch.ones(4000, 1, 8)
    kept = block.train()._kept(change)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert abs(kept.mean().item() - 1) < 0.1
    assert block.eval()._kept(change) is change


def test_the_order_of_frames_matters() -> None:
    torch.manual_seed(0)
    model = Model(Config(blocks=2), bands=16, genres=4).eval()
    x = torch.randn(1, 16, 40)
    # blocks of four frames, the step of the transformer, in another order
    other = x.view(1, 16, 10, 4).flip(2).reshape(1, 16, 40)
    assert not torch.allclose(model(x), model(other), atol=1e-3)
