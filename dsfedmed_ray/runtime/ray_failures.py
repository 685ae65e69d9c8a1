"""Which errors of Ray mean that a process is gone, and which that there is no room for objects."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)

from dsfedmed_ray.errors import ResourceError

LOST = (
    RayActorError,
    WorkerCrashedError,
    OutOfMemoryError,  # Ray's memory monitor ends a process before the machine has no memory left
    NodeDiedError,
    LocalRayletDiedError,
    ObjectLostError,  # its node left with the answer
)
"""What a call gives whose process or node is gone; none of them is a child of another."""


@contextmanager
def refusing_full_stores() -> Iterator[None]:
    """Says in one line that Ray has no room for objects, wherever in a run it came out.

    Raises:
        ResourceError: the object store is full; the disk may be as well.
    """
    try:
        yield
    except OutOfDiskError as error:
        raise ResourceError(
            "Ray's object store is full, and so is the disk of its temporary folder (/tmp/ray, or "
            "RAY_TMPDIR), where it would spill; free space there, or raise "
            "runtime.object_store_bytes"
        ) from error
    except ObjectStoreFullError as error:
        raise ResourceError(
            "Ray's object store is full of objects in use; raise runtime.object_store_bytes, or on "
            "a cluster that was joined `ray start --object-store-memory`, or lower "
            "runtime.num_workers"
        ) from error
