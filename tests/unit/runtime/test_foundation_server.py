"""What the foundation model's server says when it cannot do its work."""

from pathlib import Path

import pytest
import torch

from dsfedmed_ray.data.brain_sites import BrainSitesConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut
from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.models.litemedsam import LiteMedSAMConfig
from dsfedmed_ray.models.sam_segmenter import SamSegmenter
from dsfedmed_ray.runtime.foundation_server import FoundationServer, FoundationSettings


def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 ...\nmore")


def test_a_model_that_does_not_fit_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is built on the CPU, and moving it is what fails."""
    split = LeaveOneSiteOut().apply(BrainSitesConfig(image_size=64).build())
    settings = FoundationSettings(
        model=LiteMedSAMConfig(input_size=64, weights="random"),
        split=split,
        seed=0,
        embeddings_folder=tmp_path,
    )
    monkeypatch.setattr(SamSegmenter, "to", full)
    with pytest.raises(ResourceError, match=r"^the GPU is too small: 2\.5 GB needed; lower"):
        FoundationServer(settings)
