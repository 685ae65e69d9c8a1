"""What all of a client's images have in common, place by place: where organs always lie.

Scans of one body part agree once they are in a common frame (``models/pose.py``), cells on
a slide do not. The layout is the mean and the deviation of the scaled residuals in that frame,
shrunk to nothing where images do not agree, so that slides keep their flat painting. With it comes
the energy of each latent channel, by which sampling keeps an undertrained network from adding noise
that no image of the client has.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dsfedmed_ray.models.pose import Poses, into_common_frame, out_of_common_frame

COARSE_GRID, FINE_GRID = 16, 64
SMALLEST_COUNT = 4
"""Pairs below which there is no layout: a mean of fewer would show them."""
ENOUGH_FOR_DETAIL = 16
"""Pairs from which the layout has the fine grid."""
SMALLEST_FACTOR = 0.1
"""Deviations are lowered to a tenth at most, so that no place is frozen."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Statistics over all of a client's pairs, no single pair's.

    Attributes:
        mean: of the scaled residual in the common frame, ``[3, grid, grid]``.
        factor: what is left of its deviation about that mean, ``[1, grid, grid]``, near 1 at most.
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
    residuals: Float[Tensor, "count 3 height width"], poses: Poses, grid: int
) -> tuple[Float[Tensor, "3 grid grid"], Float[Tensor, "1 grid grid"]]:
    """Mean and remaining deviation of scaled residuals, in the common frame.

    A place's mean is shrunk by ``1 - variance / (count * mean^2)`` (positive-part James-Stein), so
    that what differs from image to image counts as nothing in common.

    Args:
        residuals: (image - painting) / deviation, about unit variance in all.
        poses: of the images.
        grid: places a side.
    """
    count = residuals.shape[0]
    aligned = into_common_frame(residuals, poses, 2 * FINE_GRID)
    coarse = functional.interpolate(aligned, (grid, grid), mode="area")
    mean = coarse.mean(dim=0)
    variance = (coarse - mean).square().mean(dim=0)
    signal = mean.square().sum(dim=0)
    kept = (1 - variance.sum(dim=0) / (max(count - 1, 1) * signal.clamp(min=1e-6))).clamp(min=0)
    mean = mean * kept
    smooth = out_of_common_frame(mean[None], poses, (residuals.shape[2], residuals.shape[3]))
    # Energies are resampled, not values, since interpolating noise would lower its energy.
    left = (residuals - smooth).square().mean(dim=1, keepdim=True)
    energy = into_common_frame(left, poses, 2 * FINE_GRID).mean(dim=0, keepdim=True)
    energy = functional.interpolate(energy, (grid, grid), mode="area")[0]
    return mean, energy.sqrt().clamp(min=SMALLEST_FACTOR)


def spread_layout(
    layout: Layout, poses: Poses, size: tuple[int, int]
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch 1 height width"]]:
    """Mean and factor as images of these poses have them."""
    mean = out_of_common_frame(layout.mean[None], poses, size)
    return mean, out_of_common_frame(layout.factor[None], poses, size)
