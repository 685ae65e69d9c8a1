"""Number formats of arithmetic."""

import pytest
import torch
from torch import nn

from dsfedmed_ray.models.precision import arithmetic, compute_dtype


def test_named_formats() -> None:
    cpu = torch.device("cpu")
    assert compute_dtype("fp32", cpu) == torch.float32
    assert compute_dtype("bf16", cpu) == torch.bfloat16
    assert compute_dtype("fp16", cpu) == torch.float16


@pytest.mark.parametrize(
    ("avx512", "amx", "dtype"),
    [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
    ],
)
def test_auto_is_bfloat16_where_a_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, dtype: torch.dtype
) -> None:
    """The library oneDNN says yes to any processor with AVX-512, where it emulates."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert compute_dtype("auto", torch.device("cpu")) == dtype


def test_emulation_on_a_gpu_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card before Ampere supports bfloat16 by emulation alone."""

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert compute_dtype("auto", torch.device("cuda")) == torch.float32


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
