"""Public images are pure functions of their seeds."""

import numpy as np

from dsfedmed_ray.models.procedural_images import FAMILIES, draw_public_pair
from dsfedmed_ray.models.procedural_shapes import draw_ellipses, smooth_field
from dsfedmed_ray.seeding import numpy_generator


def test_same_seed_same_image() -> None:
    first, again, other = (draw_public_pair(seed, size=32) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_every_family_draws_layers_and_a_mask() -> None:
    for family, _ in FAMILIES:
        layers, mask = family(numpy_generator("family", family.__name__), 48)
        assert layers.shape[1:] == mask.shape == (48, 48)
        assert layers.min() >= 0
        assert layers.max() <= 1.0001


def test_images_are_stretched_and_masks_binary() -> None:
    pairs = [draw_public_pair(seed, size=64) for seed in range(12)]
    for image, mask in pairs:
        assert image.shape == (64, 64, 3)
        assert image.dtype == mask.dtype == np.uint8
        assert image.max() > 200
        assert set(np.unique(mask)) <= {0, 1}
    assert any(mask.any() for _, mask in pairs)


def test_smooth_field_is_normal() -> None:
    field = smooth_field(numpy_generator("field"), 64, 8.0)
    assert abs(float(field.mean())) < 1e-4
    assert abs(float(field.std()) - 1) < 1e-3


def test_ellipses_cover_the_area_asked_for() -> None:
    """12 percent of 64 x 64 are 491 pixels; the last ellipse may overshoot by its own size."""
    drawn = draw_ellipses(numpy_generator("e"), 64, 64, area=0.12 * 64**2, radius_px=5.0)
    assert 0.9 * 491 <= drawn.sum() <= 491 + 200
