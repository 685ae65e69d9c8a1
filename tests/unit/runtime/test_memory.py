"""Freed memory goes back to the system."""

import ctypes
import sys
from pathlib import Path

import pytest

from dsfedmed_ray.runtime.memory import returning_memory


def resident_bytes() -> int:
    """Second number of ``statm``, in pages of 4096 bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="glibc's allocator alone keeps freed memory in this way",
)
def test_freed_blocks_below_one_in_use_are_returned() -> None:
    """64 MiB in blocks of 64 KiB, the last of them in use: without a trim the heap cannot shrink.

    glibc serves blocks of this size from the heap, whose end moves only past free memory.
    """
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    size, count = 64 * 1024, 1024
    blocks = [library.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    full = resident_bytes()
    with returning_memory():
        for block in blocks[:-1]:
            library.free(block)
    assert full - resident_bytes() > 48 * 2**20
    library.free(blocks[-1])


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS there is nothing to call, and nothing is called."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("a library was opened"))
    with returning_memory():
        pass
