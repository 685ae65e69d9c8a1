"""Where a role computes: the only place that asks for CUDA, and that counts threads."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.units import format_bytes

_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
"""In which torch writes sizes."""


def cpus_here() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_device(num_gpus: float) -> None:
    """Checks that a share of a GPU can be had in this process.

    Raises:
        ResourceError: a GPU was promised and CUDA is not there.
    """
    if num_gpus > 0 and not torch.cuda.is_available():
        raise ResourceError(
            f"num_gpus={num_gpus:g} was asked for, but this process sees no CUDA device; "
            "install a CUDA build of torch or set num_gpus=0"
        )


def role_device(num_gpus: float) -> torch.device:
    """The device of a role that was given a share of a GPU.

    A share below one also caps the process's memory, since Ray counts fractions but enforces none.

    Args:
        num_gpus: 0 for the CPU.

    Raises:
        ResourceError: a GPU was promised and CUDA is not there.
    """
    require_device(num_gpus)
    if num_gpus <= 0:
        return torch.device("cpu")
    if num_gpus < 1:
        torch.cuda.set_per_process_memory_fraction(num_gpus)
    return torch.device("cuda")


@contextmanager
def role_threads(num_threads: int) -> Iterator[None]:
    """Runs a block with a role's torch threads, then restores those of the process.

    The number of threads decides how sums are split, and so their last bits. In serial runs several
    roles share one process; each gets its own count, as it would in a process of its own.

    Raises:
        ResourceError: the block needed more GPU memory than there is.
    """
    before = torch.get_num_threads()
    set_threads(num_threads)
    try:
        with refusing_full_gpus():
            yield
    finally:
        set_threads(before)


@contextmanager
def refusing_full_gpus() -> Iterator[None]:
    """Says in one line that a GPU is too small, where torch says it over many.

    Raises:
        ResourceError: the block needed more GPU memory than there is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ResourceError(_gpu_too_small(str(error))) from error


def set_threads(num_threads: int) -> None:
    """Sets this process's torch threads.

    Setting them empties oneDNN's cache of compiled kernels, also where the number stays, and the
    next training step would pay for it: so nothing is set that is set already.
    """
    _own_threads()
    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)


@cache
def _own_threads() -> None:
    """Once a process: until somebody sets a number, MKL may take fewer threads, and other bits."""
    torch.set_num_threads(torch.get_num_threads())


def _gpu_too_small(message: str) -> str:
    """What was needed in all, what there is, and the remedy."""
    asked = _size(r"Tried to allocate {}", message)
    held = _size(r"{} is allocated by PyTorch", message) or 0.0
    allowed, capacity = _size(r"{} allowed", message), _size(r"total capacity of {}", message)
    needed = "more memory was needed" if asked is None else f"{format_bytes(held + asked)} needed"
    if asked is not None and held:
        needed += f" ({format_bytes(held)} held, {format_bytes(asked)} asked for)"
    if allowed is not None:
        needed += f", {format_bytes(allowed)} allowed to this role"
    if capacity is not None:
        needed += f", {format_bytes(capacity)} on the GPU"
    return (
        f"the GPU is too small: {needed}; lower batch_size, data.image_size, the model's "
        "input_size or generator.images_per_job, or give the role a larger share with "
        "runtime.resources"
    )


def _size(pattern: str, message: str) -> float | None:
    found = re.search(pattern.format(r"([\d.]+) (bytes|[KMG]iB)"), message)
    return None if found is None else float(found[1]) * _UNITS[found[2]]
