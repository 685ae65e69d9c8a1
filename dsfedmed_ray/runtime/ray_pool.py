"""Clients on Ray actors: one actor a client, or many virtual clients on a few workers.

A worker that dies is replaced and the clients of its unfinished chunk are done again, one by one,
so that a client that kills its process is found. Every answer is an integer partial sum or a plain
value, so neither the repetition nor the order changes a bit of the result.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from dsfedmed_ray.errors import WorkerLostError
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.runtime.chunks import chunked
from dsfedmed_ray.runtime.client_pool import ClientPool, Note
from dsfedmed_ray.runtime.client_program import ClientError, FitChunk, FitOrder, ProgramBuilder
from dsfedmed_ray.runtime.client_worker import ClientWorker
from dsfedmed_ray.runtime.failures import FailurePolicy
from dsfedmed_ray.runtime.node_sums import NodeSums, fit_and_hold, has_several_nodes
from dsfedmed_ray.runtime.placement import Placement
from dsfedmed_ray.runtime.ray_failures import LOST, failed_start
from dsfedmed_ray.runtime.task_board import Board, Seat, Submit, Task

ClientActor = ray.remote(ClientWorker)

MAX_FAILED_STARTS = 3
"""Deaths of one worker in a row before it ever was ready, after which the run stops."""


@dataclass
class _Outcome:
    client_ids: Sequence[int]
    value: Any
    error: str | None = None


class RayPool(ClientPool):
    """A pool of client actors.

    Args:
        build: builds the program inside each worker.
        num_workers: actors.
        pinned: whether worker ``k`` serves client ``k`` only (one actor a client).
        num_threads: torch threads of a worker.
        placement: where the actors go and what they hold.
        chunk_size: clients a task; None gives large chunks first and small ones last.
        policy: judges failures.
        client_name: names a client id.
        note: receives one line for each retry, drop and replaced worker.
    """

    def __init__(
        self,
        build: ProgramBuilder,
        *,
        num_workers: int,
        pinned: bool,
        num_threads: int,
        placement: Placement,
        chunk_size: int | None,
        policy: FailurePolicy,
        client_name: Callable[[int], str],
        note: Note,
    ) -> None:
        super().__init__(policy, client_name, note)
        self._build = ray.put(build)
        self._pinned = pinned
        self._num_threads = num_threads
        self._placement = placement
        self._chunk_size = chunk_size
        self._replacements = 0
        self._seats = [Seat(index, self._start(index)) for index in range(num_workers)]

    @property
    def actors(self) -> list[Any]:
        """The live actors' handles, by worker."""
        return [seat.actor for seat in self._seats]

    def close(self) -> None:
        """Kills the actors and releases their places; they hold nothing that is not on disk."""
        for seat in self._seats:
            ray.kill(seat.actor, no_restart=True)
        self._seats = []
        self._placement.release()

    def _start(self, index: int) -> Any:
        options = self._placement.options(index)
        # Restarts are ours: a restarted actor must be seen, counted and given its task again.
        return ClientActor.options(max_restarts=0, **options).remote(self._build, self._num_threads)

    def _fit_chunks(
        self, broadcast: FlatState, client_ids: Sequence[int], order: FitOrder
    ) -> Generator[FitChunk, None, None]:
        broadcast_ref = ray.put(broadcast)
        if has_several_nodes():
            yield from self._fit_by_node(broadcast_ref, client_ids, order)
            return
        submit = lambda actor, ids: actor.fit_chunk.remote(broadcast_ref, ids, order)  # noqa: E731
        for outcome in self._dispatch(self._chunks(client_ids), submit):
            yield outcome.value if outcome.error is None else _failed(outcome)

    def _fit_by_node(
        self, broadcast_ref: Any, client_ids: Sequence[int], order: FitOrder
    ) -> Generator[FitChunk, None, None]:
        """One partial sum a node; clients whose sums left with their node are done again."""
        submit = lambda actor, ids: actor.__ray_call__.remote(  # noqa: E731
            fit_and_hold, broadcast_ref, ids, order
        )
        waiting: Sequence[int] = client_ids
        while waiting:
            sums = NodeSums()
            for outcome in self._dispatch(self._chunks(waiting), submit):
                if outcome.error is None:
                    sums.hold(outcome.value)
                else:
                    yield _failed(outcome)
            lost: list[int] = []
            for found in sums.collect():
                if isinstance(found, FitChunk):
                    yield found
                else:
                    self.note(f"{len(found)} clients' sums were lost; they are done again")
                    lost += found
            waiting = sorted(lost)

    def _calls(
        self, method: str, client_ids: Sequence[int], arguments: tuple[Any, ...]
    ) -> Generator[tuple[int, Any], None, None]:
        shared = [ray.put(argument) for argument in arguments]
        submit = lambda actor, ids: actor.call.remote(method, ids[0], *shared)  # noqa: E731
        for outcome in self._dispatch([Task([i]) for i in client_ids], submit):
            client_id = outcome.client_ids[0]
            if outcome.error is None:
                yield client_id, outcome.value
            else:
                yield client_id, ClientError(client_id=client_id, reason=outcome.error)

    def _chunks(self, client_ids: Sequence[int]) -> list[Task]:
        if self._pinned:
            return [Task([client_id]) for client_id in client_ids]
        return [Task(chunk) for chunk in chunked(client_ids, len(self._seats), self._chunk_size)]

    def _dispatch(self, tasks: Sequence[Task], submit: Submit) -> Iterator[_Outcome]:
        seconds = self.policy.client_timeout_seconds
        board = Board(tasks, pinned=self._pinned, seconds=seconds)
        try:
            while board.is_open():
                board.assign(self._seats, submit)
                timeout = board.seconds_to_next_deadline()
                done, _ = ray.wait(list(board.running), num_returns=1, timeout=timeout)
                for ref in done:
                    yield from self._collect(board, ref)
                yield from self._end_hung(board)
        finally:
            # A stopped round leaves nothing running that could write client state later.
            for running in board.running.values():
                if running.task is not None:
                    self._replace(running.seat, count=False)

    def _collect(self, board: Board, ref: Any) -> Iterator[_Outcome]:
        try:
            value = ray.get(ref)
        except LOST as error:
            running = board.lost(ref)
            self._check_start(running.seat, error)
            self._replace(running.seat)
            if running.task is not None:
                yield from self._redo(board, running.task, f"its worker process {_end_of(error)}")
            return
        running = board.ended(ref)
        if running.task is None:
            running.seat.started = True
        else:
            yield _Outcome(running.task.client_ids, value)

    def _end_hung(self, board: Board) -> Iterator[_Outcome]:
        for running in board.hung():
            self._replace(running.seat)
            if running.task is not None:
                seconds = self.policy.client_timeout_seconds
                running.task.deaths = self.policy.max_attempts  # a hang is the client's own
                yield from self._redo(board, running.task, f"no reply within {seconds:g} s")

    def _redo(self, board: Board, task: Task, reason: str) -> Iterator[_Outcome]:
        """Puts a chunk's clients back one by one; a client that failed alone is an error."""
        if len(task.client_ids) > 1:
            board.waiting.extend(Task([client_id]) for client_id in task.client_ids)
        elif task.deaths + 1 < self.policy.max_attempts:
            board.waiting.append(Task(task.client_ids, task.deaths + 1))
        else:
            yield _Outcome(task.client_ids, None, reason)

    def _check_start(self, seat: Seat, error: RayError) -> None:
        """A worker that cannot start will not start the next time either.

        Raises:
            UserError: its program raised one.
            WorkerLostError: its program raised another error, or it died
                :data:`MAX_FAILED_STARTS` times in a row before it was ready.
        """
        seat.failed_starts = 0 if seat.started else seat.failed_starts + 1
        raised = isinstance(error, RayActorError) and error.actor_init_failed
        if raised or seat.failed_starts == MAX_FAILED_STARTS:
            raise failed_start(f"worker {seat.index}", error) from error

    def _replace(self, seat: Seat, *, count: bool = True) -> None:
        ray.kill(seat.actor, no_restart=True)
        seat.actor, seat.started = self._start(seat.index), False
        if not count:
            return
        self._replacements += 1
        self.note(f"worker {seat.index} was lost and replaced; its clients are done again")
        if self._replacements > self.policy.max_worker_replacements:
            raise WorkerLostError(
                f"{self._replacements} worker processes died, "
                f"runtime.failures.max_worker_replacements allows "
                f"{self.policy.max_worker_replacements}; look at the workers' memory and logs"
            )


def _end_of(error: RayError) -> str:
    if isinstance(error, OutOfMemoryError):
        return "was ended by Ray, for the machine was out of memory; lower runtime.num_workers"
    return "died"


def _failed(outcome: _Outcome) -> FitChunk:
    reason = outcome.error or ""
    errors = [ClientError(client_id=i, reason=reason) for i in outcome.client_ids]
    return FitChunk(partial=None, replies=(), errors=tuple(errors))
