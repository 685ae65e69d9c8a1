"""Where a role computes: the only place that asks for CUDA, and that counts threads."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from dsfedmed_ray.errors import ResourceError


def role_device(num_gpus: float) -> torch.device:
    """The device of a role that was given a share of a GPU.

    A share below one also caps the process's memory, since Ray counts fractions but enforces none.

    Args:
        num_gpus: 0 for the CPU.

    Raises:
        ResourceError: a GPU was promised and CUDA is not there.
    """
    if num_gpus <= 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ResourceError(
            f"num_gpus={num_gpus:g} was asked for, but this process sees no CUDA device; "
            "install a CUDA build of torch or set num_gpus=0"
        )
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
        yield
    except torch.OutOfMemoryError as error:
        raise ResourceError(_gpu_too_small(str(error))) from error
    finally:
        set_threads(before)


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
    """What torch says over many lines about a full GPU, in one line with the remedy."""
    asked = re.search(r"Tried to allocate ([\d.]+ \w+)", message)
    capacity = re.search(r"total capacity of ([\d.]+ \w+)", message)
    return (
        f"the GPU is too small: {asked[1] + ' more' if asked else 'more memory'} was needed"
        + (f" of {capacity[1]}" if capacity else "")
        + "; lower batch_size, data.image_size or the model's input_size, or give the role a "
        "larger share with runtime.resources"
    )
