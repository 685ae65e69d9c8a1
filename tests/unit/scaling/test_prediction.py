"""Predictions in words: seconds, stated error, and what is taken for granted."""

import pytest

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.scaling.cost_model import CostModel, HeldOut
from dsfedmed_ray.scaling.grid import GridPoint
from dsfedmed_ray.scaling.prediction import predict


def model(*, on_gpus: bool = False) -> CostModel:
    """0.5 s, 10 ms a client, 2 microseconds a byte at 1000 a client; up to 400 clients on 2."""
    point = GridPoint(clients=400, workers=2, gpus=0, population=None)
    return CostModel(
        a_seconds=0.5,
        b_seconds_per_client=0.01,
        c_seconds_per_byte=2e-6,
        bytes_per_client=1000.0,
        on_gpus=on_gpus,
        max_parallel=2,
        max_clients=400,
        held_out=[HeldOut(point=point, measured_seconds=1.0, predicted_seconds=1.1)],
    )


def test_a_prediction_states_its_error_and_where_it_leaves_the_grid() -> None:
    """1000 clients on 2: 0.5 + 5 + 2 = 7.5 s, of which 2.5 s are the driver's."""
    words = predict(model(), ["clients=1000", "workers=2"])
    assert words.startswith("7.5 s a round, 133.3 clients/s")
    assert "error on held-out grid points: median 10.0%, worst 10.0% of 1" in words
    assert "extrapolated from at most 400 clients and 2 workers" in words
    assert "of the round, 33% is one process's work" in words
    assert "extrapolated" not in predict(model(), ["clients=300", "workers=2"])


def test_gpus_that_were_never_measured_are_cpu_workers_and_it_says_so() -> None:
    """10,000 on 64: 0.5 + 1.5625 + 20 s."""
    words = predict(model(), ["clients=10000", "gpus=64"])
    assert words.startswith("22.1 s a round")
    assert "no GPU was measured: each is taken for one of the study's CPU workers" in words
    measured = predict(model(on_gpus=True), ["clients=10000", "gpus=64"])
    assert "no GPU was measured" not in measured
    assert "10000 clients on 64 gpus" in measured


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (["clients=10"], r"give clients=N and one of workers=N and gpus=N"),
        (["clients=10", "workers=1", "gpus=1"], r"give clients=N and one of workers=N and gpus=N"),
        (["clients=10", "workers=0"], r"numbers are 1 or more"),
        (["clients=ten", "workers=1"], r"--predict clients=ten: allowed are clients=N, workers=N"),
        (["speed=1"], r"--predict speed=1: allowed are"),
    ],
)
def test_requests_that_cannot_be_answered(request_: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        predict(model(), request_)


def test_a_study_on_gpus_says_nothing_of_cpu_workers() -> None:
    with pytest.raises(ConfigurationError, match=r"workers=4: the study measured GPUs; give gpus"):
        predict(model(on_gpus=True), ["clients=10", "workers=4"])
