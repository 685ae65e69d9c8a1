"""The per-image stretch."""

import numpy as np

from dsfedmed_ray.data.intensity import stretch


def test_percentiles_become_the_ends_of_the_range() -> None:
    """0..200 step 1: the 0.5th percentile is 1 and the 99.5th 199, so 100 is the middle."""
    pixels = np.arange(201, dtype=np.float32).reshape(3, 67)

    image = stretch(pixels)

    assert image.shape == (3, 67, 3)
    assert image.dtype == np.uint8
    grey = image[..., 0].ravel()
    assert (grey[0], grey[1], grey[100], grey[199], grey[200]) == (0, 0, 128, 255, 255)


def test_gain_and_offset_do_not_matter() -> None:
    pixels = np.random.default_rng(0).random((16, 16), dtype=np.float32)

    np.testing.assert_array_equal(stretch(pixels), stretch(pixels * 4096 + 512))


def test_channels_are_stretched_jointly_so_colour_is_kept() -> None:
    """102 of 200 is 130.05 of 255."""
    pixels = np.zeros((10, 10, 3), np.float32)
    pixels[:5, :, 0] = 200
    pixels[:5, :, 1] = 102

    assert stretch(pixels)[0, 0].tolist() == [255, 130, 0]


def test_an_image_of_one_value_is_black() -> None:
    assert not stretch(np.full((4, 4), 7, np.float32)).any()
