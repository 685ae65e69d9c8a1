"""A SAM of the released classes and names, small enough for unit tests."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from dsfedmed_ray.models.sam_segmenter import build_decoder


@pytest.fixture
def toy_encoder() -> Any:
    """Segment-anything's own ViT for 1024 pixels, without changes."""
    torch.manual_seed(0)
    return make_encoder()


@pytest.fixture
def toy_registry(monkeypatch: pytest.MonkeyPatch) -> Callable[[], nn.Module]:
    """Makes ``vit_b`` a toy; gives what then builds it."""
    from segment_anything import sam_model_registry

    monkeypatch.setitem(sam_model_registry, "vit_b", make_sam)
    return make_sam


def make_encoder() -> Any:
    """Four blocks of width 16, the second and fourth with global attention."""
    from segment_anything.modeling import ImageEncoderViT

    encoder = ImageEncoderViT(
        img_size=1024,
        embed_dim=16,
        depth=4,
        num_heads=1,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1, 3),
    )
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "pos" in name:
                parameter.normal_()
    return encoder.eval()


def make_sam(checkpoint: None = None) -> Any:
    """As segment-anything's registry builds one."""
    from segment_anything.modeling import Sam

    prompt_encoder, mask_decoder = build_decoder(grid_size=64, input_size=1024)
    return Sam(make_encoder(), prompt_encoder, mask_decoder)
