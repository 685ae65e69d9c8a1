"""The TinyViT encoder by itself; its numbers are compared with a reference in test_litemedsam."""

import pytest
import torch

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.tinyvit import TinyViT


@pytest.mark.parametrize(("patch_stride", "input_size", "grid_size"), [(1, 32, 8), (4, 64, 4)])
def test_grid(patch_stride: int, input_size: int, grid_size: int) -> None:
    """Two of three downsamplings halve the grid: the embedding's stride is 4 x the patch's."""
    encoder = TinyViT(input_size=input_size, patch_stride=patch_stride).eval()
    assert encoder.grid_size == grid_size
    images = torch.rand(2, 3, input_size, input_size)
    embedding = encoder(images)
    assert embedding.shape == (2, 256, grid_size, grid_size)


def test_stages_in_two_parts_are_the_whole() -> None:
    encoder = TinyViT(input_size=32, patch_stride=1).eval()
    images = torch.rand(1, 3, 32, 32)
    first = encoder.run_stages(images, 0, encoder.last_stage)
    assert torch.equal(encoder.run_stages(first, encoder.last_stage, 6), encoder(images))


def test_every_parameter_belongs_to_one_stage() -> None:
    encoder = TinyViT(input_size=32, patch_stride=1)
    staged = [p for i in range(encoder.num_stages) for p in encoder.stage_parameters(i)]
    assert {id(p) for p in staged} == {id(p) for p in encoder.parameters()}
    assert len(staged) == len(list(encoder.parameters()))


@pytest.mark.parametrize(("patch_stride", "multiple"), [(1, 4), (4, 16)])
def test_impossible_input_size(patch_stride: int, multiple: int) -> None:
    with pytest.raises(ConfigurationError, match=f"input_size 130 .* multiple of {multiple} pix"):
        TinyViT(input_size=130, patch_stride=patch_stride)
