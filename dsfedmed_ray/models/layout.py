"""What all of a client's images have in common, place by place: where organs always lie.

Scans of one body part are roughly aligned, cells on a slide are not. The layout is the mean and the
deviation of the scaled residuals at 16x16 places, shrunk to nothing where images do not agree, so
that slides keep their flat painting. With it comes the energy of each latent channel, by which
sampling keeps an undertrained network from adding noise that no image of the client has.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

GRID = 16
SMALLEST_COUNT = 4
"""Pairs below which there is no layout: a mean of fewer would show them."""
SMALLEST_FACTOR = 0.1
"""Deviations are lowered to a tenth at most, so that no place is frozen."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Statistics over all of a client's pairs, no single pair's.

    Attributes:
        mean: of the scaled residual, ``[3, 16, 16]``.
        factor: what is left of its deviation about that mean, ``[1, 16, 16]``, near 1 at most.
        spectrum: root mean square of each latent channel, ``[channels]``.
    """

    mean: Tensor
    factor: Tensor
    spectrum: Tensor

    def parts(self) -> dict[str, Tensor]:
        """By name, for an upload."""
        return {"mean": self.mean, "factor": self.factor, "spectrum": self.spectrum}

    def to(self, device: torch.device) -> "Layout":
        """The same on another device."""
        return Layout(**{name: part.to(device) for name, part in self.parts().items()})


def mean_layout(
    residuals: Float[Tensor, "count 3 height width"],
) -> tuple[Float[Tensor, "3 grid grid"], Float[Tensor, "1 grid grid"]]:
    """Mean and remaining deviation of scaled residuals.

    A place's mean is shrunk by ``1 - variance / (count * mean^2)`` (positive-part James-Stein), so
    that what differs from image to image counts as nothing in common.

    Args:
        residuals: (image - painting) / deviation, about unit variance in all.
    """
    count = residuals.shape[0]
    coarse = functional.interpolate(residuals, (GRID, GRID), mode="area")
    mean = coarse.mean(dim=0)
    variance = (coarse - mean).square().mean(dim=0)
    signal = mean.square().sum(dim=0)
    kept = (1 - variance.sum(dim=0) / (max(count - 1, 1) * signal.clamp(min=1e-6))).clamp(min=0)
    mean = mean * kept
    smooth = functional.interpolate(mean[None], residuals.shape[2:], mode="bilinear")
    left = (residuals - smooth).square().mean(dim=(0, 1), keepdim=True)
    energy = functional.interpolate(left, (GRID, GRID), mode="area")[0]
    return mean, energy.sqrt().clamp(min=SMALLEST_FACTOR)


def spread_layout(
    layout: Layout, size: tuple[int, int]
) -> tuple[Float[Tensor, "1 3 height width"], Float[Tensor, "1 1 height width"]]:
    """Mean and factor at the size of images."""
    mean = functional.interpolate(layout.mean[None], size, mode="bilinear")
    return mean, functional.interpolate(layout.factor[None], size, mode="bilinear")
