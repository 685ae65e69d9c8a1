"""Memory that a process has freed but still holds."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def returning_memory() -> Iterator[None]:
    """Around work that needs much memory for a while; also a decorator.

    At its end freed heap goes back to the system: glibc's ``malloc_trim``; elsewhere nothing
    happens. What a tuning or a scoring leaves behind is scattered over glibc's arenas and would
    stay with the process. A client's actor lives as long as its run, and each client has one.
    """
    try:
        yield
    finally:
        library = ctypes.CDLL(None) if sys.platform == "linux" else None
        trim = getattr(library, "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
