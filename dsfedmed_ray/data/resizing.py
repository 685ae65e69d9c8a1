"""Fits images and masks into a square: aspect kept, the rest padded with 0 on both sides."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsfedmed_ray.data.intensity import stretch
from dsfedmed_ray.records import ImageArray, MaskArray


def fit_image(pixels: NDArray[np.float32], size: int) -> ImageArray:
    """Resizes bilinearly (averaging when it shrinks), stretches, pads.

    The stretch comes before the padding, so that padding does not shift the percentiles.

    Args:
        pixels: ``[height, width]`` or ``[height, width, 3]``, any range, finite.
        size: side of the square, pixels.

    Returns:
        ``uint8 [size, size, 3]``.
    """
    from PIL import Image

    height, width = _fitted(pixels.shape, size)
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    resized = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(channels[..., channel])).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for channel in range(channels.shape[2])
    ]
    return _pad(stretch(resized[0] if len(resized) == 1 else np.stack(resized, axis=2)), size)


def fit_mask(mask: MaskArray, size: int) -> MaskArray:
    """Takes the nearest pixel, so that a mask stays 0 and 1, and pads.

    Args:
        mask: ``[height, width, structures]`` of 0 and 1.
        size: side of the square, pixels.

    Returns:
        ``uint8 [size, size, structures]``.
    """
    height, width = _fitted(mask.shape, size)
    rows = _nearest(mask.shape[0], height)
    columns = _nearest(mask.shape[1], width)
    return _pad(mask[rows[:, None], columns], size)


def _fitted(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    height, width = shape[:2]
    longest = max(height, width)
    return max(1, round(height * size / longest)), max(1, round(width * size / longest))


def _nearest(source: int, target: int) -> NDArray[np.intp]:
    return ((np.arange(target) + 0.5) * source / target).astype(np.intp)


def _pad(array: NDArray[Any], size: int) -> NDArray[np.uint8]:
    top, left = (size - array.shape[0]) // 2, (size - array.shape[1]) // 2
    square = np.zeros((size, size, array.shape[2]), np.uint8)
    square[top : top + array.shape[0], left : left + array.shape[1]] = array
    return square
