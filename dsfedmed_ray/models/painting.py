"""The painted condition: each region of a mask in its own mean colour, softly joined.

A painting carries everything about an image that a mask and a few region statistics determine.
What is left, the residual, is what the diffusion model has to draw; the product of contrast and
mask, which small networks learn badly, is gone from its task.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

FEATURES = (
    "mean_red",
    "mean_green",
    "mean_blue",
    "std_red",
    "std_green",
    "std_blue",
    "deviation",
    "coarse",
    "fine",
    "area",
    "perimeter",
    "chroma",
)
"""Statistics of one region, in this order. ``deviation`` is the root mean square of the residual,
``coarse`` of its part above 8 pixels, ``fine`` of what the latents cannot hold, ``chroma`` of its
colour; ``area`` and ``perimeter`` are fractions of the image's pixels. All are in [0, 1]."""

NUM_FEATURES = len(FEATURES)
MEAN = slice(0, 3)
STD = slice(3, 6)
DEVIATION, COARSE, FINE, AREA, PERIMETER, CHROMA = range(6, 12)

BLUR_SIGMA_PX = 1.0
SMALLEST_DEVIATION = 0.02
COARSE_PX = 8
NEAR_GRID = 32
"""Rows of the grid on which nearness to structures is computed."""
NEAR_GAIN = 3.0

WHOLE, FAR, NEAR, FIRST_STRUCTURE = range(4)
"""Tokens of a style, in this order; the structures end the list."""


@dataclass(frozen=True)
class Painting:
    """What a mask and a style determine of an image.

    Attributes:
        colour: the painted image, in [0, 1].
        deviation: by how much the residual is scaled at each pixel, at least 0.02.
    """

    colour: Float[Tensor, "batch 3 height width"]
    deviation: Float[Tensor, "batch 1 height width"]

    def first(self) -> "Painting":
        """The painting of the first sample alone."""
        return Painting(colour=self.colour[:1], deviation=self.deviation[:1])


def label_map(
    masks: Float[Tensor, "batch structures height width"],
) -> Float[Tensor, "batch 1 height width"]:
    """One channel for any number of structures: structure c of C has the value (c + 1) / C.

    Where structures overlap the later one counts, so nested structures (disc, then cup) stay
    distinct.
    """
    count = masks.shape[1]
    values = torch.arange(1, count + 1, device=masks.device, dtype=masks.dtype) / count
    return (masks * values.view(1, -1, 1, 1)).amax(dim=1, keepdim=True)


def region_weights(
    masks: Float[Tensor, "batch structures height width"],
) -> Float[Tensor, "batch regions height width"]:
    """Soft memberships that sum to 1: far ground, near ground, then the structures.

    A structure's region leaves out the structures after it, so nested ones do not overlap. Near
    ground is what surrounds structures, since it is local contrast that a segmenter sees.
    """
    later = torch.flip(torch.cumprod(1 - torch.flip(masks, [1]), dim=1), [1])
    outside_later = torch.cat([later[:, 1:], torch.ones_like(later[:, :1])], dim=1)
    structures = blur(masks * outside_later, BLUR_SIGMA_PX)
    ground = 1 - structures.sum(dim=1, keepdim=True)
    near = nearness(masks)
    return torch.cat([ground * (1 - near), ground * near, structures], dim=1)


def nearness(
    masks: Float[Tensor, "batch structures height width"],
) -> Float[Tensor, "batch 1 height width"]:
    """1 beside any structure, falling to 0 within about a sixteenth of the image's height."""
    height, width = masks.shape[2:]
    size = (NEAR_GRID, max(1, round(NEAR_GRID * width / height)))
    coarse = functional.interpolate(masks.amax(dim=1, keepdim=True), size, mode="area")
    spread_out = (NEAR_GAIN * blur(coarse, 1.0)).clamp(max=1)
    return functional.interpolate(spread_out, (height, width), mode="bilinear")


def blur(
    maps: Float[Tensor, "batch channels height width"], sigma_px: float
) -> Float[Tensor, "batch channels height width"]:
    """Gaussian blur with replicated borders; a partition of unity stays one."""
    radius = max(1, round(2.5 * sigma_px))
    kernel = [math.exp(-0.5 * (offset / sigma_px) ** 2) for offset in range(-radius, radius + 1)]
    kernel = [weight / sum(kernel) for weight in kernel]
    padded = functional.pad(maps, (radius, radius, radius, radius), mode="replicate")
    # Shifted sums: a convolution with one input channel is twenty times slower on a CPU.
    for axis in (2, 3):
        length = maps.shape[axis]
        shifted = (padded.narrow(axis, start, length) for start in range(len(kernel)))
        padded = _sum(weight * view for weight, view in zip(kernel, shifted, strict=True))
    return padded


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    """Adds tensors without starting from a Python 0."""
    return functools.reduce(torch.add, tensors)


def token_weights(
    regions: Float[Tensor, "batch regions height width"],
) -> Float[Tensor, "batch tokens height width"]:
    """The whole image before the regions of :func:`region_weights`."""
    return torch.cat([torch.ones_like(regions[:, :1]), regions], dim=1)


def paint(
    regions: Float[Tensor, "batch regions height width"],
    style: Float[Tensor, "batch tokens features"],
) -> Painting:
    """Paints each region in its mean colour.

    Args:
        regions: soft memberships.
        style: as :func:`measure_style` gives it: whole, far ground, near ground, each structure.
    """
    colour = spread(style[:, 1:, MEAN], regions)
    deviation = spread(style[:, 1:, DEVIATION : DEVIATION + 1], regions)
    return Painting(colour=colour.clamp(0, 1), deviation=deviation.clamp(min=SMALLEST_DEVIATION))


def spread(
    values: Float[Tensor, "batch regions channels"],
    regions: Float[Tensor, "batch regions height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Maps in which each region has its values."""
    return torch.einsum("brhw,brc->bchw", regions, values)


def measure_style(
    images: Float[Tensor, "batch 3 height width"],
    regions: Float[Tensor, "batch regions height width"],
    reconstruct: Callable[[Tensor], Tensor],
) -> Float[Tensor, "batch tokens features"]:
    """Statistics of the whole image, of far and near ground and of each structure.

    These leave the client as part of its upload. The features of a region without pixels are 0.

    Args:
        images: in [0, 1].
        regions: soft memberships.
        reconstruct: gives the part of a residual that survives the latents.
    """
    weights = token_weights(regions)
    means = _weighted(images, weights)
    deviations = (_weighted(images.square(), weights) - means.square()).clamp(min=0).sqrt()
    # The middle of a thin structure says its colour; its soft border is mixed with the ground.
    means = _weighted(images, weights.square())
    residual = images - spread(means[:, 1:], regions)
    coarse = functional.avg_pool2d(residual, COARSE_PX)
    coarse = functional.interpolate(coarse, scale_factor=COARSE_PX, mode="bilinear")
    parts = [residual, coarse, residual - reconstruct(residual), chroma(residual)]
    energy = torch.cat([part.square().mean(dim=1, keepdim=True) for part in parts], dim=1)
    energy = _weighted(energy, weights).sqrt()
    shape = region_shape(weights)
    style = torch.cat([means, deviations, energy[:, :, :3], shape, energy[:, :, 3:]], dim=2)
    return style * (shape[:, :, :1] > 0)


def chroma(
    residual: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """What is left of a residual without its grey part."""
    return residual - residual.mean(dim=1, keepdim=True)


def region_shape(
    weights: Float[Tensor, "batch tokens height width"],
) -> Float[Tensor, "batch tokens 2"]:
    """Area and perimeter of each region as fractions of the image's pixels."""
    area = weights.mean(dim=(2, 3))
    area = torch.where(area < 1e-5, 0.0, area)
    vertical = weights.diff(dim=2).abs().sum(dim=(2, 3))
    horizontal = weights.diff(dim=3).abs().sum(dim=(2, 3))
    pixels = weights.shape[2] * weights.shape[3]
    return torch.stack([area, (vertical.square() + horizontal.square()).sqrt() / pixels], dim=2)


def with_shape_of(
    style: Float[Tensor, "batch tokens features"],
    regions: Float[Tensor, "batch regions height width"],
) -> Float[Tensor, "batch tokens features"]:
    """The style with area and perimeter measured on these regions, since masks change."""
    style = style.clone()
    style[:, :, AREA:CHROMA] = region_shape(token_weights(regions))
    return style


def _weighted(
    values: Float[Tensor, "batch channels height width"],
    weights: Float[Tensor, "batch tokens height width"],
) -> Float[Tensor, "batch tokens channels"]:
    total = weights.sum(dim=(2, 3)).clamp(min=1e-3).unsqueeze(2)
    return torch.einsum("bchw,brhw->brc", values, weights) / total
