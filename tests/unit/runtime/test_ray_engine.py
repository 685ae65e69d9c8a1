"""Where ``auto`` puts clients."""

import pytest

from dsfedmed_ray.configuration import build_experiment, compose
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.ray_engine import RayEngine

GIB = 2**30
OBJECT_STORE_BYTES = GIB // 2
"""What Ray takes from the memory that is free before it offers the rest."""


def actors(config: RuntimeConfig, num_clients: int, num_cpus: int, free_bytes: float) -> bool:
    engine = RayEngine.__new__(RayEngine)
    engine._config = config
    cluster = {"CPU": float(num_cpus), "memory": free_bytes - OBJECT_STORE_BYTES}
    return engine._gives_each_client_an_actor(num_clients, cluster)


@pytest.mark.parametrize(
    ("free_gib", "expected"),
    [(22, True), (5, True), (4, False)],
    ids=["of 24 GB", "of 6 GB", "of 5 GB"],
)
def test_the_quickstart_gives_each_client_an_actor(free_gib: float, expected: bool) -> None:
    """Three clients, two CPUs; 3 x 700 MiB = 2.05 GiB, half of (5 - 0.5) GiB = 2.25 GiB.

    Of 4 GiB that are free half of 3.5 GiB would not suffice.
    """
    quickstart = build_experiment(compose(["experiment=quickstart"]))
    split = quickstart.split.apply(quickstart.data.build())
    assert split.num_clients == 3
    assert quickstart.runtime.object_store_bytes == OBJECT_STORE_BYTES
    assert actors(quickstart.runtime, 3, 2, free_gib * GIB) is expected


def test_many_clients_or_a_number_of_workers_make_a_pool() -> None:
    """At most four actors a CPU; memory is plenty."""
    assert actors(RuntimeConfig(), 8, 2, 100 * GIB)
    assert not actors(RuntimeConfig(), 9, 2, 100 * GIB)
    assert not actors(RuntimeConfig(num_workers=3), 3, 2, 100 * GIB)
    assert actors(RuntimeConfig(clients="actors"), 9, 2, GIB)
