"""The virtual clock, by hand."""

import math
import statistics
from typing import Any

import pytest

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.runtime.availability import Availability
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.failures import FailurePolicy


@pytest.mark.parametrize(
    ("speed", "bandwidth", "seconds"),
    [(60.0, 1.5e6, 4.0), (60.0, None, 2.0), (None, 1.5e6, 2.0), (None, None, 0.0)],
)
def test_seconds_of_a_client(speed: float | None, bandwidth: float | None, seconds: float) -> None:
    """120 samples at 60 a second, and 3 MB at 1.5 MB a second."""
    clock = Availability(samples_per_second=speed, bytes_per_second=bandwidth)
    assert clock.seconds(0, 7, num_samples=120, num_bytes=3_000_000) == seconds


def test_speeds_are_the_clients_own_and_log_normal() -> None:
    """The logarithm of a time has deviation 0.5 over clients, and the median client none."""
    clock = Availability(samples_per_second=1.0, speed_spread=0.5)
    times = [clock.seconds(0, client, num_samples=1, num_bytes=0) for client in range(2000)]
    again = [clock.seconds(0, client, num_samples=1, num_bytes=0) for client in range(2000)]
    assert times == again
    logarithms = [math.log(time) for time in times]
    assert abs(statistics.fmean(logarithms)) < 0.05
    assert abs(statistics.stdev(logarithms) - 0.5) < 0.05
    other = Availability(bytes_per_second=1.0, bandwidth_spread=0.5)
    assert other.seconds(0, 0, num_samples=0, num_bytes=1) != times[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"participation": 0.0}, r"participation is 0\.0; allowed: above 0 up to 1"),
        ({"participation": 1.5}, r"participation is 1\.5"),
        ({"samples_per_second": 0.0}, r"samples_per_second is 0\.0; positive, or null"),
        ({"bytes_per_second": -1.0}, r"bytes_per_second is -1\.0; positive, or null"),
        ({"speed_spread": -0.1}, r"speed_spread is -0\.1; 0 or more"),
        ({"deadline_seconds": 5.0}, r"deadline_seconds needs a clock; give samples_per_second"),
    ],
)
def test_impossible_behaviour(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^runtime\.availability\.{message}"):
        Availability(**changes)


@pytest.mark.parametrize(
    "changes", [{"participation": 0.9}, {"samples_per_second": 1.0, "deadline_seconds": 5.0}]
)
def test_rounds_that_lose_clients_need_a_share_that_is_enough(changes: dict[str, float]) -> None:
    availability = Availability(**changes)
    with pytest.raises(ConfigurationError, match=r"min_replies_fraction=1 asks every client"):
        RuntimeConfig(availability=availability)
    RuntimeConfig(availability=availability, failures=FailurePolicy(min_replies_fraction=0.5))


def test_a_serial_run_cannot_end_a_client() -> None:
    failures = FailurePolicy(client_timeout_seconds=5.0)
    with pytest.raises(ConfigurationError, match=r"client_timeout_seconds is 5, but .*=serial"):
        RuntimeConfig(clients="serial", failures=failures)
    RuntimeConfig(clients="pool", failures=failures)
