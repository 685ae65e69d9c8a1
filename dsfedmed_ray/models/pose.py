"""Where the subject of an image lies: position, size and slant, from moments of intensity.

Scans of one body part agree place by place once each is brought into a common frame, in which the
subject is centred and has unit spread. On slides without a subject poses hardly differ.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

POSE_SIZE = 6
"""Numbers of a pose, which end a style."""
REACH = 2.5
"""Half the side of the common frame, in standard deviations of the subject."""
SMALLEST_SPREAD, LARGEST_SPREAD = 0.2, 0.8
"""Of a subject, in half sides of the image; a uniform image has 0.58."""
BRIGHT_ENOUGH = 0.5
"""Contrast to the border, over the largest one, from which a pixel counts in full."""

Poses = Float[Tensor, "batch 2 3"]
"""Affine maps from the common frame to image coordinates, (x, y) in [-1, 1]."""


def image_poses(images: Float[Tensor, "batch channels height width"]) -> Poses:
    """Centre and spread of what differs from the images' borders.

    The linear part is the symmetric root of the covariance, so that a mirrored or turned image has
    the mirrored or turned pose, and inverted contrasts change nothing.
    """
    grey = images.mean(dim=1)
    border = torch.cat([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], dim=1)
    contrast = (grey - border.median(dim=1).values[:, None, None]).abs()
    weights = contrast / contrast.amax(dim=(1, 2), keepdim=True).clamp(min=1e-3)
    weights = weights.clamp(max=BRIGHT_ENOUGH) + 1e-4  # an empty image has a uniform one's pose
    weights = weights / weights.sum(dim=(1, 2), keepdim=True)
    x, y = _coordinates(grey.shape[1:], grey.device)
    places = torch.stack([x.expand_as(grey), y.expand_as(grey)], dim=1)
    centre = (weights[:, None] * places).sum(dim=(2, 3))
    offset = places - centre[:, :, None, None]
    covariance = torch.einsum("bhw,bihw,bjhw->bij", weights, offset, offset)
    variances, axes = torch.linalg.eigh(covariance)
    spread = variances.clamp(min=0).sqrt().clamp(SMALLEST_SPREAD, LARGEST_SPREAD)
    linear = axes @ torch.diag_embed(spread) @ axes.transpose(1, 2)
    return torch.cat([linear, centre[:, :, None]], dim=2)


def into_common_frame(
    images: Float[Tensor, "batch channels height width"], poses: Poses, size: int
) -> Float[Tensor, "batch channels size size"]:
    """What the images show in the common frame; borders go on outwards."""
    theta = torch.cat([poses[:, :, :2] * REACH, poses[:, :, 2:]], dim=2)
    return _sampled(images, theta, (size, size))


def out_of_common_frame(
    maps: Float[Tensor, "1 channels grid grid"], poses: Poses, size: tuple[int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Maps of the common frame as images of these poses show them."""
    count = poses.shape[0]
    return _sampled(maps.expand(count, -1, -1, -1), inverse(poses) / REACH, size)


def moved(poses: Poses, moves: Poses) -> Poses:
    """Poses after images were deformed.

    Args:
        poses: before.
        moves: the affine part of the deformation, as ``affine_grid`` takes it: where each place of
            the new image looks in the old one.
    """
    back = inverse(moves)
    linear = back[:, :, :2] @ poses[:, :, :2]
    centre = back[:, :, :2] @ poses[:, :, 2:] + back[:, :, 2:]
    return torch.cat([linear, centre], dim=2)


def inverse(affine: Poses) -> Poses:
    """The inverse of each affine map."""
    linear = torch.linalg.inv(affine[:, :, :2])
    return torch.cat([linear, -linear @ affine[:, :, 2:]], dim=2)


def split_style(style: Float[Tensor, "batch style"]) -> tuple[Tensor, Poses]:
    """Region statistics, flat, and the pose of each style."""
    return style[:, :-POSE_SIZE], style[:, -POSE_SIZE:].reshape(-1, 2, 3)


def join_style(statistics: Float[Tensor, "batch statistics"], poses: Poses) -> Tensor:
    """The inverse of :func:`split_style`."""
    return torch.cat([statistics, poses.flatten(1)], dim=1)


def _coordinates(size: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres of pixels, the image spanning -1 to 1."""
    rows, columns = (
        (torch.arange(count, device=device) + 0.5) * 2 / count - 1 for count in (size[0], size[1])
    )
    return columns.view(1, 1, -1), rows.view(1, -1, 1)


def _sampled(maps: Tensor, theta: Tensor, size: tuple[int, int]) -> Tensor:
    grid = functional.affine_grid(theta, [maps.shape[0], 1, *size], align_corners=False)
    return functional.grid_sample(maps, grid, padding_mode="border", align_corners=False)
