"""Smooth random fields: anatomy's shape and a coil's shading both vary slowly in space."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def smooth_field(
    generator: np.random.Generator, size: int, *, num_frequencies: int
) -> NDArray[np.float32]:
    """A random combination of the lowest cosine waves.

    Args:
        generator: draws one normal coefficient a wave.
        size: side of the field, pixels.
        num_frequencies: waves along each axis, from the constant one; the highest has
            ``(num_frequencies - 1) / 2`` periods across the field.

    Returns:
        ``[size, size]`` of standard deviation 1 on average over the field, whatever ``size`` is.
    """
    coefficients = generator.standard_normal((num_frequencies, num_frequencies), dtype=np.float32)
    waves = _cosine_waves(size, num_frequencies)
    return (waves @ (coefficients / num_frequencies) @ waves.T).astype(np.float32)


@lru_cache(maxsize=16)
def _cosine_waves(size: int, num_frequencies: int) -> NDArray[np.float32]:
    """Orthogonal waves ``[size, num_frequencies]``, each of mean square 1."""
    position = (np.arange(size) + 0.5) / size
    frequency = np.arange(num_frequencies)
    waves = np.cos(np.pi * position[:, None] * frequency) * np.where(frequency == 0, 1, np.sqrt(2))
    return waves.astype(np.float32)
