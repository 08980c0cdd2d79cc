"""Augmentation masks, moves and blends what it should, and nothing else."""

import numpy as np
import pytest
import torch

from mgc_ray.training.augment import crop, level, mixup, mixup_shares, spec_augment, time_shift


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_masks_are_whole_bands_and_frames_no_wider_than_the_setting() -> None:
    x = torch.ones(200, 20, 50)
    masked = spec_augment(x, freq_mask=6, time_mask=0.2, masks=1, generator=_generator()) == 0
    bands, frames = masked.all(2), masked.all(1)
    assert (masked == (bands[:, :, None] | frames[:, None, :])).all()
    assert bands.sum(1).max() == 6
    assert frames.sum(1).max() == 10
    assert bands.sum(1).min() == 0
    for row in [*bands, *frames]:  # one range without a gap
        assert (row.int().diff() == 1).sum() <= 1


def test_each_spectrogram_has_other_masks() -> None:
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
    # chunk i holds the value i, so the blended value shows both partners' shares
    x = torch.arange(64)[:, None, None].float().expand(64, 2, 3)
    mixed, target = mixup([x, torch.eye(64)], torch.tensor(0.75))
    expected = target @ torch.arange(64.0)
    assert torch.allclose(mixed[:, 0, 0], expected, atol=1e-4)
    assert target.diagonal().eq(0.75).all()
    assert target.sort(1).values[:, -2:].eq(torch.tensor([0.25, 0.75])).all()


def test_without_mixup_all_of_the_first_remains() -> None:
    assert mixup_shares(0.0, 4, np.random.default_rng(0)).tolist() == [1, 1, 1, 1]
    x, target = torch.randn(4, 2, 3), torch.eye(4)
    mixed, labels = mixup([x, target], torch.tensor(1.0))
    assert torch.allclose(mixed, x)
    assert labels.equal(target)


def test_shares_of_mixup_follow_the_beta_distribution() -> None:
    share = mixup_shares(0.4, 20_000, np.random.default_rng(0))
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share.var().item() == pytest.approx(1 / (4 * 1.8), abs=0.005)  # of Beta(0.4, 0.4)


def test_a_crop_is_a_whole_part_of_its_spectrogram() -> None:
    x = torch.arange(50.0).expand(300, 4, 50)
    part = crop(x, 20, 0.0, 0.0, 4, _generator())
    assert part.shape == (300, 4, 20)
    assert (part[:, 0].diff() == 1).all()
    assert part.eq(part[:, :1]).all()  # the same frames of all bands
    assert set(part[:, 0, 0].tolist()) == set(range(31))


def test_a_crop_of_all_frames_changes_nothing() -> None:
    x = torch.randn(3, 4, 50)
    assert crop(x, 50, 0.0, 0.0, 4, _generator()) is x


def test_transposing_moves_all_bands_alike_by_no_more_than_the_setting() -> None:
    x = torch.arange(40.0)[:, None].expand(500, 40, 10)
    moved = x - crop(x, 10, 3.0, 0.0, 40, _generator())
    inside = moved[:, 4:-4]
    assert torch.allclose(inside, inside[:, :1, :1], atol=1e-3)
    assert inside.abs().max() <= 3.001
    assert inside.min() < -2.8
    assert inside.max() > 2.8


def test_stretching_changes_the_speed_by_no_more_than_the_setting() -> None:
    x = torch.arange(100.0).expand(500, 2, 100)
    speed = crop(x, 50, 0.0, 0.25, 2, _generator())[:, 0, 1:-1].diff()
    assert torch.allclose(speed, speed[:, :1], atol=1e-3)
    assert speed.min() == pytest.approx(1 / 1.25, abs=0.01)
    assert speed.max() == pytest.approx(1.25, abs=0.01)


def test_a_shift_in_time_wraps_around() -> None:
    x = torch.arange(10.0).expand(200, 3, 10)
    rolled = time_shift(x, 0.3, _generator())
    by = rolled[:, 0].argmin(1)
    assert set(by.tolist()) == {0, 1, 2, 3}
    assert all(r.equal(one.roll(int(n), 1)) for r, one, n in zip(rolled, x, by, strict=True))


def test_level_adds_a_constant_and_a_slope_of_the_given_deviations() -> None:
    added = level(torch.zeros(4000, 3, 5), 0.5, 0.2, 3, _generator())
    assert added.eq(added[:, :, :1]).all()
    middle, slope = added[:, 1, 0], (added[:, 2, 0] - added[:, 0, 0]) / 2
    assert middle.std().item() == pytest.approx(0.5, rel=0.05)
    assert slope.std().item() == pytest.approx(0.2, rel=0.05)
    assert torch.allclose(added[:, 0, 0] + added[:, 2, 0], 2 * middle, atol=1e-5)


def test_bands_that_are_not_pitched_are_neither_transposed_nor_leveled() -> None:
    x = torch.arange(40.0)[:, None].expand(100, 40, 10)
    moved = crop(x, 10, 3.0, 0.0, 30, _generator())
    assert torch.allclose(moved[:, 30:], x[:, 30:], atol=1e-4)
    assert moved[:, :30].max() <= 29.001  # nothing comes in from the other bands
    assert not torch.allclose(moved[:, :30], x[:, :30], atol=0.5)
    added = level(torch.zeros(10, 5, 3), 0.5, 0.2, 2, _generator())
    assert added[:, 2:].eq(0).all()
    assert added[:, :2].ne(0).all()
