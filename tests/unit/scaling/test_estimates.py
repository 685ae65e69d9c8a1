"""Means with confidence, and efficiency, by hand."""

from collections.abc import Callable

import pytest

from dsfedmed_ray.scaling.estimates import Estimate, estimate, rows_of
from dsfedmed_ray.scaling.measurement import Measurement


def test_interval_of_three_runs() -> None:
    """Mean of 1, 2, 3 is 2, s is 1; t(0.975, 2) is 4.3027, divided by sqrt(3): 2.4841."""
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(2.4841, abs=1e-4)


def test_one_run_has_no_interval() -> None:
    assert estimate([5.0]) == Estimate(mean=5.0, half_width=None)


def test_a_row_takes_each_runs_median_and_the_largest_memory(
    measured: Callable[..., Measurement],
) -> None:
    """Rounds of 1, 1 and 10 s have the median 1; those of 3, 3 and 30 s the median 3: mean 2."""
    runs = [measured(10, 1, 1.0, dice=0.5), measured(10, 1, 3.0, repeat=1, dice=0.7)]
    (row,) = rows_of(runs)
    assert (row.num_runs, row.seconds.mean) == (2, 2.0)
    assert row.fastest_seconds == 1.0
    assert row.clients_per_second.mean == pytest.approx((10 / 1 + 10 / 3) / 2)
    assert row.driver_seconds.mean == pytest.approx(0.05)
    assert row.round_bytes == 10_000
    assert row.dice is not None
    assert row.dice.mean == pytest.approx(0.6)
    assert row.memory.driver_peak_rss_bytes == 101
    assert row.memory.worker_peak_rss_bytes is None


def test_simulated_seconds(measured: Callable[..., Measurement]) -> None:
    """Medians of 1, 5, 3 and of 7, 7, 8 are 3 and 7: mean 5. Without a clock there are none."""
    clocks = [[1.0, 5.0, 3.0], [7.0, 7.0, 8.0]]
    runs = [measured(10, 1, 1.0, repeat=i, simulated_seconds=x) for i, x in enumerate(clocks)]
    (row,) = rows_of(runs)
    assert row.simulated_seconds is not None
    assert row.simulated_seconds.mean == 5.0
    (row,) = rows_of([measured(10, 1, 1.0)])
    assert row.simulated_seconds is None


def test_efficiency(measured: Callable[..., Measurement]) -> None:
    """Ten clients: 8 s on one worker, 5 s on two: speed-up 1.6 of 2 is 0.8 strong.

    Ten on one and twenty on two have equal clients a worker: 8 s to 10 s is 0.8 weak.
    """
    runs = [measured(10, 1, 8.0), measured(10, 2, 5.0), measured(20, 2, 10.0)]
    one, two, weak = rows_of(runs)
    assert (one.strong_efficiency, one.weak_efficiency) == (None, None)
    assert two.strong_efficiency == pytest.approx(0.8)
    assert two.weak_efficiency is None
    assert weak.weak_efficiency == pytest.approx(0.8)
    assert weak.strong_efficiency is None


def test_efficiency_compares_one_population_with_itself(
    measured: Callable[..., Measurement],
) -> None:
    runs = [measured(10, 1, 8.0, population=100), measured(10, 2, 5.0, population=200)]
    assert [row.strong_efficiency for row in rows_of(runs)] == [None, None]
