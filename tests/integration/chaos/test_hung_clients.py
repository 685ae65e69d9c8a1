"""A client that hangs is judged like one that fails."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsfedmed_ray.errors import ClientFailureError, TooFewRepliesError
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.failures import FailurePolicy

pytestmark = pytest.mark.chaos


@dataclass(frozen=True)
class HangingProgram:
    """Client ``k`` adds ``k + 1``; client 1 hangs in its first attempts."""

    marks: Path
    num_hangs: int

    def __call__(self) -> "HangingProgram":
        return self

    def client_name(self, client_id: int) -> str:
        return f"site_{client_id}"

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        hangs = len(list(self.marks.iterdir()))
        if client_id == 1 and hangs < self.num_hangs:
            (self.marks / f"hang_{hangs}").touch()
            time.sleep(600)
        return FitResult(
            state=FlatState(broadcast.values + client_id + 1, broadcast.counters),
            num_samples=1,
            metrics={},
            num_uplink_bytes=4,
        )


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    ("num_hangs", "policy", "expected"),
    [
        (1, {"on_client_error": "retry"}, 2.0),
        (1, {"on_client_error": "drop", "min_replies_fraction": 0.6}, 2.0),
        (9, {"on_client_error": "drop", "min_replies_fraction": 0.7}, TooFewRepliesError),
        (9, {"on_client_error": "stop"}, ClientFailureError),
    ],
    ids=["retry", "drop", "drop below the least share", "stop"],
)
def test_a_client_that_hangs(
    num_hangs: int, policy: dict[str, Any], expected: float | type[Exception], tmp_path: Path
) -> None:
    """Three clients add 1, 2 and 3: 2 on average, and without client 1 as well."""
    import ray

    from dsfedmed_ray.runtime.demand import Demand
    from dsfedmed_ray.runtime.placement import Placement
    from dsfedmed_ray.runtime.ray_pool import RayPool

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    notes: list[str] = []
    program = HangingProgram(tmp_path, num_hangs)
    pool = RayPool(
        program,
        num_workers=2,
        pinned=False,
        num_threads=1,
        placement=Placement("clients", [Demand(num_gpus=0.0)] * 2),
        chunk_size=1,
        policy=FailurePolicy(client_timeout_seconds=1.0, **policy),
        client_name=program.client_name,
        note=notes.append,
    )
    start = FlatState(np.zeros(1, np.float32), np.zeros(0, np.int64))
    try:
        if isinstance(expected, float):
            result = pool.fit_round(start, [0, 1, 2], round_index=0, total_weight=3)
            assert result.state.values.tolist() == [expected]
            dropped = [error.client_id for error in result.dropped]
            assert dropped == ([1] if policy["on_client_error"] == "drop" else [])
        else:
            with pytest.raises(expected, match=r"no reply within 1 s|2 of 3 clients replied"):
                pool.fit_round(start, [0, 1, 2], round_index=0, total_weight=3)
    finally:
        pool.close()
    assert any("was lost and replaced" in note for note in notes)
