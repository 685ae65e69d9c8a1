"""One intensity rule for every source: each image is stretched to the full range by itself."""

import numpy as np
from numpy.typing import NDArray

from dsfedmed_ray.records import ImageArray

LOW_PERCENTILE = 0.5
HIGH_PERCENTILE = 99.5


def stretch(pixels: NDArray[np.float32]) -> ImageArray:
    """Maps the 0.5th percentile to 0 and the 99.5th to 255, over all channels jointly.

    Scanners and cameras differ in gain and offset, which carry nothing to segment; colour does, so
    the channels keep their ratios. An image of one value becomes 0.

    Args:
        pixels: ``[height, width]`` or ``[height, width, 3]``, any range, finite.

    Returns:
        ``uint8 [height, width, 3]``; a grey image repeats its channel.
    """
    low, high = np.percentile(pixels, (LOW_PERCENTILE, HIGH_PERCENTILE))
    scale = 255.0 / (high - low) if high > low else 0.0
    levels = np.clip(np.rint((pixels - low) * scale), 0, 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else levels
