"""TinyViT-5M as an image encoder for SAM's mask decoder (Wu et al. 2022, arXiv 2207.10666).

One encoder in the parameter names of the released checkpoints, for two families that differ in the
patch embedding only: LiteMedSAM reads pixels one by one (1x1 convolutions, stride 1), TinySAM and
MobileSAM halve the image twice (3x3 convolutions, stride 2 each).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.tinyvit_blocks import Downsample, MBConv, PatchEmbed, TinyViTBlock

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
NUM_HEADS = (2, 4, 5, 10)
WINDOW_SIZES = (0, 7, 14, 7)
"""Layer 0 is convolutional and has no windows."""
STRIDES = (2, 2, 1)
"""Of the three downsamplings; SAM's variant keeps the grid in the last one."""
EMBEDDING_WIDTH = 256
NUM_IMAGENET_CLASSES = 1000


class Layer(nn.Module):
    """The blocks of one resolution and, but for the last layer, a downsampling."""

    def __init__(self, index: int) -> None:
        super().__init__()
        width, depth = WIDTHS[index], DEPTHS[index]
        self.blocks = nn.ModuleList(
            MBConv(width)
            if index == 0
            else TinyViTBlock(width, NUM_HEADS[index], WINDOW_SIZES[index])
            for _ in range(depth)
        )
        self.downsample = (
            Downsample(width, WIDTHS[index + 1], STRIDES[index]) if index < len(STRIDES) else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Blocks, then the downsampling."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a feature map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        channels_last = x.permute(0, 2, 3, 1)
        normed = functional.layer_norm(
            channels_last, self.weight.shape, self.weight, self.bias, eps=1e-6
        )
        return normed.permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """The encoder, as six stages: patch embedding, four layers, neck.

    Args:
        input_size: side of the square input, pixels.
        patch_stride: 1 (LiteMedSAM) or 4 (TinySAM, MobileSAM).
        imagenet_head: whether the released, unused classification head is part of the state.

    Attributes:
        grid_size: side of the embedding.
        num_stages: six.

    Raises:
        ConfigurationError: ``input_size`` is no multiple of the embedding's stride.
    """

    num_stages = 2 + len(WIDTHS)
    last_stage = num_stages - 2

    def __init__(self, *, input_size: int, patch_stride: int, imagenet_head: bool = False) -> None:
        super().__init__()
        stride = 4 * patch_stride
        if input_size < stride or input_size % stride:
            raise ConfigurationError(
                f"input_size {input_size} does not fit this TinyViT encoder; "
                f"use a multiple of {stride} pixels"
            )
        self.grid_size = input_size // stride
        self.patch_embed = PatchEmbed(WIDTHS[0], patch_stride)
        self.layers = nn.ModuleList(Layer(index) for index in range(len(WIDTHS)))
        if imagenet_head:
            self.norm_head = nn.LayerNorm(WIDTHS[-1])
            self.head = nn.Linear(WIDTHS[-1], NUM_IMAGENET_CLASSES)
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], EMBEDDING_WIDTH, 1, bias=False),
            ChannelNorm(EMBEDDING_WIDTH),
            nn.Conv2d(EMBEDDING_WIDTH, EMBEDDING_WIDTH, 3, padding=1, bias=False),
            ChannelNorm(EMBEDDING_WIDTH),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def stage(self, index: int) -> nn.Module:
        """The module of one stage."""
        return [self.patch_embed, *self.layers, self.neck][index]

    def stage_parameters(self, index: int) -> list[nn.Parameter]:
        """The parameters of one stage."""
        return list(self.stage(index).parameters())

    def run_stages(self, x: Tensor, first: int, last: int) -> Tensor:
        """Applies the stages ``first <= i < last`` to what the stage before ``first`` gave."""
        for index in range(first, last):
            x = self.stage(index)(x)
        return x

    def forward(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch 256 grid grid"]:
        """The embedding of images scaled as the weights expect."""
        return self.run_stages(images, 0, self.num_stages)
