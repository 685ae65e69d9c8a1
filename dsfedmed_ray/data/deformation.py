"""A subject's anatomy: the template's slice, smoothly deformed in its plane."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dsfedmed_ray.data.smooth_fields import smooth_field

ROTATION_DEGREES = 8.0
SCALE_RANGE = (0.90, 1.08)
SHIFT_MM = 5.0
BENDING_MM = 2.2
NUM_FREQUENCIES = 7
VENTRICLE_GROWTH = (-0.25, 0.30)
VENTRICLE_REACH_MM = 30.0
_VENTRICLE_CENTRE_MM = (10.0, 0.0)  # from the middle of the field of view: down, right


@dataclass(frozen=True, kw_only=True)
class Deformation:
    """Where each pixel of a subject's slice lies in the template's slice.

    Attributes:
        positions: row and column in template millimetres, ``[2, size, size]``.
    """

    positions: NDArray[np.float32]

    def warp(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples 1 mm maps ``[n, side, side]`` bilinearly to ``[n, size, size]``; outside is 0."""
        # In grid_sample's units the square reaches from -1 to 1, and columns come before rows. It
        # is ten times faster than scipy's map_coordinates.
        grid = (2 * self.positions[::-1] + 1) / maps.shape[-1] - 1
        warped = functional.grid_sample(
            torch.from_numpy(maps)[None],
            torch.from_numpy(np.ascontiguousarray(grid.transpose(1, 2, 0)))[None],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        return np.asarray(warped[0])


def draw_deformation(
    generator: np.random.Generator, *, size: int, field_of_view_mm: int
) -> Deformation:
    """Draws head position and size, bending, and the size of the ventricles.

    The spread is that of healthy adults in order of magnitude: heads 10 % smaller to 8 % larger,
    local bending of 2 mm, ventricles from a fifth narrower to two fifths wider.

    Args:
        generator: the subject's stream; the subject is the same at any ``size``.
        size: side of the deformed slice, pixels.
        field_of_view_mm: side of the template's slice and of the deformed one.
    """
    angle = np.deg2rad(generator.uniform(-ROTATION_DEGREES, ROTATION_DEGREES))
    scale = generator.uniform(*SCALE_RANGE, size=2)
    shift = generator.uniform(-SHIFT_MM, SHIFT_MM, size=2)
    growth = generator.uniform(*VENTRICLE_GROWTH)
    bending = np.stack(
        [smooth_field(generator, size, num_frequencies=NUM_FREQUENCIES) for _ in range(2)]
    )

    axis = (np.arange(size) + 0.5) * field_of_view_mm / size - field_of_view_mm / 2
    own = np.stack(np.meshgrid(axis, axis, indexing="ij")) - shift[:, None, None]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = np.tensordot(turn / scale, own, axes=1) + BENDING_MM * bending
    from_centre = source - np.reshape(_VENTRICLE_CENTRE_MM, (2, 1, 1))
    nearness = np.exp(-np.square(from_centre).sum(0) / (2 * VENTRICLE_REACH_MM**2))
    source -= growth * nearness * from_centre
    return Deformation(positions=(source + field_of_view_mm / 2 - 0.5).astype(np.float32))
