"""Number formats of arithmetic."""

import torch
from torch import nn

from dsfedmed_ray.models.precision import arithmetic, compute_dtype


def test_named_formats() -> None:
    cpu = torch.device("cpu")
    assert compute_dtype("fp32", cpu) == torch.float32
    assert compute_dtype("bf16", cpu) == torch.bfloat16
    assert compute_dtype("fp16", cpu) == torch.float16
    assert compute_dtype("auto", cpu) in (torch.float32, torch.bfloat16)


def test_a_context_around_two_steps_sees_the_weights_of_the_second() -> None:
    """A weight of 2, then of 3, on an input of 1 gives 2, then 3."""
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(2.0)
    with arithmetic("bf16", torch.device("cpu")):
        first = layer(torch.ones(1, 1))
        with torch.no_grad():
            layer.weight.fill_(3.0)
        second = layer(torch.ones(1, 1))
    assert first.dtype == torch.bfloat16
    assert (first.item(), second.item()) == (2.0, 3.0)
