"""Does the generator hand out its training images? An audit by nearest distances.

For each synthetic image the distance to its nearest private training image is compared with the
same distance for real images that the generator never saw. A generator that copies lies far nearer
to its training images than new images of the same kind do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dsfedmed_ray.errors import DataError
from dsfedmed_ray.records import Sample

GRID = 32
"""Images are compared at this side, where a copy cannot hide behind grain."""
SMALLEST_RATIO = 0.7
"""Median synthetic distance over median held-out distance; below it the audit raises its flag."""
COPY_FRACTION = 0.35
"""A synthetic image nearer than this part of the median held-out distance counts as a copy."""
LARGEST_COPY_EXCESS = 0.1
"""By how much the share of copies may exceed the same share among held-out real images."""


@dataclass(frozen=True, kw_only=True)
class MemorisationAudit:
    """What the audit found.

    Attributes:
        ratio: median nearest distance of synthetic images over that of held-out real ones; near 1
            is what new images of the same kind give.
        copy_share: share of synthetic images that count as copies, in [0, 1].
        flag: the ratio is too small, or copies are too many beside held-out images.
    """

    ratio: float
    copy_share: float
    flag: bool


def audit_memorisation(
    train: Sequence[Sample], held_out: Sequence[Sample], synthetic: Sequence[Sample]
) -> MemorisationAudit:
    """Compares nearest distances, mirror images of the training set included.

    Args:
        train: what the generator was tuned on.
        held_out: real images of the same site that it was not.
        synthetic: what it drew.

    Raises:
        DataError: one of the three is empty.
    """
    if not (len(train) and len(held_out) and len(synthetic)):
        raise DataError(
            "the memorisation audit needs training, held-out and synthetic images; "
            "raise split.validation_fraction or turn the quality checks off"
        )
    known = small_images(train)
    known = torch.cat([known, known.flip(3)])
    unseen = nearest_distances(small_images(held_out), known)
    found = nearest_distances(small_images(synthetic), known)
    expected = max(float(unseen.median()), 1e-6)
    ratio = float(found.median()) / expected
    limit = COPY_FRACTION * expected
    copy_share = float((found < limit).float().mean())
    excess = copy_share - float((unseen < limit).float().mean())
    return MemorisationAudit(
        ratio=ratio,
        copy_share=copy_share,
        flag=ratio < SMALLEST_RATIO or excess > LARGEST_COPY_EXCESS,
    )


def small_images(samples: Sequence[Sample]) -> Float[Tensor, "count 3 side side"]:
    """Images in [0, 1], averaged to at most 32 pixels a side."""
    # One by one: a large set in floating point at full size would not fit the memory.
    return torch.cat([_small_image(sample.image) for sample in samples])


def _small_image(image: NDArray[np.uint8]) -> Tensor:
    pixels = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0).float() / 255
    return functional.interpolate(pixels, (GRID, GRID), mode="area")


def nearest_distances(
    images: Float[Tensor, "count 3 side side"], known: Float[Tensor, "others 3 side side"]
) -> Float[Tensor, " count"]:
    """Root mean square difference to the nearest known image, in units of intensity."""
    distances = torch.cdist(
        images.flatten(1), known.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    )
    return distances.amin(dim=1) / images[0].numel() ** 0.5
