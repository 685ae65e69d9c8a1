"""What a generator says when it cannot do its work."""

from pathlib import Path

import pytest
import torch

from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.runtime.synthetic_store import JobRunner


class TooLarge:
    """A backbone that does not fit the GPU."""

    def build(self, device: str) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0\n...")


def test_a_backbone_that_does_not_fit_the_gpu() -> None:
    uploads: dict[str, Path] = {}
    with pytest.raises(ResourceError, match=r"^the GPU is too small: 2\.5 GB needed; lower .*job"):
        JobRunner(TooLarge(), uploads, torch.get_num_threads(), 0.0)
