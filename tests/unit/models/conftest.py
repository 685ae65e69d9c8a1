"""A SAM of the released classes and names, small enough for unit tests."""

from typing import Any

import pytest
import torch
from torch import nn

from dsfedmed_ray.models.sam_segmenter import build_decoder
from dsfedmed_ray.models.vit import toy_encoder


@pytest.fixture
def released_encoder() -> nn.Module:
    """Segment-anything's own ViT for 1024 pixels at toy size; its positions are not zero."""
    torch.manual_seed(0)
    encoder = toy_encoder()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "pos" in name:
                parameter.normal_()
    return encoder.eval()


@pytest.fixture
def released_sam(released_encoder: nn.Module) -> Any:
    """Segment-anything's own ``Sam`` around it, as its registry puts one together."""
    from segment_anything.modeling import Sam

    return Sam(released_encoder, *build_decoder(grid_size=64, input_size=1024)).eval()
