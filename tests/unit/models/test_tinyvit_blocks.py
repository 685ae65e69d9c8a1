"""The blocks of TinyViT against plain loops."""

import torch
from torch import Tensor

from dsfedmed_ray.models.tinyvit_blocks import ConvNorm, WindowAttention


def test_folded_convolution_is_convolution_then_norm() -> None:
    """(w x - m) / s * g + b, whether in one step or in two."""
    layer = ConvNorm(3, 5, kernel_size=3, stride=2)
    with torch.no_grad():
        for value in (layer.bn.running_mean, layer.bn.weight, layer.bn.bias):
            value.normal_()
        layer.bn.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 9, 9)
    layer.eval()
    torch.testing.assert_close(layer(x), layer.bn(layer.c(x)), atol=1e-5, rtol=1e-5)
    layer.train()
    before = layer.bn.running_mean.clone()
    layer(x)
    assert not torch.equal(layer.bn.running_mean, before)


def plain_attention(attention: WindowAttention, window: Tensor) -> Tensor:
    """Softmax attention of one window ``[size, size, c]``, pixel by pixel."""
    size, _, channels = window.shape
    tokens = attention.norm(window.reshape(-1, channels))
    heads = attention.qkv(tokens).view(size * size, attention.num_heads, 3, -1)
    mixed = torch.zeros(size * size, attention.num_heads, channels // attention.num_heads)
    for head in range(attention.num_heads):
        query, key, value = heads[:, head].unbind(1)
        for i in range(size * size):
            logits = (key @ query[i]) / query.shape[-1] ** 0.5
            for j in range(size * size):
                rows, columns = abs(i // size - j // size), abs(i % size - j % size)
                logits[j] += attention.attention_biases[head, rows * size + columns]
            mixed[i, head] = logits.softmax(0) @ value
    return attention.proj(mixed.flatten(1)).view(size, size, channels)


def test_attention_stays_in_its_window_and_pads_with_zeros() -> None:
    """A 3 x 2 grid with windows of 2: below the third row come zeros, which are attended to."""
    attention = WindowAttention(width=4, num_heads=2, window_size=2)
    with torch.no_grad():
        attention.attention_biases.normal_()
        attention.norm.bias.normal_()
        grid = torch.randn(1, 3, 2, 4)
        attended = attention(grid)
        torch.testing.assert_close(attended[0, :2], plain_attention(attention, grid[0, :2]))
        padded = torch.cat([grid[0, 2:], torch.zeros(1, 2, 4)])
        torch.testing.assert_close(attended[0, 2], plain_attention(attention, padded)[0])
