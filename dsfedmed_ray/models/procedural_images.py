"""Public images drawn from a seed: the only images the shipped backbone has ever seen.

Nothing here looks at a client, a scan or a template. A drawing is a stack of shapes (cells, discs,
rings, branching lines, folded layers, stains) with a mask of some of them, coloured at random and
then lit, blurred, grained and stretched as acquired images are.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dsfedmed_ray.models.procedural_shapes import (
    Floats,
    branches,
    folded_layers,
    many_blobs,
    nested_discs,
    smooth_field,
    threshold_field,
)
from dsfedmed_ray.records import ImageArray, MaskArray
from dsfedmed_ray.seeding import numpy_generator

Random = np.random.Generator

FAMILIES: tuple[tuple[Callable[[Random, int], tuple[Floats, Floats]], float], ...] = (
    (many_blobs, 0.45),
    (nested_discs, 0.2),
    (folded_layers, 0.2),
    (threshold_field, 0.08),
    (branches, 0.07),
)
"""Shape families with their shares. Each gives layers ``[layer, size, size]`` in [0, 1], drawn
bottom to top, and the mask ``[size, size]``."""


def draw_public_pair(seed: int, *, size: int = 128) -> tuple[ImageArray, MaskArray]:
    """One image with the mask of its main structure; a pure function of the seed.

    Args:
        seed: any integer.
        size: side, pixels.

    Returns:
        ``uint8 [size, size, 3]`` in 0-255 and ``uint8 [size, size, 1]`` of 0 and 1.
    """
    random = numpy_generator("procedural_images", seed)
    shares = np.array([share for _, share in FAMILIES])
    family = FAMILIES[random.choice(len(FAMILIES), p=shares / shares.sum())][0]
    layers, mask = family(random, size)
    image = _acquire(random, _colour(random, layers))
    return image, (mask > 0.5).astype(np.uint8)[:, :, None]


def _colour(random: Random, layers: Floats) -> Floats:
    """Composes the layers, each with a colour and a texture of its own."""
    size = layers.shape[-1]
    grey = random.random() < 0.55
    image = _surface(random, size, grey, _background(random, grey))
    for layer in layers:
        surface = _surface(random, size, grey, _palette(random, grey))
        opacity = random.uniform(0.35, 1.0) if random.random() < 0.6 else 1.0
        cover = (layer * opacity)[:, :, None]
        image = image * (1 - cover) + surface * cover
        if random.random() < 0.35:
            image = image + _rim(layer, random.uniform(0.6, 2.5)) * random.uniform(-0.4, 0.4)
    return image


def _palette(random: Random, grey: bool) -> Floats:
    if grey:
        return np.full(3, random.uniform(0.05, 0.95))
    return random.uniform(0.05, 0.95, 3)


def _background(random: Random, grey: bool) -> Floats:
    kind = random.random()
    if kind < 0.35:
        return np.full(3, random.uniform(0.0, 0.12))
    if kind < 0.5:
        return np.full(3, random.uniform(0.85, 1.0))
    return _palette(random, grey)


def _surface(random: Random, size: int, grey: bool, colour: Floats) -> Floats:
    """A colour with smooth shading, grain of one or two scales and sometimes speckles."""
    surface = np.broadcast_to(colour, (size, size, 3)).copy()
    for _ in range(random.integers(1, 3)):
        scale = 2.0 ** random.uniform(0.7, 5.0)
        strength = random.exponential(0.045)
        field = smooth_field(random, size, scale, stretch=2.0 ** random.uniform(-1.5, 1.5))
        tint = np.ones(3) if grey or random.random() < 0.5 else random.normal(0.0, 1.0, 3)
        surface += strength * field[:, :, None] * tint
    if random.random() < 0.25:
        spots = smooth_field(random, size, 2.0 ** random.uniform(0.5, 2.5)) > random.uniform(1, 2.2)
        spots = ndimage.gaussian_filter(spots.astype(np.float32), random.uniform(0.4, 1.2))
        surface += spots[:, :, None] * (_palette(random, grey) - colour) * random.uniform(0.3, 1.0)
    return surface


def _rim(layer: Floats, width_px: float) -> Floats:
    """A line along the layer's border, in [0, 1]."""
    edge = ndimage.gaussian_gradient_magnitude(layer, width_px)
    return (edge / (edge.max() + 1e-6))[:, :, None]


def _acquire(random: Random, image: Floats) -> ImageArray:
    """Lighting, blur, noise, a dark border at times, then the stretch that clients' images get."""
    size = image.shape[0]
    if random.random() < 0.6:
        light = smooth_field(random, size, size / random.uniform(2.0, 5.0))
        image = image * (1 + random.uniform(0.02, 0.25) * light[:, :, None])
    if random.random() < 0.6:
        sigma = random.uniform(0.3, 1.4)
        image = ndimage.gaussian_filter(image, (sigma, sigma, 0))
    if random.random() < 0.15:
        image = image * _field_of_view(random, size)[:, :, None]
    image = _add_noise(random, image)
    low, high = np.percentile(image, [0.5, 99.5])
    stretched = np.clip((image - low) / max(float(high - low), 1e-3), 0, 1)
    if random.random() < 0.5:
        stretched = stretched ** (2.0 ** random.uniform(-1.0, 1.0))
    return np.round(stretched * 255).astype(np.uint8)


def _add_noise(random: Random, image: Floats) -> Floats:
    strength = random.exponential(0.02)
    grain = random.normal(0.0, strength, image.shape if random.random() < 0.3 else image.shape[:2])
    grain = grain if grain.ndim == 3 else grain[:, :, None]
    if random.random() < 0.25:
        other = random.normal(0.0, strength, grain.shape)
        magnitude: Floats = np.sqrt((image + grain) ** 2 + other**2)
        return magnitude
    if random.random() < 0.3:
        grain = grain * np.sqrt(np.clip(image, 0.02, 1)) * 2
    return image + grain


def _field_of_view(random: Random, size: int) -> Floats:
    centre = size / 2 + random.normal(0, size / 16, 2)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    distance = np.hypot(rows - centre[0], columns - centre[1])
    radius = size * random.uniform(0.4, 0.62)
    inside: NDArray[np.float64] = np.clip(radius - distance, 0, 1)
    return inside
