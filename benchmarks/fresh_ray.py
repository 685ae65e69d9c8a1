"""A Ray of one's own for a measurement, so that no process has done anything before."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from workload import Workload


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


class PlainTraining:
    """Imports torch and trains one client; torch's first optimiser step imports its compiler."""

    def __init__(self, workload: Workload) -> None:
        workload.train(workload.model(), 0)


def train_plainly(workload: Workload) -> None:
    """A client in each of two new processes: what anybody who trains in Ray waits for."""
    import ray

    actors = [ray.remote(PlainTraining).remote(workload) for _ in range(2)]
    ray.get([actor.__ray_ready__.remote() for actor in actors])
