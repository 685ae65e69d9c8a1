"""The fitted law, its error on points that it has not seen, and predictions."""

from collections.abc import Callable, Sequence

import pytest

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.scaling.cost_model import CostModel, fit_cost_model, predict
from dsfedmed_ray.scaling.estimates import PointRow, rows_of
from dsfedmed_ray.scaling.measurement import Measurement

GRID = [(100, 1), (200, 1), (400, 1), (100, 2), (200, 2), (400, 2)]


def law(clients: int, workers: int) -> float:
    """Half a second, 10 ms a client and worker, and 2 microseconds a byte at 1000 a client."""
    return 0.5 + 0.01 * clients / workers + 2e-6 * 1000 * clients


@pytest.fixture
def rows(measured: Callable[..., Measurement]) -> list[PointRow]:
    return rows_of([measured(c, w, law(c, w)) for c, w in GRID])


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


def test_a_point_that_breaks_the_law_is_seen_from_outside(
    measured: Callable[..., Measurement],
) -> None:
    """Others than (400, 2) obey; it takes twice the law, so its own prediction is half: 50 %."""
    runs = [measured(c, w, law(c, w) * (2 if (c, w) == (400, 2) else 1)) for c, w in GRID]
    model = fitted(rows_of(runs))
    errors = {(h.point.clients, h.point.workers): h.error_fraction for h in model.held_out}
    assert errors[400, 2] == pytest.approx(0.5, abs=0.01)
    assert model.worst_error >= errors[400, 2]


def test_one_number_of_workers_cannot_tell_bytes_from_clients(
    measured: Callable[..., Measurement],
) -> None:
    """On one worker 10 ms a client and 2 ms for its bytes are 12 ms a client."""
    model = fitted(rows_of([measured(c, 1, law(c, 1)) for c in (100, 200, 400)]))
    assert model.c_seconds_per_byte is None
    assert model.b_seconds_per_client == pytest.approx(0.012)


def test_workers_that_share_a_cpu_are_left_out(measured: Callable[..., Measurement]) -> None:
    runs = [measured(c, w, law(c, w)) for c, w in GRID]
    crowded = [measured(100, 8, 60.0)]
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
    assert "640 clients on 64 gpus" in predict(model, ["clients=640", "gpus=64"])


def test_a_prediction_states_its_error_and_where_it_leaves_the_grid(rows: list[PointRow]) -> None:
    """1000 clients on 2: 0.5 + 5 + 2 = 7.5 s."""
    words = predict(fitted(rows), ["clients=1000", "workers=2"])
    assert words.startswith("7.5 s a round, 133.3 clients/s")
    assert "error on held-out grid points: median 0.0%, worst 0.0% of 6" in words
    assert "beyond what was measured (at most 400 clients, 2 workers)" in words
    assert "beyond" not in predict(fitted(rows), ["clients=300", "workers=2"])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (["clients=10"], r"predicts from clients=N workers=N; give both"),
        (["clients=10", "workers=0"], r"numbers are 1 or more"),
        (["clients=10", "gpus=64"], r"gpus=64: the study has no point with GPUs"),
        (["clients=ten", "workers=1"], r"--predict clients=ten: allowed are clients=N, workers=N"),
        (["speed=1"], r"--predict speed=1: allowed are"),
    ],
)
def test_requests_that_cannot_be_answered(
    rows: list[PointRow], request_: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        predict(fitted(rows), request_)
