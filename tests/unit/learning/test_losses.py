"""Losses against numbers derived by hand."""

import math

import pytest
import torch
from torch import Tensor

from dsfedmed_ray.learning.losses import (
    cross_entropy,
    held,
    segmentation_loss,
    soft_dice_loss,
    symmetric_kl,
)

LOG3 = math.log(3.0)  # the logit of probability 0.75


def maps(*pixels: float) -> Tensor:
    """One sample, one structure, one row of pixels."""
    return torch.tensor(pixels, dtype=torch.float32).view(1, 1, 1, -1)


def test_cross_entropy_of_two_pixels() -> None:
    """Both say 0.75: -log 0.75 where the mask is 1, -log 0.25 where it is 0; the mean."""
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    assert cross_entropy(maps(LOG3, LOG3), maps(1, 0)).item() == pytest.approx(expected)


def test_positive_weight_counts_foreground_twice() -> None:
    expected = -(2 * math.log(0.75) + math.log(0.25)) / 2
    assert cross_entropy(maps(LOG3, LOG3), maps(1, 0), 2.0).item() == pytest.approx(expected)


def test_soft_dice_of_two_pixels() -> None:
    """Overlap 0.75, sums 1.5 and 1: 1 - (1.5 + 1) / (2.5 + 1) = 2 / 7."""
    assert soft_dice_loss(maps(LOG3, LOG3), maps(1, 0)).item() == pytest.approx(2 / 7)


def test_soft_dice_of_an_empty_mask_is_finite() -> None:
    """1 - 1 / (0.5 * 2 + 1) = 0.5; with a confident background it goes to 0."""
    assert soft_dice_loss(maps(0, 0), maps(0, 0)).item() == pytest.approx(0.5)
    assert soft_dice_loss(maps(-50, -50), maps(0, 0)).item() == pytest.approx(0.0, abs=1e-6)


def test_symmetric_kl_of_one_pixel() -> None:
    """Two Bernoullis of p = 0.75 and q = 0.5.

    KL(p||q) = 0.75 log 1.5 + 0.25 log 0.5, KL(q||p) = 0.5 log(2/3) + 0.5 log 2; their sum is
    (0.75 - 0.5) * (log 3 - 0).
    """
    one_way = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    other_way = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    value = symmetric_kl(maps(LOG3), maps(0.0)).item()
    assert value == pytest.approx(one_way + other_way)
    assert value == pytest.approx(0.25 * LOG3)


def test_symmetric_kl_is_symmetric_and_zero_on_agreement() -> None:
    first, second = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(symmetric_kl(first, second), symmetric_kl(second, first))
    assert (symmetric_kl(first, second) > 0).all()
    assert symmetric_kl(first, first).tolist() == [0.0, 0.0, 0.0]


def test_temperature_divides_both_logits() -> None:
    """Logits 2 log 3 and 0 at T = 2 are log 3 and 0 at T = 1."""
    assert symmetric_kl(maps(2 * LOG3), maps(0.0), 2.0).item() == pytest.approx(0.25 * LOG3)


def test_held_logits_stay_within_the_limit_and_without_one_stay_as_they_are() -> None:
    """Beyond the limit no gradient: -42 is as sure as -4."""
    logits = maps(-42.0, -1.0, 7.0).requires_grad_()
    kept = held(logits, 4.0)
    kept.sum().backward()
    assert kept.flatten().tolist() == [-4.0, -1.0, 4.0]
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == [0.0, 1.0, 0.0]
    assert held(logits, math.inf) is logits


def test_structures_are_summed_and_samples_kept_apart() -> None:
    logits = torch.tensor([[LOG3, 0.0], [0.0, 0.0]]).view(2, 2, 1, 1)
    masks = torch.ones(2, 2, 1, 1)
    expected = [-math.log(0.75) - math.log(0.5), -2 * math.log(0.5)]
    assert cross_entropy(logits, masks).tolist() == pytest.approx(expected)
    assert symmetric_kl(logits, torch.zeros_like(logits)).tolist() == pytest.approx(
        [0.25 * LOG3, 0.0]
    )
    total = segmentation_loss(logits, masks)
    assert torch.allclose(total, cross_entropy(logits, masks) + soft_dice_loss(logits, masks))
