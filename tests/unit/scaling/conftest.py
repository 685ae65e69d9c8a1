"""Measurements made by hand: a round's seconds follow a known law."""

from collections.abc import Callable, Sequence

import pytest

from dsfedmed_ray.scaling.grid import GridPoint
from dsfedmed_ray.scaling.measurement import Measurement
from dsfedmed_ray.scaling.process_memory import ProcessMemory

MakeMeasurement = Callable[..., Measurement]


@pytest.fixture
def measured() -> MakeMeasurement:
    """A run of some rounds of equal length; 1000 bytes a client, and a driver that is idle."""

    def make(
        clients: int,
        workers: int,
        seconds: float,
        *,
        repeat: int = 0,
        population: int | None = None,
        dice: float | None = None,
        gpus: int = 0,
        driver_seconds: float = 0.05,
        simulated_seconds: Sequence[float] = (),
    ) -> Measurement:
        return Measurement(
            point=GridPoint(clients=clients, workers=workers, gpus=gpus, population=population),
            repeat=repeat,
            round_seconds=[seconds, seconds, 10 * seconds],
            driver_seconds=[driver_seconds] * 3,
            round_bytes=1000.0 * clients,
            dice=dice,
            memory=ProcessMemory(
                driver_peak_rss_bytes=100 + repeat,
                driver_pss_bytes=90,
                worker_peak_rss_bytes=None,
                worker_pss_bytes=None,
            ),
            num_cpus=2,
            simulated_seconds=simulated_seconds,
        )

    return make
