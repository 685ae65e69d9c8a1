"""Errors of Ray as a dead worker, a lost foundation model, a full store; no process is started."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    UserCodeException,
    WorkerCrashedError,
)

from dsfedmed_ray.errors import (
    ClientFailureError,
    FoundationLostError,
    ResourceError,
    WorkerLostError,
)
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.runtime import foundation_actor, ray_pool
from dsfedmed_ray.runtime.client_program import ClientReply, FitChunk, FitOrder, FitResult
from dsfedmed_ray.runtime.client_worker import ClientWorker
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.failures import FailurePolicy
from dsfedmed_ray.runtime.node_sums import HeldChunk, NodeSums
from dsfedmed_ray.runtime.ray_engine import open_ray_engine
from dsfedmed_ray.runtime.ray_failures import failed_start, unwrapping_user_errors

START = FlatState(np.zeros(1, np.float32), np.zeros(0, np.int64))
LOST = [
    OutOfMemoryError("Task was killed due to the node running low on memory."),
    NodeDiedError("The node is dead."),
    LocalRayletDiedError(),
    WorkerCrashedError(),
    ActorDiedError(),
    ObjectLostError("0" * 56, None, ""),
]
by_name = pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)


class Program:
    """Client ``k`` gives ``k + 1``."""

    def client_name(self, client_id: int) -> str:
        return f"site_{client_id}"

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        state = FlatState(np.array([client_id + 1], np.float32), broadcast.counters)
        return FitResult(state=state, num_samples=1, metrics={}, num_uplink_bytes=4)


class Reference:
    """Of an answer; computed, or raised, when it is fetched."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer


class Method:
    def __init__(self, called: Callable[..., Any]) -> None:
        self._called = called

    def remote(self, *arguments: Any) -> Reference:
        return Reference(lambda: self._called(*arguments))


class Actor:
    """A worker in this process that loses some chunks, as a dead process would."""

    def __init__(self, errors: dict[int, list[RayError]]) -> None:
        self._worker, self._errors = ClientWorker(Program, 1), errors
        self.__ray_ready__ = Method(lambda: True)
        self.fit_chunk = Method(self._fit)

    def _fit(self, broadcast: FlatState, client_ids: Sequence[int], order: FitOrder) -> FitChunk:
        for client_id in client_ids:
            if self._errors.get(client_id):
                raise self._errors[client_id].pop()
        return self._worker.fit_chunk(broadcast, client_ids, order)


class NoPlacement:
    def options(self, index: int) -> dict[str, Any]:
        return {}

    def release(self) -> None:
        pass


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's calls, without Ray."""
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", lambda reference: reference.answer())
    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs[:1], refs[1:]))
    monkeypatch.setattr(ray, "kill", lambda actor, no_restart: None)
    monkeypatch.setattr(ray_pool, "has_several_nodes", lambda: False)


def pool_of(
    errors: dict[int, list[RayError]],
    notes: list[str],
    monkeypatch: pytest.MonkeyPatch,
    **policy: Any,
) -> ray_pool.RayPool:
    class Actors:
        def options(self, **_: Any) -> "Actors":
            return self

        def remote(self, *_: Any) -> Actor:
            return Actor(errors)

    monkeypatch.setattr(ray_pool, "ClientActor", Actors())
    return ray_pool.RayPool(
        Program,
        num_workers=2,
        pinned=False,
        num_threads=1,
        placement=NoPlacement(),  # type: ignore[arg-type]
        chunk_size=None,
        policy=FailurePolicy(**policy),
        client_name=lambda client_id: f"site_{client_id}",
        note=notes.append,
    )


@by_name
@pytest.mark.usefixtures("here")
def test_a_lost_worker_is_replaced_and_its_clients_are_done_again(
    error: RayError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients 0 to 9 give 1 to 10: 5.5 on average. Client 4 shares its chunk with 0 and 2."""
    notes: list[str] = []
    pool = pool_of({4: [error]}, notes, monkeypatch)
    result = pool.fit_round(START, range(10), round_index=0, total_weight=10)
    assert result.state.values.tolist() == [5.5]
    assert len(result.replies) == 10
    assert notes == ["worker 0 was lost and replaced; its clients are done again"]


@pytest.mark.usefixtures("here")
def test_a_client_too_large_for_the_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: dict[int, list[RayError]] = {3: [LOST[0]] * 9}
    pool = pool_of(errors, [], monkeypatch, on_client_error="stop", max_attempts=2)
    message = r"'site_3' failed: its worker process was ended .* out of memory; lower runtime\.num"
    with pytest.raises(ClientFailureError, match=message):
        pool.fit_round(START, range(4), round_index=0, total_weight=4)


@by_name
@pytest.mark.usefixtures("here")
def test_sums_on_a_lost_node_are_done_again(error: RayError) -> None:
    class Node:
        def fail(self, *_: Any) -> None:
            raise error

        def __init__(self) -> None:
            self.__ray_call__ = Method(self.fail)

    reply = ClientReply(client_id=7, num_samples=1, metrics={}, num_uplink_bytes=4)
    sums = NodeSums()
    chunk = FitChunk(partial=None, replies=(reply,), errors=())
    sums.hold(HeldChunk(node="a", worker=Node(), partial_ref=object(), chunk=chunk))
    assert list(sums.collect()) == [[7], FitChunk(partial=None, replies=(), errors=())]


@by_name
@pytest.mark.usefixtures("here")
def test_a_lost_foundation_model_is_started_again(error: RayError) -> None:
    def lost() -> None:
        raise error

    with pytest.raises(FoundationLostError, match="the foundation model's process died"):
        foundation_actor._RayPending(Reference(lost)).result()


TOO_SMALL = ResourceError("the GPU is too small: lower batch_size")
TEXT = f"Traceback\n  File x\ndsfedmed_ray.errors.ResourceError: {TOO_SMALL}\n\nThe above ..."


@pytest.mark.usefixtures("here")
def test_what_a_user_can_mend_is_one_line_also_from_another_process() -> None:
    """From a call, from a constructor, whose text alone is kept, and from a dataset's function."""
    call = RayTaskError("f", TEXT, TOO_SMALL).as_instanceof_cause()
    start = ActorDiedError(RayTaskError("f", TEXT, TOO_SMALL))
    for error in (call, start):

        def fails(error: RayError = error) -> None:
            raise error

        with pytest.raises(ResourceError, match=f"^{TOO_SMALL}$"):
            foundation_actor._RayPending(Reference(fails)).result()
    with pytest.raises(ResourceError, match=f"^{TOO_SMALL}$"), unwrapping_user_errors():
        raise RayTaskError("f", TEXT, UserCodeException("UDF failed"))


def test_other_errors_stay_what_they_are() -> None:
    text = "Traceback\nValueError: no"
    task = RayTaskError("f", text, ValueError("no"))
    with pytest.raises(RayTaskError, match="no"), unwrapping_user_errors():
        raise task
    start = failed_start("worker 3", ActorDiedError(task))
    assert isinstance(start, WorkerLostError)
    assert str(start) == "worker 3 cannot start: ValueError: no"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ObjectStoreFullError("x"), r"^Ray's object store is full of objects .*object_store_bytes"),
        (OutOfDiskError("x"), r"^Ray's object store is full, and so is the disk .*/tmp/ray.* free"),
    ],
    ids=["memory", "disk"],
)
@pytest.mark.parametrize("in_a_worker", [False, True])
def test_a_full_store_is_one_line_with_the_remedy(
    error: RayError, said: str, in_a_worker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_a_worker:
        error = RayTaskError("fit_chunk", "a traceback", error).as_instanceof_cause()
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr("dsfedmed_ray.runtime.ray_engine.RayEngine", lambda *_, **__: None)
    with (
        pytest.raises(ResourceError, match=said) as caught,
        open_ray_engine(RuntimeConfig(), 1, print),
    ):
        raise error
    assert "\n" not in str(caught.value)
