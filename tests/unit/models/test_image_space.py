"""The painted space encodes residuals and gives them back."""

import pytest
import torch

from dsfedmed_ray.models.image_space import (
    CLASS_SIZE,
    NUM_MAPS,
    TOKEN_SIZE,
    Condition,
    PaintedSpace,
    places,
)
from dsfedmed_ray.models.latent_codec import LinearCodec
from dsfedmed_ray.models.painting import NUM_FEATURES
from dsfedmed_ray.models.pose import POSE_SIZE


@pytest.fixture
def space() -> PaintedSpace:
    codec = LinearCodec(latent_channels=48)
    codec.fit(torch.randn(20, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    return PaintedSpace(codec)


def test_shapes_for_two_structures(space: PaintedSpace) -> None:
    images, masks = torch.rand(2, 3, 32, 48), (torch.rand(2, 2, 32, 48) > 0.5).float()
    style = space.measure(images, masks)
    assert style.shape == (2, space.style_size(2)) == (2, 5 * NUM_FEATURES + POSE_SIZE)
    condition = space.condition(masks, style)
    assert condition.control.shape == (2, 48 + 64 + NUM_MAPS, 4, 6)
    assert condition.tokens.shape == (2, 5, TOKEN_SIZE)
    assert condition.class_labels is not None
    assert condition.class_labels.shape == (2, CLASS_SIZE)
    assert space.encode(images, condition).shape == (2, 48, 4, 6)


def test_image_survives_up_to_lost_detail(space: PaintedSpace) -> None:
    """A smooth image loses little: the root mean square error stays below 0.02."""
    rows = torch.linspace(0, 1, 64).view(1, 1, 64, 1)
    images = (0.3 + 0.4 * rows).expand(1, 3, 64, 64).contiguous()
    smooth = (images.repeat(4, 1, 1, 1) - 0.5) / 0.1
    space.codec.fit(smooth + 0.1 * torch.randn(4, 3, 64, 64))
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., 16:48, 16:48] = 1
    condition = space.condition(masks, space.measure(images, masks))
    decoded = space.decode(space.encode(images, condition), condition, torch.zeros_like(images))
    assert (decoded - images).square().mean().sqrt() < 0.02


def test_grey_style_gives_grey_images(space: PaintedSpace) -> None:
    images = torch.rand(1, 1, 32, 32).expand(1, 3, 32, 32).contiguous()
    masks = (torch.rand(1, 1, 32, 32) > 0.5).float()
    condition = space.condition(masks, space.measure(images, masks))
    drawn = space.decode(torch.randn(1, 48, 4, 4), condition, torch.randn(1, 3, 32, 32))
    assert (drawn - drawn.mean(dim=1, keepdim=True)).abs().max() < 1e-3


def test_foreign_condition_is_refused(space: PaintedSpace) -> None:
    foreign = Condition(control=torch.zeros(1, 1, 1, 1), tokens=torch.zeros(1, 1, 1))
    with pytest.raises(ValueError, match="a condition that it made itself"):
        space.encode(torch.zeros(1, 3, 8, 8), foreign)


def test_places_name_corners_and_structures() -> None:
    """Patches of 8 in 32 x 48 pixels: 4 rows and 6 columns from -1 to 1."""
    masks = torch.zeros(1, 1, 32, 48)
    masks[..., :8, :8] = 1
    rows, columns, radius, near = places(masks, 8)[0]
    assert (rows[0, 0], rows[3, 0], columns[0, 5]) == (-1, 1, 1)
    assert radius[0, 0] == pytest.approx(2**0.5)
    assert near[0, 0] > 0.9
    assert near[3, 5] == 0
