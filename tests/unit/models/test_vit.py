"""The staged ViT against segment-anything's own forward."""

from typing import Any

import pytest
import torch

from dsfedmed_ray.models.vit import StagedViT, resize_positions


@torch.no_grad()
def test_same_numbers_as_the_unmodified_forward_at_1024_px(released_encoder: Any) -> None:
    images = torch.randn(1, 3, 1024, 1024)
    expected = released_encoder(images)
    assert torch.equal(StagedViT(released_encoder, grid_size=64)(images), expected)


def test_names_are_the_released_ones(released_encoder: Any) -> None:
    names = list(released_encoder.state_dict())
    assert list(StagedViT(released_encoder, grid_size=64).state_dict()) == names


@pytest.mark.parametrize("grid_size", [16, 32])
@torch.no_grad()
def test_smaller_inputs_take_interpolated_positions(released_encoder: Any, grid_size: int) -> None:
    """The same as an encoder of that size whose parameters were interpolated beforehand."""
    from segment_anything.modeling import ImageEncoderViT
    from segment_anything.modeling.image_encoder import get_rel_pos

    small = ImageEncoderViT(
        img_size=16 * grid_size,
        embed_dim=16,
        depth=4,
        num_heads=1,
        norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1, 3),
    )
    state = released_encoder.state_dict()
    state["pos_embed"] = torch.nn.functional.interpolate(
        state["pos_embed"].permute(0, 3, 1, 2), (grid_size, grid_size), mode="bicubic"
    ).permute(0, 2, 3, 1)
    for name, value in state.items():
        if "rel_pos" in name and value.shape[0] == 127:
            table = get_rel_pos(grid_size, grid_size, value)
            state[name] = torch.cat([table[0].flip(0), table[1:, 0]])
    small.load_state_dict(state)
    images = torch.randn(1, 3, 16 * grid_size, 16 * grid_size)
    own = StagedViT(released_encoder, grid_size)
    torch.testing.assert_close(own(images), small(images), atol=1e-5, rtol=1e-4)


def test_resized_positions_keep_a_constant() -> None:
    """Interpolation weights sum to one."""
    resized = resize_positions(torch.full((1, 64, 64, 2), 3.0), 16)
    torch.testing.assert_close(resized, torch.full((1, 16, 16, 2), 3.0))


def test_stages(released_encoder: Any) -> None:
    """Patches, four blocks, neck; blocks 2 and 3 follow the last but one global block 1."""
    encoder = StagedViT(released_encoder, grid_size=16)
    assert encoder.num_stages == 6
    assert encoder.last_stage == 3
    staged = [p for i in range(6) for p in encoder.stage_parameters(i)]
    assert {id(p) for p in staged} == {id(p) for p in encoder.parameters()}
    images = torch.randn(1, 3, 256, 256)
    first = encoder.run_stages(images, 0, 3)
    assert torch.equal(encoder.run_stages(first, 3, 6), encoder(images))
