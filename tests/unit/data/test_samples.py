"""From samples to batches."""

import numpy as np
import torch

from dsfedmed_ray.data.samples import to_batch
from dsfedmed_ray.records import Sample


def test_images_are_scaled_and_channels_come_first() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[1, 2] = (255, 51, 0)
    mask = np.zeros((4, 6, 2), np.uint8)
    mask[3, 5, 1] = 1
    sample = Sample(sample_id="a", image=image, mask=mask)

    images, masks = to_batch([sample, sample])

    assert images.shape == (2, 3, 4, 6)
    assert masks.shape == (2, 2, 4, 6)
    assert images.dtype == masks.dtype == torch.float32
    assert images.is_contiguous()
    torch.testing.assert_close(images[0, :, 1, 2], torch.tensor([1.0, 0.2, 0.0]))
    assert masks[1].sum() == 1
    assert masks[1, 1, 3, 5] == 1
