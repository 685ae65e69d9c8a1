"""Fitting into a square."""

import numpy as np
import pytest

from dsfedmed_ray.data.resizing import fit_image, fit_mask


def test_aspect_is_kept_and_the_rest_is_padded() -> None:
    """100 x 50 into 32: 32 x 16, with 8 columns of 0 on either side."""
    mask = fit_mask(np.ones((100, 50, 2), np.uint8), 32)

    assert mask.shape == (32, 32, 2)
    assert mask[:, 8:24].all()
    assert not mask[:, :8].any()
    assert not mask[:, 24:].any()


def test_image_and_mask_stay_in_place_whatever_their_sizes() -> None:
    """A square of the image's lower right quarter; the mask has half its resolution."""
    image = np.zeros((80, 120), np.float32)
    image[40:, 60:] = 1000
    mask = (image[::2, ::2, None] > 0).astype(np.uint8)

    fitted = fit_image(image, 60)

    assert fitted.shape == (60, 60, 3)
    np.testing.assert_array_equal(fitted[..., :1] > 127, fit_mask(mask, 60).astype(bool))


def test_padding_does_not_shift_the_stretch() -> None:
    """Values 100 to 104 fill the range although the padding is 0."""
    image = np.tile(np.array([100, 104], np.float32), (64, 4))

    fitted = fit_image(image, 64)[:, 28:36, 0]

    assert (fitted.min(), fitted.max()) == (0, 255)


def test_shrinking_averages() -> None:
    """A checkerboard of single pixels has no contrast left at a quarter of its size."""
    board = np.indices((128, 128)).sum(0) % 2
    board[:64] = 0
    shrunk = fit_image(board.astype(np.float32), 32)

    assert shrunk[20:].std() < 3


@pytest.mark.parametrize("size", [32, 100, 256])
def test_masks_stay_binary(size: int) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (60, 90, 1)).astype(np.uint8)

    assert np.unique(fit_mask(mask, size)).tolist() == [0, 1]


def test_a_size_of_its_own_changes_nothing() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (32, 32, 1)).astype(np.uint8)

    np.testing.assert_array_equal(fit_mask(mask, 32), mask)
