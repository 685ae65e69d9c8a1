"""Perturbed and procedural masks."""

import numpy as np
from scipy import ndimage

from dsfedmed_ray.learning.mask_sources import perturb_masks, procedural_masks


def square(count: int = 3) -> np.ndarray:
    masks = np.zeros((count, 64, 64, 2), np.uint8)
    masks[:, 20:44, 20:44, 0] = 1
    masks[:, 28:36, 28:36, 1] = 1
    return masks


def test_no_strength_changes_nothing() -> None:
    assert np.array_equal(perturb_masks(square(), strength=0.0, seed=0)[0], square())


def test_each_mask_moves_in_its_own_way() -> None:
    moved, _ = perturb_masks(square(), strength=1.0, seed=0)
    assert moved.dtype == np.uint8
    assert set(np.unique(moved)) <= {0, 1}
    assert not np.array_equal(moved[0], moved[1])
    assert np.array_equal(moved, perturb_masks(square(), strength=1.0, seed=0)[0])
    areas = moved[..., 0].sum(axis=(1, 2)) / 24**2
    assert ((areas > 0.5) & (areas < 1.6)).all()


def test_nested_structures_stay_nested() -> None:
    moved, _ = perturb_masks(square(), strength=1.0, seed=3)
    assert (moved[..., 1] <= moved[..., 0]).all()


def test_no_masks() -> None:
    masks, moves = perturb_masks(square(0), strength=1.0, seed=0)
    assert masks.shape == (0, 64, 64, 2)
    assert moves.shape == (0, 2, 3)


def test_the_affine_part_says_where_masks_went() -> None:
    """The centre of each moved square looks at the centre of the old one, up to the elastic part.

    The old square is centred in the image, coordinates (0, 0); elastic shifts have a deviation of
    0.03 half sides, so 0.1 is far beyond them.
    """
    masks, moves = perturb_masks(square(8), strength=1.0, seed=5)
    for mask, move in zip(masks[..., 0], moves.numpy(), strict=True):
        rows, columns = np.nonzero(mask)
        centre = np.array([columns.mean(), rows.mean(), 0.0]) / 32 + [1 / 64 - 1, 1 / 64 - 1, 1.0]
        assert np.abs(move @ centre).max() < 0.1


def test_only_what_the_border_cuts_goes_on_beyond_it() -> None:
    """A disc in rows 4 to 20 that moves down by 5 is not met by its mirror image in row 1.

    Shifts are up to 5 of 64 pixels. A mask that fills the image fills it wherever it moves.
    """
    rows, columns = np.mgrid[:64, :64]
    disc = ((rows - 12) ** 2 + (columns - 32) ** 2 < 9**2).astype(np.uint8)[None, :, :, None]
    moved, _ = perturb_masks(disc.repeat(40, axis=0), strength=1.0, seed=2)
    assert {ndimage.label(mask[..., 0])[1] for mask in moved} == {1}
    assert perturb_masks(np.ones((4, 64, 64, 1), np.uint8), strength=1.0, seed=2)[0].all()


def test_drawn_areas() -> None:
    """Area 0.1 and perimeter 0.04 of the pixels: discs of radius 5 pixels, about 410 of 4096."""
    shapes = np.full((4, 2), (0.1, 0.04), np.float32)
    masks = procedural_masks(shapes, height=64, width=64, seed=0)
    areas = masks.mean(axis=(1, 2, 3))
    assert ((areas > 0.08) & (areas < 0.16)).all()
    absent = procedural_masks(shapes * 0, height=64, width=64, seed=0)
    assert not absent.any()
