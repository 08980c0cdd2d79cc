"""Augmentation hides and blends what it should, and nothing else."""

import numpy as np
import pytest
import torch

from mgc_ray.training.augment import mixup, mixup_shares, spec_augment


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_masks_are_whole_bands_and_frames_no_wider_than_asked() -> None:
    x = torch.ones(200, 20, 50)
    masked = spec_augment(x, freq_mask=6, time_mask=0.2, masks=1, generator=_generator()) == 0
    bands, frames = masked.all(2), masked.all(1)
    assert (masked == (bands[:, :, None] | frames[:, None, :])).all()
    assert bands.sum(1).max() == 6
    assert frames.sum(1).max() == 10
    assert bands.sum(1).min() == 0
    for row in [*bands, *frames]:  # one range without a gap
        assert (row.int().diff() == 1).sum() <= 1


def test_each_spectrogram_has_masks_of_its_own() -> None:
    masked = spec_augment(torch.ones(50, 20, 50), 6, 0.2, 1, _generator()) == 0
    assert len({tuple(m.flatten().tolist()) for m in masked}) > 40


def test_every_band_can_be_masked() -> None:
    masked = spec_augment(torch.ones(2000, 20, 5), 6, 0.0, 1, _generator()) == 0
    share = masked.all(2).float().mean(0)
    assert share.min() > 0.02
    assert share.max() < 0.35


def test_no_masks_changes_nothing() -> None:
    x = torch.randn(4, 8, 9)
    assert spec_augment(x, 0, 0.0, 2, _generator()).equal(x)
    assert spec_augment(x, 8, 0.5, 0, _generator()).equal(x)


def test_mixup_blends_pairs_and_their_labels_by_the_same_share() -> None:
    # chunk i holds the value i, so the blended value tells both partners' shares
    x = torch.arange(64)[:, None, None].float().expand(64, 2, 3)
    share = mixup_shares(0.4, 64, np.random.default_rng(0))
    mixed, target = mixup(x, torch.eye(64), share)
    expected = target @ torch.arange(64.0)
    assert torch.allclose(mixed[:, 0, 0], expected, atol=1e-4)
    assert torch.allclose(target.sum(1), torch.ones(64))
    assert ((target > 0).sum(1) == 2).sum() > 50
    assert torch.allclose(target.diagonal(), share)


def test_mixup_of_0_gives_plain_labels() -> None:
    x, target = torch.randn(4, 2, 3), torch.eye(4)
    mixed, labels = mixup(x, target, mixup_shares(0.0, 4, np.random.default_rng(0)))
    assert mixed.equal(x)
    assert labels.equal(target)


def test_shares_of_mixup_follow_the_beta_distribution() -> None:
    share = mixup_shares(0.4, 20_000, np.random.default_rng(0))
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share.var().item() == pytest.approx(1 / (4 * 1.8), abs=0.005)  # of Beta(0.4, 0.4)
