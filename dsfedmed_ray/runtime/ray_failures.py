"""What errors of Ray mean: a process is gone, no room for objects, or an error of this package."""

import re
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
    RayError,
    WorkerCrashedError,
)

from dsfedmed_ray import errors
from dsfedmed_ray.errors import ResourceError, UserError, WorkerLostError

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


_OF_A_USER = re.compile(r"^dsfedmed_ray\.errors\.(\w+): (.+)$", re.MULTILINE)
"""How a traceback ends that ends with an error of this package."""


def user_error_in(error: RayError) -> UserError | None:
    """What the user can mend, of what another process raised.

    Ray hands over the exception of a plain call alone. Of what a constructor or a function in a
    dataset raised it keeps the traceback's text.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return cause
    for name, message in reversed(_OF_A_USER.findall(str(error))):
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, UserError):
            return kind(message)
    return None


@contextmanager
def unwrapping_user_errors() -> Iterator[None]:
    """Raises in one line what another process raised, where Ray wraps it in a traceback.

    Raises:
        UserError: of the other process.
    """
    try:
        yield
    except RayError as error:
        found = user_error_in(error)
        if found is None:
            raise
        raise found from error


def failed_start(who: str, error: RayError) -> UserError | WorkerLostError:
    """Why an actor cannot start; it will not the next time either."""
    reason = str(error).strip().splitlines()[-1]
    return user_error_in(error) or WorkerLostError(f"{who} cannot start: {reason}")
