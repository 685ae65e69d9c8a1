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
)
"""Statistics of one region, in this order. ``deviation`` is the root mean square of the residual,
``coarse`` of its part above 8 pixels and ``fine`` of what the latents cannot hold; ``area`` and
``perimeter`` are fractions of the image's pixels. All of them are in [0, 1]."""

NUM_FEATURES = len(FEATURES)
MEAN = slice(0, 3)
STD = slice(3, 6)
DEVIATION, COARSE, FINE, AREA, PERIMETER = range(6, 11)

BLUR_SIGMA_PX = 1.0
SMALLEST_DEVIATION = 0.02
COARSE_PX = 8


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
    """Soft memberships that sum to 1: background first, then the structures.

    A structure's region leaves out the structures after it, so nested ones do not overlap.
    """
    later = torch.flip(torch.cumprod(1 - torch.flip(masks, [1]), dim=1), [1])
    outside_later = torch.cat([later[:, 1:], torch.ones_like(later[:, :1])], dim=1)
    regions = torch.cat([later[:, :1], masks * outside_later], dim=1)
    return blur(regions, BLUR_SIGMA_PX)


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


def paint(
    masks: Float[Tensor, "batch structures height width"],
    style: Float[Tensor, "batch tokens features"],
) -> Painting:
    """Paints each region in its mean colour.

    Args:
        masks: 0 and 1.
        style: as :func:`measure_style` gives it: whole image, background, each structure.
    """
    weights = region_weights(masks)
    regions = style[:, 1:]
    colour = torch.einsum("brhw,brc->bchw", weights, regions[:, :, MEAN])
    deviation = torch.einsum("brhw,br->bhw", weights, regions[:, :, DEVIATION])
    return Painting(
        colour=colour.clamp(0, 1),
        deviation=deviation.unsqueeze(1).clamp(min=SMALLEST_DEVIATION),
    )


def measure_style(
    images: Float[Tensor, "batch 3 height width"],
    masks: Float[Tensor, "batch structures height width"],
    reconstruct: Callable[[Tensor], Tensor],
) -> Float[Tensor, "batch tokens features"]:
    """Statistics of the whole image, its background and each structure.

    These leave the client as part of its upload. Tokens are whole, background, structures; the
    features of a region without pixels are 0.

    Args:
        images: in [0, 1].
        masks: 0 and 1.
        reconstruct: gives the part of a residual that survives the latents.
    """
    regions = region_weights(masks)
    weights = torch.cat([torch.ones_like(regions[:, :1]), regions], dim=1)
    means = _weighted(images, weights)
    spread = (_weighted(images.square(), weights) - means.square()).clamp(min=0).sqrt()
    colour = torch.einsum("brhw,brc->bchw", regions, means[:, 1:])
    residual = images - colour
    coarse = functional.avg_pool2d(residual, COARSE_PX)
    coarse = functional.interpolate(coarse, scale_factor=COARSE_PX, mode="bilinear")
    energies = [
        _weighted(part.square().mean(dim=1, keepdim=True), weights).sqrt()
        for part in (residual, coarse, residual - reconstruct(residual))
    ]
    style = torch.cat([means, spread, *energies, region_shape(weights)], dim=2)
    return style * (style[:, :, AREA : AREA + 1] > 0)


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
    masks: Float[Tensor, "batch structures height width"],
) -> Float[Tensor, "batch tokens features"]:
    """The style with area and perimeter measured on these masks, since masks change."""
    regions = region_weights(masks)
    weights = torch.cat([torch.ones_like(regions[:, :1]), regions], dim=1)
    return torch.cat([style[:, :, :AREA], region_shape(weights)], dim=2)


def _weighted(
    values: Float[Tensor, "batch channels height width"],
    weights: Float[Tensor, "batch tokens height width"],
) -> Float[Tensor, "batch tokens channels"]:
    total = weights.sum(dim=(2, 3)).clamp(min=1e-3).unsqueeze(2)
    return torch.einsum("bchw,brhw->brc", values, weights) / total
