"""The fitted law, its error on points that it has not seen, and predictions."""

from collections.abc import Callable, Sequence

import pytest

from dsfedmed_ray.scaling.cost_model import CostModel, fit_cost_model
from dsfedmed_ray.scaling.estimates import PointRow, rows_of
from dsfedmed_ray.scaling.measurement import Measurement

GRID = [(100, 1), (200, 1), (400, 1), (100, 2), (200, 2), (400, 2)]


def law(clients: int, workers: int) -> float:
    """Half a second, 10 ms a client and worker, and 2 microseconds a byte at 1000 a client."""
    return 0.5 + 0.01 * clients / workers + 2e-6 * 1000 * clients


def driver(clients: int) -> float:
    """The driver's part of the law: 50 ms and 2 microseconds a byte."""
    return 0.05 + 2e-6 * 1000 * clients


@pytest.fixture
def obeying(measured: Callable[..., Measurement]) -> Callable[[int, int, float], Measurement]:
    """A run that obeys the law, times a factor."""

    def run(clients: int, workers: int, factor: float = 1.0) -> Measurement:
        seconds = factor * law(clients, workers)
        return measured(clients, workers, seconds, driver_seconds=driver(clients))

    return run


@pytest.fixture
def rows(obeying: Callable[..., Measurement]) -> list[PointRow]:
    return rows_of([obeying(c, w) for c, w in GRID])


def fitted(rows: Sequence[PointRow], num_cpus: int = 2) -> CostModel:
    model = fit_cost_model(rows, num_cpus)
    assert isinstance(model, CostModel)
    return model


def test_a_law_is_found_again_and_holds_beyond_the_grid(rows: list[PointRow]) -> None:
    model = fitted(rows)
    assert model.a_seconds == pytest.approx(0.5)
    assert model.b_seconds_per_client == pytest.approx(0.01)
    assert model.c_seconds_per_byte == pytest.approx(2e-6)
    assert len(model.held_out) == len(GRID)
    assert model.worst_error < 1e-6
    assert model.predict(10_000, 64) == pytest.approx(law(10_000, 64))


def test_workers_that_slow_each_other_do_not_burden_the_driver(
    measured: Callable[..., Measurement],
) -> None:
    """Two workers take 1.5 times as long for a client each, the driver is idle: c is 0.

    A c that was fitted to wall time would say that 10,000 clients take minutes on any machine.
    """
    seconds = {1: 0.01, 2: 0.015}
    runs = [measured(c, w, 0.5 + seconds[w] * c / w) for c, w in GRID]
    model = fitted(rows_of(runs))
    assert model.c_seconds_per_byte == pytest.approx(0.0, abs=1e-12)


def test_a_point_that_breaks_the_law_is_seen_from_outside(
    obeying: Callable[..., Measurement],
) -> None:
    """Others than (400, 2) obey; it takes twice the law, so its own prediction is half: 50 %."""
    runs = [obeying(c, w, 2 if (c, w) == (400, 2) else 1) for c, w in GRID]
    model = fitted(rows_of(runs))
    errors = {(h.point.clients, h.point.workers): h.error_fraction for h in model.held_out}
    assert errors[400, 2] == pytest.approx(0.5, abs=0.01)
    assert model.worst_error >= errors[400, 2]


def test_one_number_of_workers_tells_bytes_from_clients_by_the_driver(
    obeying: Callable[..., Measurement],
) -> None:
    model = fitted(rows_of([obeying(c, 1) for c in (100, 200, 400)]))
    assert model.c_seconds_per_byte == pytest.approx(2e-6)
    assert model.b_seconds_per_client == pytest.approx(0.01)


def test_workers_that_share_a_cpu_are_left_out(
    obeying: Callable[..., Measurement], measured: Callable[..., Measurement]
) -> None:
    runs = [obeying(c, w) for c, w in GRID]
    crowded = [measured(100, 8, 60.0, driver_seconds=driver(100))]
    assert fitted(rows_of(runs + crowded)).worst_error < 1e-6
    assert fitted(rows_of(runs + crowded), num_cpus=8).worst_error > 0.5


def test_what_cannot_be_fitted_is_said(measured: Callable[..., Measurement]) -> None:
    two = rows_of([measured(100, 1, 1.0), measured(200, 1, 2.0)])
    assert fit_cost_model(two, 2) == "2 points can be fitted, a cost model needs 3"
    same = [measured(200, 2, 1.0, population=10**k) for k in (3, 4, 5)]
    assert "clients a worker do not vary" in str(fit_cost_model(rows_of(same), 2))


def test_points_on_gpus_count_gpus(measured: Callable[..., Measurement]) -> None:
    """Two workers on one GPU are one; seconds follow 0.5 + 0.012 x clients."""
    runs = [measured(c, 2, 0.5 + 0.012 * c, gpus=1) for c in (100, 200, 400)]
    model = fitted(rows_of(runs))
    assert model.on_gpus
    assert model.b_seconds_per_client == pytest.approx(0.012)
