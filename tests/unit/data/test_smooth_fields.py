"""Smooth fields."""

import numpy as np

from dsfedmed_ray.data.smooth_fields import smooth_field


def test_the_average_power_is_one() -> None:
    """Each of the 25 orthogonal waves has mean square 1 and weight 1/5 x normal: 25/25."""
    fields = [
        smooth_field(np.random.default_rng(seed), 32, num_frequencies=5) for seed in range(400)
    ]

    assert abs(np.mean(np.square(fields)) - 1) < 0.05


def test_the_field_is_the_same_at_any_size() -> None:
    """Pairs of fine pixels average to the coarse pixel between them, up to the curvature."""
    coarse, fine = (
        smooth_field(np.random.default_rng(3), size, num_frequencies=3) for size in (64, 128)
    )

    averaged = fine.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(averaged, coarse, atol=5e-3)


def test_neighbours_differ_little() -> None:
    field = smooth_field(np.random.default_rng(0), 128, num_frequencies=4)

    assert np.abs(np.diff(field, axis=0)).max() < 0.25
    assert field.dtype == np.float32
