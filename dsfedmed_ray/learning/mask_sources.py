"""Where the masks come from that synthetic images are drawn from.

``client`` masks leave the hospital as they are (the paper); ``perturbed`` ones are deformed before
they leave; ``procedural`` ones are drawn by the server, which knows at most areas and perimeters.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dsfedmed_ray.models.procedural_shapes import draw_ellipses
from dsfedmed_ray.records import MaskArray
from dsfedmed_ray.seeding import numpy_generator, torch_generator

LARGEST_ANGLE = np.pi / 12
LARGEST_SCALING = 0.15
LARGEST_SHIFT = 0.08
ELASTIC_SHIFT = 0.03
ELASTIC_GRID = 5


def perturb_masks(
    masks: MaskArray, *, strength: float, seed: int
) -> tuple[MaskArray, Float[Tensor, "count 2 3"]]:
    """Deforms each mask by its own rotation, scaling, shift and smooth elastic displacement.

    Args:
        masks: ``uint8 [count, height, width, structures]`` of 0 and 1.
        strength: 0 leaves the masks, 1 is up to 15 degrees, 15 percent of scale, 8 percent of
            shift and about 3 percent of elastic displacement.
        seed: of the deformations.

    Returns:
        Masks of the same shape, and the affine part of each deformation, as
        ``torch.nn.functional.affine_grid`` takes it. What comes in from beyond the border is the
        mirror image of a mask that the border cuts, as tissue goes on; beside a mask that lies
        whole inside it is ground, since an organ has no second one.
    """
    if not len(masks):
        return masks, torch.zeros(0, 2, 3)
    random = torch_generator(seed, "perturb_masks")
    maps = torch.from_numpy(np.ascontiguousarray(masks.transpose(0, 3, 1, 2))).float()
    affine = _random_affine(len(masks), strength, random)
    grid = functional.affine_grid(affine, [*maps.shape], align_corners=False)
    grid = grid + _elastic_shift(len(masks), maps.shape[2:], random) * strength
    mirrored = functional.grid_sample(maps, grid, padding_mode="reflection", align_corners=False)
    alone = functional.grid_sample(maps, grid, padding_mode="zeros", align_corners=False)
    moved = torch.where(_is_cut(maps).view(-1, 1, 1, 1), mirrored, alone)
    return (moved > 0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy(), affine


def _is_cut(maps: Float[Tensor, "count structures height width"]) -> Tensor:
    """Whether any structure of a mask lies on the image's border."""
    border = torch.cat([maps[:, :, [0, -1]].flatten(1), maps[:, :, :, [0, -1]].flatten(1)], dim=1)
    return border.amax(dim=1) > 0


def _random_affine(count: int, strength: float, random: torch.Generator) -> Tensor:
    """Where each place of the new masks looks, in units of half the side."""

    def between(bound: float) -> Tensor:
        return (torch.rand(count, generator=random) * 2 - 1) * bound * strength

    angle, scaling = between(LARGEST_ANGLE), 1 + between(LARGEST_SCALING)
    cosine, sine = torch.cos(angle) * scaling, torch.sin(angle) * scaling
    across, down = between(2 * LARGEST_SHIFT), between(2 * LARGEST_SHIFT)
    rows = [torch.stack([cosine, -sine, across], 1), torch.stack([sine, cosine, down], 1)]
    return torch.stack(rows, 1)


def _elastic_shift(count: int, size: torch.Size, random: torch.Generator) -> Tensor:
    """A smooth random displacement of each place, in units of half the side."""
    coarse = torch.randn((count, 2, ELASTIC_GRID, ELASTIC_GRID), generator=random)
    elastic = functional.interpolate(coarse, tuple(size), mode="bicubic", align_corners=True)
    return elastic.permute(0, 2, 3, 1) * ELASTIC_SHIFT


def procedural_masks(
    shapes: NDArray[np.float32], *, height: int, width: int, seed: int
) -> MaskArray:
    """Draws masks of wobbly ellipses with the given areas and perimeters.

    N equal discs of radius r have the area a = N pi r^2 and the perimeter p = 2 N pi r, so
    r = 2 a / p and N = a / (pi r^2).

    Args:
        shapes: ``[count, 2]``, area and perimeter as fractions of the image's pixels.
        height: rows, pixels.
        width: columns, pixels.
        seed: of the drawing.

    Returns:
        ``uint8 [count, height, width, 1]`` of 0 and 1: one structure, since areas and perimeters
        do not tell how several lie to each other.
    """
    masks = np.zeros((len(shapes), height, width, 1), np.uint8)
    for index, (area, perimeter) in enumerate(shapes.tolist()):
        if area <= 0:
            continue
        random = numpy_generator(seed, "procedural_masks", index)
        masks[index, :, :, 0] = draw_ellipses(
            random,
            height,
            width,
            area=area * height * width,
            radius_px=2 * area / max(perimeter, 1e-6),
        )
    return masks
