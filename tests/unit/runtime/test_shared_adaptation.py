"""What a run says when its workers end too early; that they work is an integration test."""

from typing import Any

import pytest
from ray.exceptions import RayActorError

from dsfedmed_ray.errors import FoundationLostError, ResourceError
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.shared_adaptation import failure_of, worker_demand


class WrappedError(Exception):
    """As Ray Train wraps what a worker's code raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("traceback")
        self._base_exc = cause


class TrainError(Exception):
    """As Ray Train fails."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__("training failed")
        self.worker_failures = dict(enumerate(failures))


TOO_SMALL = ResourceError("the GPU is too small")
ECHO = WrappedError(RuntimeError("connection reset"))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (TrainError(ECHO, WrappedError(TOO_SMALL)), ResourceError, "the GPU is too small"),
        (TrainError(ECHO, RayActorError()), FoundationLostError, "the workers of stage 4 died"),
        (None, FoundationLostError, "the workers of stage 4 died"),
        (TrainError(WrappedError(ValueError("x"))), RuntimeError, r"failed: ValueError\('x'\)"),
    ],
)
def test_why_no_epoch_comes_any_more(error: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        raise failure_of(error)


def test_a_worker_asks_for_a_cpu_at_least() -> None:
    """Ray Train cannot place what asks for nothing."""
    assert worker_demand(Demand(num_gpus=1.0)).bundle() == {"CPU": 1.0, "GPU": 1.0}
    assert worker_demand(Demand(num_cpus=4.0, num_gpus=0)).bundle() == {"CPU": 4.0}
