"""From samples to what a model takes."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dsfedmed_ray.records import Sample


def to_batch(
    samples: Sequence[Sample],
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch structures height width"]]:
    """Stacks samples of one size into images in [0, 1] and masks of 0 and 1, float32."""
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    masks = torch.from_numpy(np.stack([sample.mask for sample in samples]))
    return (
        images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255.0,
        masks.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format),
    )
