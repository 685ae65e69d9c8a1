"""TinyViT-5M as an image encoder for SAM's mask decoder (Wu et al. 2022, arXiv 2207.10666).

One encoder in the parameter names of the released checkpoints, for two families that differ in the
patch embedding only: LiteMedSAM reads pixels one by one (1x1 convolutions, stride 1), TinySAM and
MobileSAM halve the image twice (3x3 convolutions, stride 2 each). Feature maps are
``[batch, channels, height, width]`` everywhere; windows exist only inside attention.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dsfedmed_ray.errors import ConfigurationError

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
NUM_HEADS = (2, 4, 5, 10)
WINDOW_SIZES = (0, 7, 14, 7)
"""Layer 0 is convolutional and has no windows."""
STRIDES = (2, 2, 1)
"""Of the three downsamplings; SAM's variant keeps the grid in the last one."""
EXPANSION = 4
EMBEDDING_WIDTH = 256
NUM_IMAGENET_CLASSES = 1000


class ConvNorm(nn.Module):
    """A convolution without bias, then BatchNorm; in evaluation mode folded into one convolution.

    Args:
        width_in: input channels.
        width_out: output channels.
        kernel_size: odd; the padding keeps the size.
        stride: of the convolution.
        groups: of the convolution.
    """

    def __init__(
        self, width_in: int, width_out: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            width_in,
            width_out,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(width_out)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves and normalises."""
        conv, norm = self.c, self.bn
        if norm.training:
            normed: Tensor = norm(conv(x))
            return normed
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return functional.conv2d(
            x,
            conv.weight * scale[:, None, None, None],
            norm.bias - norm.running_mean * scale,
            conv.stride,
            conv.padding,
            groups=conv.groups,
        )


class PatchEmbed(nn.Module):
    """Pixels to the first feature map; ``patch_stride`` is 1 (LiteMedSAM) or 4 (TinySAM)."""

    def __init__(self, width: int, patch_stride: int) -> None:
        super().__init__()
        kernel_size, stride = (1, 1) if patch_stride == 1 else (3, 2)
        self.seq = nn.Sequential(
            ConvNorm(3, width // 2, kernel_size, stride),
            nn.GELU(),
            ConvNorm(width // 2, width, kernel_size, stride),
        )

    def forward(self, x: Tensor) -> Tensor:
        """From scaled images to the first feature map."""
        features: Tensor = self.seq(x)
        return features


class MBConv(nn.Module):
    """An inverted residual block: widen, depthwise 3x3, narrow."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * EXPANSION
        self.conv1 = ConvNorm(width, hidden)
        self.conv2 = ConvNorm(hidden, hidden, kernel_size=3, groups=hidden)
        self.conv3 = ConvNorm(hidden, width)
        nn.init.zeros_(self.conv3.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        hidden = functional.gelu(self.conv1(x))
        hidden = functional.gelu(self.conv2(hidden))
        return functional.gelu(x + self.conv3(hidden))


class Downsample(nn.Module):
    """From one layer's width and grid to the next one's."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width_in, width_out)
        self.conv2 = ConvNorm(width_out, width_out, kernel_size=3, stride=stride, groups=width_out)
        self.conv3 = ConvNorm(width_out, width_out)

    def forward(self, x: Tensor) -> Tensor:
        """Changes width, and grid by the stride."""
        hidden = functional.gelu(self.conv1(x))
        return self.conv3(functional.gelu(self.conv2(hidden)))


class WindowAttention(nn.Module):
    """Self-attention within square windows, with one learned bias a head and distance.

    A grid that the window does not divide is padded below and to the right with zeros, which take
    part in attention: so the released models were trained.
    """

    attention_bias_idxs: Tensor

    def __init__(self, width: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window_size**2))
        rows = torch.arange(window_size).repeat_interleave(window_size)
        columns = torch.arange(window_size).repeat(window_size)
        distances = (rows[:, None] - rows).abs() * window_size + (columns[:, None] - columns).abs()
        self.register_buffer("attention_bias_idxs", distances, persistent=False)

    def forward(self, x: Float[Tensor, "b height width c"]) -> Float[Tensor, "b height width c"]:
        """Attends within windows; the same shape comes back."""
        batch, height, width, channels = x.shape
        window = self.window_size
        below, right = -height % window, -width % window
        x = functional.pad(x, (0, 0, 0, right, 0, below))
        rows, columns = (height + below) // window, (width + right) // window
        x = x.view(batch, rows, window, columns, window, channels).transpose(2, 3)
        x = self._attend(x.reshape(-1, window * window, channels))
        x = x.view(batch, rows, columns, window, window, channels).transpose(2, 3)
        x = x.reshape(batch, rows * window, columns * window, channels)
        return x[:, :height, :width]

    def _attend(self, tokens: Float[Tensor, "windows n c"]) -> Float[Tensor, "windows n c"]:
        qkv = self.qkv(self.norm(tokens)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        query, key, value = qkv.chunk(3, dim=-1)
        bias = self.attention_biases[:, self.attention_bias_idxs].to(query.dtype)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected


class Mlp(nn.Module):
    """A LayerNorm and two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width * EXPANSION)
        self.fc2 = nn.Linear(width * EXPANSION, width)

    def forward(self, x: Tensor) -> Tensor:
        """Works on the last dimension."""
        hidden = functional.gelu(self.fc1(self.norm(x)))
        widened: Tensor = self.fc2(hidden)
        return widened


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise convolution that crosses windows, and an MLP."""

    def __init__(self, width: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.attn = WindowAttention(width, num_heads, window_size)
        self.mlp = Mlp(width)
        self.local_conv = ConvNorm(width, width, kernel_size=3, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        x = x + self.attn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x)
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


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
