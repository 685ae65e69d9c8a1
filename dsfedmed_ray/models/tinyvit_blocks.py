"""The blocks of TinyViT, in the parameter names of the released checkpoints.

Feature maps are ``[batch, channels, height, width]`` everywhere; windows exist only inside
attention.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4
"""Hidden over outer width, in convolutional blocks and in MLPs."""


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
