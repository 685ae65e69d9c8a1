"""Regions, painting and style statistics."""

import pytest
import torch
from torch import Tensor

from dsfedmed_ray.models.painting import (
    AREA,
    CHROMA,
    DEVIATION,
    FINE,
    MEAN,
    NUM_FEATURES,
    PERIMETER,
    SMALLEST_DEVIATION,
    blur,
    label_map,
    measure_style,
    nearness,
    paint,
    region_weights,
    with_shape_of,
)


def half_mask(size: int = 32) -> Tensor:
    mask = torch.zeros(1, 1, size, size)
    mask[..., : size // 2] = 1
    return mask


def nothing(residual: Tensor) -> Tensor:
    return torch.zeros_like(residual)


def test_label_map_keeps_nested_structures_apart() -> None:
    """Two structures: the first alone is 1/2, both together 2/2."""
    masks = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]).view(1, 2, 1, 3)
    assert label_map(masks).flatten().tolist() == [0.0, 0.5, 1.0]


def test_regions_sum_to_one_and_do_not_overlap() -> None:
    masks = torch.zeros(1, 2, 32, 32)
    masks[:, 0, 8:24, 8:24] = 1
    masks[:, 1, 12:20, 12:20] = 1
    regions = region_weights(masks)
    assert regions.shape == (1, 4, 32, 32)
    assert torch.allclose(regions.sum(dim=1), torch.ones(1, 32, 32), atol=1e-5)
    assert regions[0, 3, 16, 16] > 0.99  # the inner structure
    assert regions[0, 2, 16, 16] < 0.01  # is not also the outer one


def test_blur_keeps_constants_and_mass() -> None:
    assert torch.allclose(blur(torch.full((1, 2, 9, 9), 0.7), 1.0), torch.full((1, 2, 9, 9), 0.7))
    point = torch.zeros(1, 1, 11, 11)
    point[0, 0, 5, 5] = 1
    assert blur(point, 1.0).sum() == pytest.approx(1.0, abs=1e-5)


def test_style_of_two_flat_halves() -> None:
    """Left 0.8 and right 0.2 in all channels: far from the border the painting is the image."""
    image = torch.full((1, 3, 32, 32), 0.2)
    image[..., :16] = 0.8
    regions = region_weights(half_mask())
    style = measure_style(image, regions, nothing)
    assert style.shape == (1, 4, NUM_FEATURES)
    assert style[0, 0, MEAN].tolist() == pytest.approx([0.5] * 3, abs=1e-3)
    assert style[0, 3, MEAN].tolist() == pytest.approx([0.8] * 3, abs=0.03)
    assert style[0, 1:3, AREA].sum().item() == pytest.approx(0.5, abs=1e-3)
    assert style[0, 3, AREA].item() == pytest.approx(0.5, abs=1e-3)
    assert style[0, 3, PERIMETER].item() == pytest.approx(1 / 32, abs=1e-3)
    assert style[0, :, CHROMA].abs().max() < 1e-6
    colour = paint(regions, style).colour
    assert torch.allclose(colour[..., :10], image[..., :10], atol=0.03)


def test_fine_is_what_the_latents_lose() -> None:
    """Nothing survives, so fine equals deviation; everything survives, so fine is 0."""
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    regions = region_weights(half_mask())
    lost = measure_style(image, regions, nothing)
    kept = measure_style(image, regions, lambda residual: residual)
    assert torch.allclose(lost[..., FINE], lost[..., DEVIATION])
    assert kept[..., FINE].abs().max() == 0


def test_absent_structure_has_no_features_and_no_effect() -> None:
    image = torch.full((1, 3, 32, 32), 0.4)
    regions = region_weights(torch.zeros(1, 1, 32, 32))
    style = measure_style(image, regions, nothing)
    assert style[0, 3].abs().max() == 0
    assert style[0, 2].abs().max() == 0  # nothing is near
    painting = paint(regions, style)
    assert torch.allclose(painting.colour, image, atol=1e-4)
    assert painting.deviation.min() == pytest.approx(SMALLEST_DEVIATION)


def test_shape_follows_the_mask_that_is_drawn() -> None:
    style = torch.ones(1, 4, NUM_FEATURES)
    changed = with_shape_of(style, region_weights(half_mask()))
    assert changed[0, 3, AREA].item() == pytest.approx(0.5, abs=1e-3)
    assert torch.equal(changed[..., :AREA], style[..., :AREA])
    assert torch.equal(changed[..., CHROMA], style[..., CHROMA])


def test_nearness_falls_off() -> None:
    """Structures end at column 16 of 64; 2 pixels beyond is near, 12 beyond is not."""
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :16] = 1
    near = nearness(mask)[0, 0, 32]
    assert near[17] > 0.5
    assert near[28] == 0
    assert nearness(torch.zeros(1, 1, 64, 64)).max() == 0
