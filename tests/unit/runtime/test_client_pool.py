"""The rounds of a pool, with a program that counts instead of training."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from dsfedmed_ray.errors import ClientFailureError, TooFewRepliesError
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.runtime.client_pool import SerialPool
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.client_worker import ClientWorker
from dsfedmed_ray.runtime.failures import FailurePolicy

SIZES = (1, 3, 4)
START = FlatState(np.array([10.0], np.float32), np.array([0], np.int64))


class CountingProgram:
    """Client ``k`` adds ``k + 1`` to the broadcast; some attempts of some clients go wrong."""

    def __init__(self, wrong: dict[int, int], value: float | None = None) -> None:
        self.wrong, self.value = Counter(wrong), value
        self.threads: list[int] = []

    def client_name(self, client_id: int) -> str:
        return f"site_{client_id}"

    def _go_wrong(self, client_id: int) -> bool:
        self.threads.append(torch.get_num_threads())
        self.wrong[client_id] -= 1
        return self.wrong[client_id] >= 0

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        value = float(broadcast.values[0]) + client_id + 1
        if self._go_wrong(client_id):
            if self.value is None:
                raise ValueError("first line\nsecond line")
            value = self.value
        return FitResult(
            state=FlatState(np.array([value], np.float32), np.array([client_id], np.int64)),
            num_samples=SIZES[client_id],
            metrics={"loss": float(client_id)},
            num_uplink_bytes=12,
        )

    def measure(self, client_id: int, factor: int) -> int:
        if self._go_wrong(client_id):
            raise KeyError("lost")
        return client_id * factor


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def pool_of(notes: list[str]) -> Callable[..., SerialPool]:
    def make(program: CountingProgram, num_threads: int = 1, **policy: object) -> SerialPool:
        return SerialPool(
            lambda: program,
            num_threads=num_threads,
            policy=FailurePolicy(**policy),  # type: ignore[arg-type]
            client_name=program.client_name,
            note=notes.append,
        )

    return make


def test_a_round_is_the_weighted_mean(pool_of: Callable[..., SerialPool]) -> None:
    """(1 * 11 + 3 * 12 + 4 * 13) / 8 = 12.375; the largest counter is 2."""
    result = pool_of(CountingProgram({})).fit_round(START, [2, 0, 1], round_index=0, total_weight=8)
    assert result.state.values.tolist() == [12.375]
    assert result.state.counters.tolist() == [2]
    assert [reply.client_id for reply in result.replies] == [0, 1, 2]
    assert [reply.metrics["loss"] for reply in result.replies] == [0.0, 1.0, 2.0]
    assert result.dropped == ()


def test_a_client_that_recovers_changes_nothing(
    pool_of: Callable[..., SerialPool], notes: list[str]
) -> None:
    pool = pool_of(CountingProgram({1: 2}), max_attempts=3)
    result = pool.fit_round(START, [0, 1, 2], round_index=0, total_weight=8)
    assert result.state.values.tolist() == [12.375]
    assert notes == ["client site_1 failed: ValueError: first line; retry"] * 2


def test_a_client_that_does_not_recover_stops_the_run(
    pool_of: Callable[..., SerialPool],
) -> None:
    pool = pool_of(CountingProgram({1: 3}), max_attempts=3)
    message = r"client 'site_1' failed: ValueError: first line \(attempt 3 of 3\)"
    with pytest.raises(ClientFailureError, match=message):
        pool.fit_round(START, [0, 1, 2], round_index=0, total_weight=8)


def test_stop_does_not_try_again(pool_of: Callable[..., SerialPool]) -> None:
    program = CountingProgram({0: 1})
    with pytest.raises(ClientFailureError, match="client 'site_0' failed"):
        pool_of(program, on_client_error="stop").fit_round(
            START, [0, 1], round_index=0, total_weight=4
        )
    assert program.wrong[1] == 0  # client 1 was not asked


def test_a_dropped_client_is_named_and_not_averaged(
    pool_of: Callable[..., SerialPool], notes: list[str]
) -> None:
    """Without client 2: (1 * 11 + 3 * 12) / 4 = 11.75."""
    pool = pool_of(CountingProgram({2: 9}), on_client_error="drop", min_replies_fraction=0.5)
    result = pool.fit_round(START, [0, 1, 2], round_index=0, total_weight=8)
    assert result.state.values.tolist() == [11.75]
    assert [error.client_id for error in result.dropped] == [2]
    assert notes == ["client site_2 failed: ValueError: first line; drop"]


@pytest.mark.parametrize(("wrong", "replies"), [({2: 9}, 2), ({0: 9, 1: 9, 2: 9}, 0)])
def test_too_few_replies_stop_the_round(
    wrong: dict[int, int], replies: int, pool_of: Callable[..., SerialPool]
) -> None:
    fraction = 1.0 if replies else 0.01
    pool = pool_of(CountingProgram(wrong), on_client_error="drop", min_replies_fraction=fraction)
    with pytest.raises(TooFewRepliesError, match=rf"^round 5: {replies} of 3 clients replied"):
        pool.fit_round(START, [0, 1, 2], round_index=4, total_weight=8)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_state_that_is_not_finite_is_the_clients_failure(
    value: float, pool_of: Callable[..., SerialPool], notes: list[str]
) -> None:
    pool = pool_of(CountingProgram({0: 1}, value=value))
    result = pool.fit_round(START, [0, 1, 2], round_index=0, total_weight=8)
    assert result.state.values.tolist() == [12.375]
    assert len(notes) == 1
    assert notes[0].startswith("client site_0 failed: NonFiniteStateError: state holds NaN")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_the_clients_failure(
    value: float, pool_of: Callable[..., SerialPool], notes: list[str]
) -> None:
    """Its state is finite, and is not counted twice when the client is asked again."""

    class Diverging(CountingProgram):
        def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
            wrong = self._go_wrong(client_id)
            result = super().fit(client_id, broadcast, order)
            return replace(result, metrics={"loss": value}) if wrong else result

    result = pool_of(Diverging({1: 1})).fit_round(START, [0, 1, 2], round_index=0, total_weight=8)
    assert result.state.values.tolist() == [12.375]
    assert notes == [
        f"client site_1 failed: NonFiniteStateError: its loss is {value}; lower the learning rate; "
        "retry"
    ]


def test_other_methods_are_judged_alike(
    pool_of: Callable[..., SerialPool], notes: list[str]
) -> None:
    pool = pool_of(CountingProgram({1: 1}))
    assert dict(pool.map("measure", [0, 1, 2], 10)) == {0: 0, 1: 10, 2: 20}
    assert notes == ["client site_1 failed: KeyError: 'lost'; retry"]
    pool = pool_of(CountingProgram({1: 9}), on_client_error="drop")
    with pytest.raises(TooFewRepliesError, match=r"^measure: 2 of 3 clients replied"):
        list(pool.map("measure", [0, 1, 2], 10))


def test_threads_are_the_clients_own_and_given_back(pool_of: Callable[..., SerialPool]) -> None:
    before = torch.get_num_threads()
    program = CountingProgram({})
    pool = pool_of(program, num_threads=before + 1)
    pool.fit_round(START, [0], round_index=0, total_weight=1)
    list(pool.map("measure", [0], 10))
    assert program.threads == [before + 1] * 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("chunks", [[[0, 1, 2]], [[0], [1], [2]], [[2, 1], [0]]])
def test_chunks_carry_one_sum_and_keep_the_failed_apart(chunks: list[list[int]]) -> None:
    worker = ClientWorker(lambda: CountingProgram({1: 1}), num_threads=1)
    order = FitOrder(round_index=0, scale_bits=40)
    answers = [worker.fit_chunk(START, ids, order) for ids in chunks]
    total = next(answer.partial for answer in answers if answer.partial is not None)
    for answer in answers:
        if answer.partial is not None and answer.partial is not total:
            total.merge(answer.partial)
    assert total.mean().values.tolist() == [np.float32((11 + 4 * 13) / 5)]
    errors = [error for answer in answers for error in answer.errors]
    assert [(error.client_id, error.reason) for error in errors] == [(1, "ValueError: first line")]


def test_a_full_gpu_is_one_line_with_the_remedy(
    pool_of: Callable[..., SerialPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the client that needed too much; the policy judges it as every failure."""

    def full(self: CountingProgram, *_: object) -> FitResult:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU\n0 ...")

    monkeypatch.setattr(CountingProgram, "fit", full)
    pool = pool_of(CountingProgram({}), on_client_error="stop")
    said = r"ResourceError: the GPU is too small: 2\.5 GB needed; lower batch_size, .*resources$"
    with pytest.raises(ClientFailureError, match=said):
        pool.fit_round(START, [0], round_index=0, total_weight=1)
