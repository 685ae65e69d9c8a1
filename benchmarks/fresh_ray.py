"""A Ray of one's own for a measurement, so that no process has done anything before."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def own_ray() -> Iterator[None]:
    """Two CPUs of Ray for the time of a block."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        logging_level=40,
        object_store_memory=256 * 2**20,
    )
    try:
        yield
    finally:
        ray.shutdown()


def seconds_in_own_ray(work: Callable[[], None]) -> float:
    """From ``ray.init`` returning to the end of some work."""
    with own_ray():
        started = time.perf_counter()
        work()
        return time.perf_counter() - started


class TorchImporter:
    def __init__(self) -> None:
        import torch  # noqa: F401


def import_torch() -> None:
    """Two new processes import torch: what anybody who trains in Ray waits for."""
    import ray

    actors = [ray.remote(TorchImporter).remote() for _ in range(2)]
    ray.get([actor.__ray_ready__.remote() for actor in actors])
