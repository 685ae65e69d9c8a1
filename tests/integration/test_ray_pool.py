"""A pool of actors that is stopped, hangs or cannot start leaves nothing running."""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dsfedmed_ray.errors import ClientFailureError, WorkerLostError
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.failures import FailurePolicy

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("four_cpus")]

START = FlatState(np.zeros(1, np.float32), np.zeros(0, np.int64))
HANGS, RAISES = 8, 10  # of one home, so that the first is handed out first


class Program:
    """Client ``k`` gives ``k``; client 8 hangs, client 10 raises."""

    def client_name(self, client_id: int) -> str:
        return f"site_{client_id}"

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        if client_id == HANGS:
            time.sleep(600)
        if client_id == RAISES:
            raise ValueError("no such scanner")
        state = FlatState(np.array([client_id], np.float32), np.zeros(0, np.int64))
        return FitResult(state=state, num_samples=1, metrics={}, num_uplink_bytes=4)


def program_that_cannot_start() -> Program:
    raise ValueError("weights are missing")


@pytest.fixture
def open_pool() -> Iterator[Callable[..., Any]]:
    """Pools that record each start of an actor; closed at the end."""
    import ray

    from dsfedmed_ray.runtime.placement import Placement
    from dsfedmed_ray.runtime.ray_pool import RayPool

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pools = []

    class RecordingPool(RayPool):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            self.starts: list[int] = []
            super().__init__(*arguments, **settings)

        def _start(self, index: int) -> Any:
            self.starts.append(index)
            return super()._start(index)

    def opened(build: Callable[[], Program] = Program, **policy: Any) -> RecordingPool:
        pool = RecordingPool(
            build,
            num_workers=2,
            pinned=False,
            num_threads=1,
            placement=Placement("clients", [Demand(num_gpus=0.0)] * 2),
            chunk_size=1,
            policy=FailurePolicy(**policy),
            client_name=lambda client_id: f"site_{client_id}",
            note=lambda text: None,
        )
        pools.append(pool)
        return pool

    yield opened
    for pool in pools:
        pool.close()


def test_a_stopped_round_ends_the_clients_that_still_run(open_pool: Callable[..., Any]) -> None:
    pool = open_pool(on_client_error="stop")
    with pytest.raises(ClientFailureError, match="'site_10' failed: ValueError: no such") as caught:
        pool.fit_round(START, [HANGS, RAISES], round_index=0, total_weight=2)
    assert len(pool.starts) == 3  # the hanging client's worker was replaced at once
    pool.close()
    del caught
    gc.collect()
    assert len(pool.starts) == 3


def test_a_client_that_hangs_is_judged(open_pool: Callable[..., Any]) -> None:
    """Without client 8: (0 + 1 + 2) / 3 = 1."""
    pool = open_pool(on_client_error="drop", client_timeout_seconds=3.0, min_replies_fraction=0.5)
    result = pool.fit_round(START, [0, 1, 2, HANGS], round_index=0, total_weight=4)
    assert result.state.values.tolist() == [1.0]
    assert [error.reason for error in result.dropped] == ["no reply within 3 s"]


def test_who_stands_behind_a_hanging_client_is_not_blamed(open_pool: Callable[..., Any]) -> None:
    """Client 0 waits behind client 8 at the same worker. Without 8: (0 + 2 + 4 + 6) / 4 = 3."""
    pool = open_pool(on_client_error="drop", client_timeout_seconds=3.0, min_replies_fraction=0.5)
    clients = [HANGS, 0, 2, 4, 6]
    result = pool.fit_round(START, clients, round_index=0, total_weight=5)
    assert result.state.values.tolist() == [3.0]
    assert [error.client_id for error in result.dropped] == [HANGS]


def test_a_program_that_cannot_be_built_is_an_error_at_once(open_pool: Callable[..., Any]) -> None:
    pool = open_pool(program_that_cannot_start)
    with pytest.raises(WorkerLostError, match=r"cannot start: .*weights are missing"):
        pool.fit_round(START, [0, 1], round_index=0, total_weight=2)
