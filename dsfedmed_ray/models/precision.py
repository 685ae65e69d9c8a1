"""The number format of networks' arithmetic."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]
PRECISIONS = ("auto", "fp32", "bf16")
"""Of a foundation model. Its gradients would underflow in float16, which generators have too."""


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The format that a precision means on a device.

    ``auto`` is bfloat16 where the hardware computes in it, else float32. Libraries also emulate it,
    at a fraction of float32's speed: that does not count.
    """
    if precision == "auto":
        return torch.bfloat16 if _has_native_bfloat16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def arithmetic(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to the format that a precision means; parameters stay in float32.

    Weights are cast anew at each use. Autocast's cache of them is emptied only where the outermost
    context ends, so that a context around several steps would train on the first step's weights.
    """
    dtype = compute_dtype(precision, device)
    enabled = dtype != torch.float32
    return torch.autocast(device.type, dtype, enabled=enabled, cache_enabled=False)


def _has_native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
