"""A thousand rounds leave the driver as small as it was."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.methods.exchange import broadcast_transfers
from dsfedmed_ray.methods.resumable import StopRequest, UnitLoop, UnitResult
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.run_directory import RunDirectory
from dsfedmed_ray.runtime.checkpoints import CheckpointFolder
from dsfedmed_ray.runtime.client_pool import ClientPool
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.failures import FailurePolicy
from dsfedmed_ray.runtime.journal import Journal

STAGE = "train_federated"
NUM_VALUES, NUM_CLIENTS = 10_000, 20


class Program:
    """Plain torch: one gradient step towards the client's number."""

    def client_name(self, client_id: int) -> str:
        return f"site_{client_id}"

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        weights = torch.tensor(broadcast.values, requires_grad=True)
        (weights - client_id % 7).square().sum().backward()
        assert weights.grad is not None
        state = FlatState((weights - 0.1 * weights.grad).detach().numpy(), broadcast.counters)
        return FitResult(state=state, num_samples=1, metrics={"loss": 0.0}, num_uplink_bytes=4)


class Rounds:
    """A stage of rounds as the methods have it: pool, ledger, lines and checkpoints."""

    def __init__(self, pool: ClientPool) -> None:
        self._pool = pool

    def begin(self, content: dict[str, Any] | None) -> None:
        values = np.zeros(NUM_VALUES, np.float32) if content is None else content["state"].numpy()
        self._state = FlatState(values, np.zeros(0, np.int64))

    def advance(self, unit: int) -> UnitResult:
        clients = [unit * NUM_CLIENTS + k for k in range(NUM_CLIENTS)]
        result = self._pool.fit_round(
            self._state, clients, round_index=unit, total_weight=NUM_CLIENTS, stage=STAGE
        )
        self._state = result.state
        names = [self._pool.client_name(client) for client in clients]
        sent = broadcast_transfers(names, self._state, stage=STAGE, what="x", round_index=unit)
        return UnitResult(values={"num_replies": float(len(result.replies))}, transfers=sent)

    def is_finished(self) -> bool:
        return False

    def snapshot(self) -> dict[str, Any]:
        return {"state": torch.tensor(self._state.values)}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("four_cpus")
def test_a_thousand_rounds_do_not_grow_the_driver(tmp_path: Path) -> None:
    """Less than 20 MB over 1,000 rounds of 20 clients, each round with clients never seen."""
    import ray

    from dsfedmed_ray.runtime.placement import Placement
    from dsfedmed_ray.runtime.ray_pool import RayPool

    # Workers cannot import a test's module, so its classes travel whole.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pool = RayPool(
        Program,
        num_workers=2,
        pinned=False,
        num_threads=1,
        placement=Placement("clients", [Demand(num_gpus=0.0)] * 2),
        chunk_size=None,
        policy=FailurePolicy(),
        client_name=str,
        note=lambda text: None,
    )
    directory = RunDirectory(tmp_path)
    progress = SilentProgress()
    loop = UnitLoop(
        journal=Journal(directory),
        progress=progress,
        checkpoints=CheckpointFolder(directory.checkpoints / STAGE, progress.note),
        stop=StopRequest(),
        resume_hint="",
        checkpoint_every=50,
    )
    work = Rounds(pool)
    loop.run(STAGE, 100, work, finish=lambda: None)
    before = resident_bytes()
    loop.run(STAGE, 1100, work, finish=lambda: None)
    pool.close()
    grown = (resident_bytes() - before) / 2**20
    print(f"the driver grew by {grown:.1f} MB")  # shown by pytest -s
    assert grown < 20
