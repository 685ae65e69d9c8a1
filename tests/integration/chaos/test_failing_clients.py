"""A client that raises, or whose state or loss is not finite, is judged alike on Ray."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dsfedmed_ray.errors import ClientFailureError, TooFewRepliesError
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.failures import FailurePolicy

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

START = FlatState(np.zeros(1, np.float32), np.zeros(0, np.int64))
SAID = {
    "raises": "ValueError: no such scanner",
    "state": "NonFiniteStateError: state holds NaN",
    "metric": "NonFiniteStateError: its loss is nan",
}


class FailingProgram:
    """Client ``k`` adds ``k + 1``; client 1 fails in its first attempts of each round.

    The round's stage says how; the round's index says how often.
    """

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, int], int] = {}

    def client_name(self, client_id: int) -> str:
        return f"site_{client_id}"

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        this = (order.stage, order.round_index)
        self._attempts[this] = self._attempts.get(this, 0) + 1
        fails = client_id == 1 and self._attempts[this] <= order.round_index
        fault = order.stage.split()[0] if fails else ""
        if fault == "raises":
            raise ValueError("no such scanner")
        wrong = float("nan")
        added = wrong if fault == "state" else client_id + 1
        return FitResult(
            state=FlatState(broadcast.values + np.float32(added), broadcast.counters),
            num_samples=1,
            metrics={"loss": wrong if fault == "metric" else 0.5},
            num_uplink_bytes=4,
        )


@pytest.fixture(scope="module")
def notes() -> list[str]:
    return []


@pytest.fixture(scope="module")
def pool(four_cpus: None, notes: list[str]) -> Iterator[Any]:
    """Each client has its own worker, which counts its attempts."""
    import ray

    from dsfedmed_ray.runtime.demand import Demand
    from dsfedmed_ray.runtime.placement import Placement
    from dsfedmed_ray.runtime.ray_pool import RayPool

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pool = RayPool(
        FailingProgram,
        num_workers=3,
        pinned=True,
        num_threads=1,
        placement=Placement("clients", [Demand(num_gpus=0.0)] * 3),
        chunk_size=None,
        policy=FailurePolicy(),
        client_name=lambda client_id: f"site_{client_id}",
        note=notes.append,
    )
    yield pool
    pool.close()


@pytest.mark.parametrize("fault", ["raises", "state", "metric"])
@pytest.mark.parametrize(
    ("num_failures", "policy", "expected"),
    [
        (2, {"on_client_error": "retry"}, 2.0),
        (3, {"on_client_error": "retry"}, ClientFailureError),
        (1, {"on_client_error": "drop", "min_replies_fraction": 0.6}, 2.0),
        (1, {"on_client_error": "drop", "min_replies_fraction": 0.7}, TooFewRepliesError),
        (1, {"on_client_error": "stop"}, ClientFailureError),
    ],
    ids=["retry", "retry in vain", "drop", "drop below the least share", "stop"],
)
def test_a_client_that_fails(
    fault: str,
    num_failures: int,
    policy: dict[str, Any],
    expected: float | type[Exception],
    pool: Any,
    notes: list[str],
) -> None:
    """Three clients add 1, 2 and 3: 2 on average, and without client 1 as well."""
    notes.clear()
    pool.policy = FailurePolicy(**policy)
    given = {
        "round_index": num_failures,
        "total_weight": 3,
        "stage": f"{fault} {sorted(policy.items())}",
    }
    if isinstance(expected, float):
        result = pool.fit_round(START, [0, 1, 2], **given)
        assert result.state.values.tolist() == [expected]
        dropped = [error.client_id for error in result.dropped]
        assert dropped == ([1] if policy["on_client_error"] == "drop" else [])
        assert len(notes) == num_failures
        assert all(note.startswith(f"client site_1 failed: {SAID[fault]}") for note in notes)
    else:
        named = rf"client 'site_1' failed: {SAID[fault]}|2 of 3 clients replied"
        with pytest.raises(expected, match=named):
            pool.fit_round(START, [0, 1, 2], **given)
