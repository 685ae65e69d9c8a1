"""The layout of ``mobile_sam.pt`` and ``tinysam.pth``, written down from the published design.

The list uses nothing of the package: TinyViT-5M as SAM's image encoder (widths 64, 128, 160, 320;
depths 2, 2, 6, 2; heads 2, 4, 5, 10; windows 7, 14, 7) with its ImageNet head, and SAM's prompt
encoder and mask decoder. The names agree with a list that others printed from the released file.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dsfedmed_ray.models.sam_segmenter import SamSegmenter
from dsfedmed_ray.models.tinysam import TinySamConfig

Shape = tuple[int, ...]
Entry = tuple[str, Shape]

WIDTHS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (0, 7, 14, 7)


NO_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked", "gaussian_matrix")


def build(input_size: int, **options: Any) -> SamSegmenter:
    config = TinySamConfig(**{"input_size": input_size, "weights": "random", **options})
    return config.build(num_structures=1, image_size=input_size, seed=0)


def test_our_module_has_the_released_names_and_shapes() -> None:
    """439 entries: 302 of the encoder, 17 of the prompt encoder, 120 of the mask decoder.

    A convolution with its norm has 6, so the patch embedding has 2 * 6, layer 0 has 2 * 18, three
    downsamplings have 18 each, ten transformer blocks 19 each (7 + 6 + 6); norm, head and neck have
    2 + 2 + 6. 10,130,092 of the values are parameters, as the authors count (10.13 M).
    """
    layout = released()
    assert len(layout) == 302 + 17 + 120
    parameters = [shape for name, shape in layout.items() if not name.endswith(NO_PARAMETERS)]
    assert sum(math.prod(shape) for shape in parameters) == 10_130_092
    with torch.device("meta"):
        model = build(1024, imagenet_head=True)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == layout


@pytest.mark.parametrize("wrapper", [None, "model"])
@pytest.mark.parametrize("imagenet_head", [True, False])
def test_a_released_file_fits_with_and_without_head(
    tmp_path: Path, imagenet_head: bool, wrapper: str | None
) -> None:
    """Each entry is filled with its place in the list, and arrives under its name."""
    state = {
        name: torch.full(shape, place, dtype=torch.long if not shape else torch.float32)
        for place, (name, shape) in enumerate(released().items())
    }
    torch.save(state if wrapper is None else {wrapper: state}, tmp_path / "tinysam.pth")
    model = build(64, weights=str(tmp_path / "tinysam.pth"), imagenet_head=imagenet_head)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def released() -> dict[str, Shape]:
    """Every entry's name and shape."""
    return {
        **{f"image_encoder.{name}": shape for name, shape in _encoder()},
        **{f"prompt_encoder.{name}": shape for name, shape in _prompt_encoder()},
        **{f"mask_decoder.{name}": shape for name, shape in _mask_decoder()},
    }


def _encoder() -> Iterator[Entry]:
    yield from _conv_norm("patch_embed.seq.0", (32, 3, 3, 3))
    yield from _conv_norm("patch_embed.seq.2", (64, 32, 3, 3))
    for block in range(2):
        yield from _mobile("layers.0.blocks." + str(block), 64, 256, 64)
    for layer in (1, 2, 3):
        yield from _mobile(
            f"layers.{layer - 1}.downsample", WIDTHS[layer - 1], WIDTHS[layer], WIDTHS[layer]
        )
        for block in range(DEPTHS[layer]):
            yield from _transformer(f"layers.{layer}.blocks.{block}", layer)
    yield from _affine("norm_head", 320)
    yield from _linear("head", 320, 1000)
    yield "neck.0.weight", (256, 320, 1, 1)
    yield from _affine("neck.1", 256)
    yield "neck.2.weight", (256, 256, 3, 3)
    yield from _affine("neck.3", 256)


def _mobile(name: str, width_in: int, hidden: int, width_out: int) -> Iterator[Entry]:
    yield from _conv_norm(f"{name}.conv1", (hidden, width_in, 1, 1))
    yield from _conv_norm(f"{name}.conv2", (hidden, 1, 3, 3))
    yield from _conv_norm(f"{name}.conv3", (width_out, hidden, 1, 1))


def _transformer(name: str, layer: int) -> Iterator[Entry]:
    width = WIDTHS[layer]
    yield f"{name}.attn.attention_biases", (HEADS[layer], WINDOWS[layer] ** 2)
    yield from _affine(f"{name}.attn.norm", width)
    yield from _linear(f"{name}.attn.qkv", width, 3 * width)
    yield from _linear(f"{name}.attn.proj", width, width)
    yield from _affine(f"{name}.mlp.norm", width)
    yield from _linear(f"{name}.mlp.fc1", width, 4 * width)
    yield from _linear(f"{name}.mlp.fc2", 4 * width, width)
    yield from _conv_norm(f"{name}.local_conv", (width, 1, 3, 3))


def _prompt_encoder() -> Iterator[Entry]:
    yield "pe_layer.positional_encoding_gaussian_matrix", (2, 128)
    for kind in range(4):
        yield f"point_embeddings.{kind}.weight", (1, 256)
    yield "not_a_point_embed.weight", (1, 256)
    yield "no_mask_embed.weight", (1, 256)
    for index, shape in ((0, (4, 1, 2, 2)), (3, (16, 4, 2, 2)), (6, (256, 16, 1, 1))):
        yield f"mask_downscaling.{index}.weight", shape
        yield f"mask_downscaling.{index}.bias", shape[:1]
    yield from _affine("mask_downscaling.1", 4)
    yield from _affine("mask_downscaling.4", 16)


def _mask_decoder() -> Iterator[Entry]:
    for layer in range(2):
        name = f"transformer.layers.{layer}"
        yield from _attention(f"{name}.self_attn", 256)
        yield from _attention(f"{name}.cross_attn_token_to_image", 128)
        yield from _attention(f"{name}.cross_attn_image_to_token", 128)
        for norm in (1, 2, 3, 4):
            yield from _affine(f"{name}.norm{norm}", 256)
        yield from _linear(f"{name}.mlp.lin1", 256, 2048)
        yield from _linear(f"{name}.mlp.lin2", 2048, 256)
    yield from _attention("transformer.final_attn_token_to_image", 128)
    yield from _affine("transformer.norm_final_attn", 256)
    yield "iou_token.weight", (1, 256)
    yield "mask_tokens.weight", (4, 256)
    yield "output_upscaling.0.weight", (256, 64, 2, 2)
    yield "output_upscaling.0.bias", (64,)
    yield from _affine("output_upscaling.1", 64)
    yield "output_upscaling.3.weight", (64, 32, 2, 2)
    yield "output_upscaling.3.bias", (32,)
    for token in range(4):
        yield from _three_layers(f"output_hypernetworks_mlps.{token}", 32)
    yield from _three_layers("iou_prediction_head", 4)


def _attention(name: str, inner: int) -> Iterator[Entry]:
    for projection in ("q_proj", "k_proj", "v_proj"):
        yield from _linear(f"{name}.{projection}", 256, inner)
    yield from _linear(f"{name}.out_proj", inner, 256)


def _three_layers(name: str, width_out: int) -> Iterator[Entry]:
    for index, width in enumerate((256, 256, width_out)):
        yield from _linear(f"{name}.layers.{index}", 256, width)


def _conv_norm(name: str, kernel: Shape) -> Iterator[Entry]:
    yield f"{name}.c.weight", kernel
    yield from _affine(f"{name}.bn", kernel[0])
    yield f"{name}.bn.running_mean", kernel[:1]
    yield f"{name}.bn.running_var", kernel[:1]
    yield f"{name}.bn.num_batches_tracked", ()


def _affine(name: str, width: int) -> Iterator[Entry]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, width_in: int, width_out: int) -> Iterator[Entry]:
    yield f"{name}.weight", (width_out, width_in)
    yield f"{name}.bias", (width_out,)
