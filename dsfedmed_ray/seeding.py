"""One rule for every random stream: a stream is a pure function of its name.

A name is a tuple such as ``(run_seed, "train_federated", round_index, client_id)``. Nothing in the
package draws from a global generator, so the same name gives the same numbers in any process, in
any order and under any placement.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch


def derive_seed(*name: int | str) -> int:
    """Maps a stream's name to a seed in [0, 2**63).

    Args:
        *name: integers and strings; ``("1",)`` and ``(1,)`` are different names.

    Raises:
        TypeError: a part is neither an integer nor a string.
    """
    for part in name:
        if not isinstance(part, int | str) or isinstance(part, bool):
            raise TypeError(f"a stream's name holds int and str only, got {part!r}")
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in name)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def torch_generator(*name: int | str) -> torch.Generator:
    """A CPU generator for the named stream."""
    return torch.Generator().manual_seed(derive_seed(*name))


def numpy_generator(*name: int | str) -> np.random.Generator:
    """A NumPy generator for the named stream."""
    return np.random.Generator(np.random.PCG64(derive_seed(*name)))


@contextmanager
def named_torch_stream(*name: int | str) -> Iterator[None]:
    """Runs a block with torch's global generators seeded by name, then restores them.

    For code of others that draws from the global generator (layer initialisation, dropout).
    """
    seed = derive_seed(*name)
    if _has_cuda():
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
        return
    # On the CPU alone: torch's own functions, asked in every round, take a hundred times as long.
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


@cache
def _has_cuda() -> bool:
    return torch.cuda.is_available()
